// HAKMEM_PURGE=later: what is free stays for ten times HAKMEM_DECAY_MS, and
// goes when nobody has wanted it for so long. Of pools without caches that is
// what is free as a whole slab.

#include <malloc.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/start_process.h"

namespace hakmem {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Of each pool, and of the arena itself.
constexpr size_t kSizes[] = {1000, 6000, 20000, 100000, 2 * kMiB};

size_t Resident() { return Stats().resident_bytes; }

// Blocks of which nine in ten have gone: of `run` that stay, the neighbours.
class Heap {
 public:
  explicit Heap(size_t run) {
    for (const size_t size : kSizes) {
      for (size_t i = 0; i < kBytes / size; ++i) {
        blocks_.push_back(malloc(size));
        std::memset(blocks_.back(), 1, size);
      }
    }
    full_ = Resident();
    CHECK(full_ > 4 * kBytes);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (i % (10 * run) >= run) std::free(std::exchange(blocks_[i], nullptr));
    }
  }
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap() {
    for (void* const block : blocks_) std::free(block);
  }

  // What was resident before that.
  size_t full() const { return full_; }

 private:
  static constexpr size_t kBytes = 10 * kMiB;  // of each size
  std::vector<void*> blocks_;
  size_t full_ = 0;
};

// Many that stay together leave whole slabs; one by one, pages of slabs.
constexpr size_t kMany = 100;

void SlabsStay() {
  const Heap heap(kMany);
  CHECK(Resident() > heap.full() / 10 * 8);
  CHECK(malloc_trim(0) == 1);
  CHECK(Resident() < heap.full() / 2);
}

void PagesStay() {
  const Heap heap(1);
  if (Stats().thread_cache_bytes != 0) {
    CHECK(Resident() > heap.full() / 10 * 9);
  }
}

void Goes() {
  const Heap heap(kMany);
  // It takes no more than calls, by and by, which want little themselves.
  while (Resident() > heap.full() / 2) {
    void* blocks[64];
    for (void*& block : blocks) block = malloc(6000);
    for (void* const block : blocks) std::free(block);
    std::free(malloc(2 * kMiB));
  }
}

constexpr Part kParts[] = {
    {"slabs_stay", &SlabsStay}, {"pages_stay", &PagesStay}, {"goes", &Goes}};

[[gnu::constructor]] void RunThePart() { RunPart(kParts); }

TEST(PurgeLaterTest, FreeSlabsStayUnlessTheyAreAskedFor) {
  EXPECT_EQ(StartPart("slabs_stay",
                      {"HAKMEM_PURGE=later", "HAKMEM_DECAY_MS=3600000"}),
            0);
}

TEST(PurgeLaterTest, FreePagesOfSlabsStay) {
  EXPECT_EQ(StartPart("pages_stay",
                      {"HAKMEM_PURGE=later", "HAKMEM_DECAY_MS=3600000"}),
            0);
}

TEST(PurgeLaterTest, TheyGoWhenNobodyWantedThem) {
  EXPECT_EQ(StartPart("goes", {"HAKMEM_PURGE=later", "HAKMEM_DECAY_MS=1"}), 0);
}

}  // namespace
}  // namespace hakmem
