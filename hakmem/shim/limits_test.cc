// Memory that ends: a small arena, limits of the system, no arena at all.
//
// Options and limits hold for a whole process from its first call on, so each
// test runs a part of this program in a process of its own: StartPart().

#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/early.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/start_process.h"

namespace hakmem {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Blocks of one size, each filled with what its number says. Where they stand
// is noted in memory that does not come from the heap that is being used up.
class Blocks {
 public:
  explicit Blocks(size_t size) : size_(size) {}

  // Allocates until there is none left or `limit` are there.
  size_t Allocate(size_t limit) {
    while (count_ < limit && count_ < std::size(blocks_)) {
      errno = EXDEV;
      void* const block = malloc(size_);
      if (block == nullptr) {
        CHECK(errno == ENOMEM);
        break;
      }
      CHECK(errno == EXDEV);
      std::memset(block, Fill(count_), size_);
      blocks_[count_++] = static_cast<unsigned char*>(block);
    }
    return count_;
  }

  void CheckAndFree() {
    for (size_t i = 0; i < count_; ++i) {
      for (size_t at = 0; at < size_; at += 61)
        CHECK(blocks_[i][at] == Fill(i));
      errno = EXDEV;
      free(blocks_[i]);
      CHECK(errno == EXDEV);
    }
    count_ = 0;
  }

 private:
  static unsigned char Fill(size_t i) {
    return static_cast<unsigned char>(i * 7 + 1);
  }

  size_t size_;
  size_t count_ = 0;
  static constexpr size_t kMost = 600000;
  unsigned char* blocks_[kMost];
};

// Static, so that there is room for it whatever the heap says.
template <size_t kSize>
Blocks& BlocksOf() {
  alignas(Blocks) static constinit char memory[sizeof(Blocks)] = {};
  static Blocks* const blocks = new (memory) Blocks(kSize);
  return *blocks;
}

template <size_t kSize>
void UseUpAndRecover() {
  Blocks& blocks = BlocksOf<kSize>();
  CHECK(blocks.Allocate(SIZE_MAX) * kSize > kMiB);
  blocks.CheckAndFree();
  // Slabs of what is still cached stay where they are, and not every hole
  // between them has room for a slab: how much there is, is to be compared from
  // an arena that is all free.
  malloc_trim(0);
  const size_t first = blocks.Allocate(SIZE_MAX);
  // Nothing of another size is left either, and nothing of an impossible one.
  CHECK(malloc(8 * kMiB) == nullptr && errno == ENOMEM);
  CHECK(calloc(1, 8 * kMiB) == nullptr && errno == ENOMEM);
  CHECK(aligned_alloc(kMiB, 8 * kMiB) == nullptr && errno == ENOMEM);
  blocks.CheckAndFree();
  for (int round = 0; round < 3; ++round) {
    malloc_trim(0);
    const size_t again = blocks.Allocate(SIZE_MAX);
    CHECK(again == first);
    blocks.CheckAndFree();
  }
}

// A full heap in turns of all sizes: what one gave back serves the next.
void SmallArena() {
  CHECK(Stats().reserved_bytes == 4 * kMiB);
  for (int round = 0; round < 2; ++round) {
    UseUpAndRecover<16>();
    UseUpAndRecover<100>();
    UseUpAndRecover<1000>();
    UseUpAndRecover<5000>();
    UseUpAndRecover<30000>();
    UseUpAndRecover<100000>();
    UseUpAndRecover<1000000>();
    UseUpAndRecover<1500000>();
  }
  CHECK(Stats().direct_bytes == 0);
}

// Several threads at the end of memory: each gets what another frees.
void SmallArenaThreads() {
  constexpr int kThreads = 4;
  // To start the last one takes memory too.
  std::barrier all_started(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([i, &all_started] {
      all_started.arrive_and_wait();
      const size_t sizes[] = {200, 3000, 40000, 300000};
      for (int round = 0; round < 200; ++round) {
        void* blocks[2000];
        int count = 0;
        while (count < 2000) {
          void* const block = malloc(sizes[(i + round) % 4]);
          if (block == nullptr) break;
          std::memset(block, i, 100);
          blocks[count++] = block;
        }
        while (count > 0) {
          CHECK(*static_cast<unsigned char*>(blocks[--count]) == i);
          free(blocks[count]);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  UseUpAndRecover<1000>();
}

// What does not fit into the arena is mapped directly, and given back.
template <size_t kSize>
void SpillOver() {
  Blocks& blocks = BlocksOf<kSize>();
  const size_t wanted = 12 * kMiB / (kSize < 4096 ? 4096 : kSize);
  CHECK(blocks.Allocate(wanted + 4 * kMiB / kSize) ==
        wanted + 4 * kMiB / kSize);
  CHECK(Stats().direct_bytes > 0);
  blocks.CheckAndFree();
  CHECK(Stats().direct_bytes == 0);
}

void Spill() {
  CHECK(Stats().reserved_bytes == 4 * kMiB);
  SpillOver<100>();
  SpillOver<3000>();
  SpillOver<50000>();
  SpillOver<700000>();
  SpillOver<2000000>();
}

// As a program under `ulimit -v`: goes on until the limit, says ENOMEM there,
// and goes on after giving back.
void AddressSpace() {
  CHECK(Stats().reserved_bytes > 0);
  for (int round = 0; round < 3; ++round) {
    CHECK(BlocksOf<100000>().Allocate(1000) == 1000);
    BlocksOf<100000>().CheckAndFree();
    CHECK(BlocksOf<5000000>().Allocate(SIZE_MAX) < 200);
    BlocksOf<5000000>().CheckAndFree();
    CHECK(BlocksOf<50>().Allocate(500000) == 500000);
    BlocksOf<50>().CheckAndFree();
  }
}

// No reservation at all: every block is a mapping of its own.
void NoArena() {
  CHECK(Stats().reserved_bytes == 0);
  void* const small = malloc(10);
  void* const zeroed = calloc(10, 1000);
  void* const aligned = aligned_alloc(65536, 100);
  void* grown = malloc(3000);
  CHECK(small != nullptr && zeroed != nullptr && grown != nullptr);
  CHECK(aligned != nullptr &&
        reinterpret_cast<uintptr_t>(aligned) % 65536 == 0);
  CHECK(Stats().direct_bytes > 0);
  std::memset(grown, 0x33, 3000);
  grown = realloc(grown, 300000);
  CHECK(grown != nullptr && static_cast<char*>(grown)[2999] == 0x33);
  grown = realloc(grown, 10);
  CHECK(grown != nullptr && static_cast<char*>(grown)[9] == 0x33);
  for (int i = 0; i < 10000; ++i) CHECK(static_cast<char*>(zeroed)[i] == 0);
  for (void* const block : {small, zeroed, aligned, grown}) free(block);
  CHECK(malloc(64 * kMiB) == nullptr && errno == ENOMEM);
  for (int i = 0; i < 5; ++i) {
    CHECK(BlocksOf<20000>().Allocate(50) == 50);
    BlocksOf<20000>().CheckAndFree();
  }
  // Last, since its stack takes what address space there is.
  std::thread([] { free(malloc(100)); }).join();
}

// How many bytes of address space and of data this process has: the figures 0
// and 5 of statm.
size_t StatmBytes(int figure) {
  size_t pages[6] = {};
  FILE* const file = std::fopen("/proc/self/statm", "r");
  CHECK(file != nullptr);
  for (size_t& number : pages) CHECK(std::fscanf(file, "%zu", &number) == 1);
  std::fclose(file);
  return pages[figure] * 4096;
}

void SetLimit(int resource, size_t bytes) {
  const rlimit limit = {bytes, RLIM_INFINITY};
  CHECK(setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0);
}

// One byte in many, by which a block that moved is known.
void Mark(char* block, size_t from, size_t to) {
  for (size_t at = from; at < to; at += 64 * 1024) {
    block[at] = static_cast<char>(at >> 16);
  }
}

bool HasMarks(const char* block, size_t size) {
  for (size_t at = 0; at < size; at += 64 * 1024) {
    if (block[at] != static_cast<char>(at >> 16)) return false;
  }
  return true;
}

// Direct mappings grow and shrink by whole pages, each in the way of the other;
// what the system refuses leaves them as they were.
void ResizeDirect() {
  char* blocks[2];
  for (char*& block : blocks) {
    block = static_cast<char*>(malloc(6 * kMiB));
    CHECK(block != nullptr);
    Mark(block, 0, 6 * kMiB);
  }
  size_t size = 6 * kMiB;
  for (int step = 0; step < 20; ++step) {
    for (char*& block : blocks) {
      errno = EXDEV;
      block = static_cast<char*>(realloc(block, size + size / 4));
      CHECK(block != nullptr && errno == EXDEV);
      CHECK(HasMarks(block, size));
      Mark(block, 0, size + size / 4);
    }
    size += size / 4;
    CHECK(Stats().direct_bytes >= 2 * size);
    CHECK(Stats().direct_bytes <= 2 * size + 2 * 4096);
  }
  SetLimit(RLIMIT_AS, StatmBytes(0) + 16 * kMiB);
  CHECK(realloc(blocks[0], 4 * size) == nullptr && errno == ENOMEM);
  CHECK(malloc_usable_size(blocks[0]) >= size && HasMarks(blocks[0], size));
  // What one gives up the other one gets.
  blocks[1] = static_cast<char*>(realloc(blocks[1], 6 * kMiB));
  CHECK(blocks[1] != nullptr && HasMarks(blocks[1], 6 * kMiB));
  CHECK(Stats().direct_bytes <= size + 7 * kMiB);
  blocks[0] = static_cast<char*>(realloc(blocks[0], size + size / 2));
  CHECK(blocks[0] != nullptr && HasMarks(blocks[0], size));
  for (char* const block : blocks) free(block);
  CHECK(Stats().direct_bytes == 0);
}

// A limit that comes in the middle of a run, as a supervisor's prlimit does:
// the heap ends there, goes on with what is given back, and grows again when
// the limit is raised.
void LimitInTheMiddle() {
  CHECK(BlocksOf<100000>().Allocate(400) == 400);
  SetLimit(RLIMIT_AS, StatmBytes(0) + 32 * kMiB);
  const size_t fitted = BlocksOf<3000000>().Allocate(SIZE_MAX);
  CHECK(fitted >= 5 && fitted < 100);
  CHECK(malloc(100 * kMiB) == nullptr && errno == ENOMEM);
  CHECK(calloc(100, kMiB) == nullptr && errno == ENOMEM);
  BlocksOf<100000>().CheckAndFree();
  // Freed as blocks of one size, wanted as blocks of others.
  CHECK(BlocksOf<1000>().Allocate(15000) == 15000);
  CHECK(BlocksOf<1500000>().Allocate(10) == 10);
  BlocksOf<1000>().CheckAndFree();
  BlocksOf<1500000>().CheckAndFree();
  SetLimit(RLIMIT_AS, RLIM_INFINITY);
  CHECK(BlocksOf<5000000>().Allocate(100) == 100);
  BlocksOf<5000000>().CheckAndFree();
  BlocksOf<3000000>().CheckAndFree();
}

// The system refuses the arena's generous steps and grants the small ones: a
// call that succeeds in the end says nothing of what failed on the way.
void DataSegment() {
  // Uses up what is accessible already.
  BlocksOf<1000>().Allocate(20000);
  SetLimit(RLIMIT_DATA, StatmBytes(5) + 3 * kMiB);
  for (int round = 0; round < 3; ++round) {
    CHECK(BlocksOf<100>().Allocate(SIZE_MAX) > 20000);
    BlocksOf<100>().CheckAndFree();
  }
  BlocksOf<1000>().CheckAndFree();
}

// Under HAKMEM_LIMIT: threads come to it, get ENOMEM, give back and go on, with
// blocks of all sizes; and never is more resident than it says.
void HeldLimit() {
  constexpr size_t kLimit = 48 * kMiB;
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (const size_t size :
       {size_t{200}, size_t{5000}, size_t{70000}, 3 * kMiB}) {
    threads.emplace_back([size, &refused] {
      std::vector<char*> blocks;
      blocks.reserve(2 * kLimit / size);
      for (int round = 0; round < 5; ++round) {
        while (blocks.size() < blocks.capacity()) {
          errno = 0;
          auto* const block = static_cast<char*>(malloc(size));
          if (block == nullptr) {
            CHECK(errno == ENOMEM);
            ++refused;
            break;
          }
          std::memset(block, 1, size);
          blocks.push_back(block);
        }
        const hak_stats stats = Stats();
        CHECK(stats.slab_resident_bytes + stats.large_resident_bytes <= kLimit);
        for (char* const block : blocks) free(block);
        blocks.clear();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(refused != 0);
  // What one thread left is there for a block of another size.
  void* const most = malloc(40 * kMiB);
  CHECK(most != nullptr);
  std::memset(most, 1, 40 * kMiB);
  errno = 0;
  CHECK(malloc(10 * kMiB) == nullptr && errno == ENOMEM);
  // Growing a block is subject to it as well.
  CHECK(realloc(most, 60 * kMiB) == nullptr);
  free(most);
}

// The same for direct mappings, which a small arena leads to.
void HeldLimitOfDirectMappings() {
  void* const most = malloc(30 * kMiB);
  CHECK(most != nullptr && Stats().direct_bytes >= 30 * kMiB);
  CHECK(malloc(20 * kMiB) == nullptr && errno == ENOMEM);
  void* const grown = realloc(most, 40 * kMiB);
  CHECK(grown != nullptr);
  CHECK(realloc(grown, 60 * kMiB) == nullptr && errno == ENOMEM);
  void* const shrunk = realloc(grown, 10 * kMiB);
  CHECK(shrunk != nullptr);
  void* const second = malloc(30 * kMiB);
  CHECK(second != nullptr);
  free(second);
  free(shrunk);
  CHECK(Stats().direct_bytes == 0);
  free(malloc(44 * kMiB));
}

// Beyond HAKMEM_SOFT_LIMIT nothing waits for reuse.
void SoftLimit() {
  void* const live = malloc(40 * kMiB);
  std::memset(live, 1, 40 * kMiB);
  void* const more = malloc(6 * kMiB);
  std::memset(more, 1, 6 * kMiB);
  free(more);
  CHECK(Stats().free_dirty_bytes == 0);
  free(live);
  // Below it, what may stay stays.
  void* const some = malloc(6 * kMiB);
  std::memset(some, 1, 6 * kMiB);
  free(some);
  CHECK(Stats().free_dirty_bytes > 0);
}

constexpr Part kParts[] = {
    {"held_limit", &HeldLimit},
    {"held_limit_of_direct_mappings", &HeldLimitOfDirectMappings},
    {"soft_limit", &SoftLimit},
    {"data_segment", &DataSegment},
    {"limit_in_the_middle", &LimitInTheMiddle},
    {"resize_direct", &ResizeDirect},
    {"small_arena", &SmallArena},
    {"small_arena_early", &SmallArena},
    {"small_arena_threads", &SmallArenaThreads},
    {"spill", &Spill},
    {"address_space", &AddressSpace},
    {"no_arena", &NoArena},
};

// Leaves so little address space above what is mapped already that no arena
// fits. Here, since before this process was started nobody knows how much.
void BeforeConstructors(int, char**, char** environment) {
  // getenv() knows nothing yet.
  const std::string_view part = environment[0] == nullptr ? "" : environment[0];
  if (part == "PART=small_arena_early") free(malloc(100));
  if (part != "PART=no_arena") return;
  char text[64] = {};
  const int fd = open("/proc/self/statm", O_RDONLY);
  if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0) _exit(2);
  close(fd);
  size_t pages = 0;
  for (const char* c = text; *c >= '0' && *c <= '9'; ++c) {
    pages = pages * 10 + static_cast<size_t>(*c - '0');
  }
  const rlimit limit = {pages * 4096 + 9 * kMiB, RLIM_INFINITY};
  if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(2);
}

HAKMEM_RUN_BEFORE_CONSTRUCTORS(&BeforeConstructors);

[[gnu::constructor]] void RunThePart() { RunPart(kParts); }

TEST(LimitsTest, ASmallArenaUsedUpLosesNothing) {
  EXPECT_EQ(StartPart("small_arena",
                      {"HAKMEM_ARENA_BYTES=4M", "HAKMEM_DIRECT_MAPS=0"}),
            0);
}

// Options hold also where the first call comes before the C library has made
// the environment known.
TEST(LimitsTest, OptionsAreReadHoweverEarlyTheFirstCall) {
  EXPECT_EQ(StartPart("small_arena_early",
                      {"HAKMEM_ARENA_BYTES=4M", "HAKMEM_DIRECT_MAPS=0"}),
            0);
}

TEST(LimitsTest, ThreadsAtTheEndOfASmallArena) {
  EXPECT_EQ(StartPart("small_arena_threads",
                      {"HAKMEM_ARENA_BYTES=4M", "HAKMEM_DIRECT_MAPS=0"}),
            0);
}

TEST(LimitsTest, DirectMappingsServeWhatASmallArenaCannot) {
  EXPECT_EQ(StartPart("spill", {"HAKMEM_ARENA_BYTES=4M"}), 0);
}

TEST(LimitsTest, DirectMappingsAreResized) {
  EXPECT_EQ(StartPart("resize_direct", {"HAKMEM_ARENA_BYTES=4M"}), 0);
}

TEST(LimitsTest, UnderALimitThatComesInTheMiddle) {
  EXPECT_EQ(StartPart("limit_in_the_middle", {"HAKMEM_ARENA_BYTES=64M"}), 0);
}

TEST(LimitsTest, UnderALimitOfAddressSpace) {
  EXPECT_EQ(StartPart("address_space", {}, 700 * kMiB), 0);
}

TEST(LimitsTest, UnderALimitOfTheDataSegment) {
  EXPECT_EQ(StartPart("data_segment"), 0);
}

TEST(LimitsTest, NoMoreIsHeldThanTheLimit) {
  EXPECT_EQ(StartPart("held_limit", {"HAKMEM_LIMIT=48M"}), 0);
}

TEST(LimitsTest, NorInDirectMappings) {
  EXPECT_EQ(StartPart("held_limit_of_direct_mappings",
                      {"HAKMEM_LIMIT=48M", "HAKMEM_ARENA_BYTES=4M"}),
            0);
}

TEST(LimitsTest, BeyondTheSoftLimitNothingIsKept) {
  EXPECT_EQ(StartPart("soft_limit", {"HAKMEM_SOFT_LIMIT=32M"}), 0);
}

TEST(LimitsTest, WithoutAnyReservation) { EXPECT_EQ(StartPart("no_arena"), 0); }

}  // namespace
}  // namespace hakmem
