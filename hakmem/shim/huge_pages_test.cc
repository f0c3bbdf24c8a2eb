// HAKMEM_HUGE_PAGES, which the environment of this test has: huge pages are
// there, the figures are right, and memory goes back in spite of them.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/in_child.h"
#include "hakmem/shim/rollup.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kHugePage = 2 * kMiB;

hak_stats Stats() {
  hak_stats stats;
  EXPECT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
  return stats;
}

// The number that follows `key` in the file, or 0.
size_t NumberIn(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) {
      return std::strtoull(line.c_str() + key.size(), nullptr, 10);
    }
  }
  return 0;
}

// The flags that the system has for the mapping that `address` lies in.
std::string FlagsOf(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(smaps, line);) {
    char* end = nullptr;
    const uintptr_t first = std::strtoull(line.c_str(), &end, 16);
    if (end != line.c_str() && *end == '-') {
      const uintptr_t last = std::strtoull(end + 1, nullptr, 16);
      const auto at = reinterpret_cast<uintptr_t>(address);
      here = first <= at && at < last;
    } else if (here && line.starts_with("VmFlags:")) {
      return line + " ";
    }
  }
  return "";
}

// What the system says of huge pages: "always [madvise] never"; "" where it
// knows none.
std::string Setting() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  std::getline(file, line);
  return line;
}

// Skips where the system gives no huge pages, or has none at this moment.
class HugePagesTest : public testing::Test {
 protected:
  void SetUp() override {
    hak_release_memory(0);
    if (Setting().empty() || Setting().find("[never]") != std::string::npos) {
      GTEST_SKIP() << "no huge pages here";
    }
  }

  static std::vector<void*> Allocate(size_t bytes, size_t size) {
    std::vector<void*> blocks(bytes / size);
    for (void*& block : blocks) {
      block = malloc(size);
      std::memset(block, 1, size);
    }
    return blocks;
  }
  static void Free(std::vector<void*>& blocks) {
    for (void* const block : blocks) free(block);
    blocks.clear();
  }

  static size_t Fallbacks() {
    return NumberIn("/proc/vmstat", "thp_fault_fallback ");
  }
};

// Reaches a peak of 128 MiB, of which a tenth stays: spread over all of it, or
// its end. Expects no more to be resident, in fortieths of the peak, than
// `at_once` then and `later` once the background thread has been there.
void DropToATenth(bool scattered, uint64_t at_once, uint64_t later) {
  constexpr size_t kPeak = 128 * kMiB;
  const uint64_t base = Stats().resident_bytes;
  std::mt19937 random(3);
  std::vector<void*> kept;
  std::vector<void*> dropped;
  for (size_t bytes = 0; bytes < kPeak;) {
    const size_t size = 16 + random() % 16369;
    bytes += size;
    const bool keep =
        scattered ? random() % 10 == 0 : bytes >= kPeak - kPeak / 10;
    void* const block = malloc(size);
    std::memset(block, 1, size);
    (keep ? kept : dropped).push_back(block);
  }
  for (void* const block : dropped) free(block);
  constexpr uint64_t kUnit = kPeak / 40;
  EXPECT_LE(Stats().resident_bytes - base, at_once * kUnit) << scattered;
  EXPECT_EQ(hak_background_start(), 0);
  // By the clock: there is nothing else to wait for.
  for (int i = 0; i < 500; ++i) {
    if (Stats().resident_bytes - base <= later * kUnit) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_LE(Stats().resident_bytes - base, later * kUnit) << scattered;
}

// In processes that have had no peak before, and so remember none. With small
// pages it is less (docs/memory.md): of a slab there is no more than was used.
TEST_F(HugePagesTest, MemoryGoesBackAfterAPeak) {
  hakmem::InChild([] {
    DropToATenth(false, 10, 7);
    return !HasFailure();
  });
  hakmem::InChild([] {
    DropToATenth(true, 14, 8);
    return !HasFailure();
  });
}

TEST_F(HugePagesTest, AreThereWhereTheyAreAskedFor) {
  const size_t fallbacks = Fallbacks();
  std::vector<void*> blocks = Allocate(64 * kMiB, 3000);
  EXPECT_NE(FlagsOf(blocks.back()).find(" hg "), std::string::npos);
  if (Fallbacks() == fallbacks) {
    EXPECT_GE(hakmem::Rollup("AnonHugePages"), 56 * kMiB);
  }
  Free(blocks);
}

TEST_F(HugePagesTest, FiguresAreThoseOfTheSystem) {
  std::mt19937 random(1);
  std::vector<void*> blocks;
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 60; ++i) {
      const size_t size = 16 + random() % (3 * kMiB / (1 + random() % 100));
      blocks.push_back(malloc(size));
      std::memset(blocks.back(), 1, size);
    }
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (size_t i = blocks.size() / 2; i-- > 0;) {
      free(blocks.back());
      blocks.pop_back();
    }
    const hak_stats stats = Stats();
    EXPECT_EQ(stats.slab_bytes + stats.large_bytes + stats.free_run_bytes,
              stats.committed_bytes);
    const auto ours = static_cast<double>(stats.resident_bytes);
    const auto theirs = static_cast<double>(hakmem::Rollup("Anonymous"));
    EXPECT_NEAR(ours, theirs, theirs / 20);
    EXPECT_LE(stats.free_resident_bytes, stats.free_dirty_bytes);
  }
  Free(blocks);
}

// A huge page that is touched at one end is there at the other, where nobody
// has written: such memory counts as free and resident, and reads as zero.
TEST_F(HugePagesTest, WhatIsThereOfItUnasked) {
  const size_t fallbacks = Fallbacks();
  const hak_stats before = Stats();
  // At the start of a huge page that nothing else is in.
  auto* const block =
      static_cast<char*>(aligned_alloc(kHugePage, kMiB + kMiB / 2));
  *block = 1;
  const hak_stats after = Stats();
  if (Fallbacks() != fallbacks) {
    free(block);
    GTEST_SKIP() << "no huge page is free";
  }
  EXPECT_EQ(after.large_resident_bytes - before.large_resident_bytes,
            kMiB + kMiB / 2);
  EXPECT_GE(after.free_resident_bytes - before.free_resident_bytes, kMiB / 2);
  EXPECT_EQ(after.free_dirty_bytes - before.free_dirty_bytes,
            after.free_resident_bytes - before.free_resident_bytes);
  EXPECT_GE(hak_release_memory(0), kMiB / 2);
  EXPECT_LE(Stats().free_resident_bytes, before.free_resident_bytes);
  free(block);
}

// The system makes parts into huge pages again, also such as went back, unless
// it is told not to.
TEST_F(HugePagesTest, PartsThatWentBackStayAway) {
  void* const block = aligned_alloc(kHugePage, kHugePage - kMiB / 2);
  std::memset(block, 1, kHugePage - kMiB / 2);
  EXPECT_NE(FlagsOf(block).find(" hg "), std::string::npos);
  hak_release_memory(0);
  EXPECT_NE(FlagsOf(block).find(" nh "), std::string::npos);
  free(block);
  hak_release_memory(0);
  EXPECT_NE(FlagsOf(block).find(" hg "), std::string::npos);
  // Of one that all of is in use no part is away.
  void* const again = aligned_alloc(kHugePage, kHugePage - kMiB / 2);
  std::memset(again, 1, kHugePage - kMiB / 2);
  hak_release_memory(0);
  EXPECT_NE(FlagsOf(again).find(" nh "), std::string::npos);
  void* const whole = realloc(again, kHugePage);
  EXPECT_EQ(whole, again);
  EXPECT_NE(FlagsOf(whole).find(" hg "), std::string::npos);
  free(whole);
}

// Runs of all lengths that lie across huge pages, some of them written to, and
// blocks of slabs among them.
TEST_F(HugePagesTest, ClearedMemoryIsZero) {
  std::mt19937 random(2);
  std::vector<std::pair<unsigned char*, size_t>> blocks;
  for (int i = 0; i < 4000; ++i) {
    if (random() % 1000 == 0) hak_release_memory(0);
    if (blocks.size() == 60) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      free(blocks.back().first);
      blocks.pop_back();
    }
    const size_t size = random() % 2 == 0 ? kMiB + random() % (2 * kMiB)
                                          : 33000 + random() % kMiB;
    auto* const block = static_cast<unsigned char*>(calloc(1, size));
    ASSERT_NE(block, nullptr);
    for (size_t at = 0; at < size; at += 4096) ASSERT_EQ(block[at], 0) << at;
    if (random() % 2 == 0) {
      for (size_t at = 0; at < size; at += 4096) block[at] = 1;
    } else {
      block[0] = 1;
    }
    blocks.emplace_back(block, size);
  }
  for (const auto& [block, size] : blocks) free(block);
}

// For HAKMEM_HUGE_PAGES=never.
TEST(NoHugePagesTest, AreThereWhereTheyAreRefused) {
  if (Setting().empty()) GTEST_SKIP() << "no huge pages here";
  const size_t before = hakmem::Rollup("AnonHugePages");
  std::vector<char*> blocks(20);
  for (char*& block : blocks) {
    block = static_cast<char*>(malloc(2 * kHugePage));
    std::memset(block, 1, 2 * kHugePage);
  }
  EXPECT_NE(FlagsOf(blocks[0]).find(" nh "), std::string::npos);
  // What else the process has may be.
  EXPECT_LE(hakmem::Rollup("AnonHugePages"), before + 2 * kHugePage);
  for (char* const block : blocks) free(block);
}

}  // namespace
