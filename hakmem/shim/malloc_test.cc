// The malloc family's contracts, edge by edge. This program's malloc is hakmem.

#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"

namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;

// Sizes at and around every border between pools and paths.
const std::vector<size_t>& EdgeSizes() {
  static const auto* const sizes = [] {
    auto* const all = new std::vector<size_t>;
    for (const size_t edge :
         {size_t{0}, size_t{8}, size_t{16}, size_t{128}, kKiB, 2 * kKiB,
          32 * kKiB, 64 * kKiB, 100 * kKiB, kMiB, 2 * kMiB, 9 * kMiB}) {
      for (const int step : {-1, 0, 1}) {
        if (edge != 0 || step >= 0) all->push_back(edge + step);
      }
    }
    return all;
  }();
  return *sizes;
}

// Sizes that no system grants, or that are above PTRDIFF_MAX.
constexpr size_t kImpossible[] = {SIZE_MAX,
                                  SIZE_MAX - 15,
                                  SIZE_MAX - 4096,
                                  SIZE_MAX - 65536,
                                  SIZE_MAX / 2 + 1,
                                  PTRDIFF_MAX,
                                  size_t{PTRDIFF_MAX} - 65536,
                                  size_t{1} << 62,
                                  size_t{1} << 48};

bool IsAligned(const void* block, size_t alignment) {
  return reinterpret_cast<uintptr_t>(block) % alignment == 0;
}

// Every byte of small blocks, one in many of large ones.
size_t Next(size_t i) { return i < 64 * kKiB ? i + 1 : i + 1021; }

// A pattern that no two seeds share over a whole block.
unsigned char PatternAt(size_t i, unsigned seed) {
  return static_cast<unsigned char>((i * 131 + i / 251 + seed * 29) >> 1);
}

void Fill(void* block, size_t size, unsigned seed) {
  auto* const bytes = static_cast<unsigned char*>(block);
  for (size_t i = 0; i < size; i = Next(i)) bytes[i] = PatternAt(i, seed);
}

bool Holds(const void* block, size_t size, unsigned seed) {
  const auto* const bytes = static_cast<const unsigned char*>(block);
  for (size_t i = 0; i < size; i = Next(i)) {
    if (bytes[i] != PatternAt(i, seed)) return false;
  }
  return true;
}

bool IsZero(const void* block, size_t size) {
  const auto* const bytes = static_cast<const unsigned char*>(block);
  return std::all_of(bytes, bytes + size,
                     [](unsigned char byte) { return byte == 0; });
}

// Checks that a call failed as C says: null, and ENOMEM in errno.
#define EXPECT_NO_MEMORY(call)         \
  do {                                 \
    errno = 0;                         \
    EXPECT_EQ((call), nullptr);        \
    EXPECT_EQ(errno, ENOMEM) << #call; \
  } while (false)

TEST(MallocTest, ThisProgramRunsOnHakmem) {
  hak_stats before;
  ASSERT_EQ(hak_stats_get(&before, sizeof(before)), 0);
  void* const block = malloc(40 * kMiB);
  hak_stats after;
  ASSERT_EQ(hak_stats_get(&after, sizeof(after)), 0);
  EXPECT_GE(after.large_bytes, before.large_bytes + 40 * kMiB);
  free(block);
}

TEST(MallocTest, SizeZeroGivesBlocksOfTheirOwn) {
  std::set<void*> blocks;
  for (int i = 0; i < 1000; ++i) {
    for (void* const block :
         {malloc(0), calloc(0, 0), calloc(0, 100), realloc(nullptr, 0),
          memalign(64, 0), aligned_alloc(64, 0), valloc(0)}) {
      ASSERT_NE(block, nullptr);
      ASSERT_TRUE(blocks.insert(block).second) << "twice " << block;
    }
  }
  for (void* const block : blocks) free(block);
}

TEST(MallocTest, BlocksAreAlignedDistinctAndWritable) {
  struct Block {
    void* start;
    size_t size;
  };
  std::vector<Block> blocks;
  for (int round = 0; round < 3; ++round) {
    for (const size_t size : EdgeSizes()) {
      void* const block = malloc(size);
      ASSERT_NE(block, nullptr) << size;
      ASSERT_TRUE(IsAligned(block, size <= 8 ? 8 : 16)) << size;
      ASSERT_GE(malloc_usable_size(block), size);
      Fill(block, size, static_cast<unsigned>(blocks.size()));
      blocks.push_back({block, size});
    }
  }
  for (unsigned i = 0; i < blocks.size(); ++i) {
    EXPECT_TRUE(Holds(blocks[i].start, blocks[i].size, i)) << blocks[i].size;
    free(blocks[i].start);
  }
}

TEST(MallocTest, AllOfTheUsableSizeMayBeUsed) {
  EXPECT_EQ(malloc_usable_size(nullptr), 0u);
  std::vector<void*> blocks;
  for (const size_t size : EdgeSizes()) {
    for (int i = 0; i < 4; ++i) {
      void* const block = malloc(size);
      Fill(block, malloc_usable_size(block),
           static_cast<unsigned>(blocks.size()));
      blocks.push_back(block);
    }
  }
  for (unsigned i = 0; i < blocks.size(); ++i) {
    EXPECT_TRUE(Holds(blocks[i], malloc_usable_size(blocks[i]), i));
    free(blocks[i]);
  }
}

TEST(MallocTest, CallocClearsMemoryThatWasUsedBefore) {
  for (const size_t size : EdgeSizes()) {
    for (int i = 0; i < 8; ++i) {
      void* const used = malloc(size);
      std::memset(used, 0xa5, malloc_usable_size(used));
      free(used);
      void* const block = calloc(i % 2 == 0 ? 1 : size, i % 2 == 0 ? size : 1);
      ASSERT_NE(block, nullptr);
      ASSERT_TRUE(IsZero(block, size)) << size;
      std::memset(block, 0x5a, size);
      free(block);
    }
  }
}

// Pages of the block that are there.
size_t ResidentPages(void* block, size_t size) {
  std::vector<unsigned char> pages(size / 4096);
  EXPECT_EQ(mincore(block, size, pages.data()), 0);
  return static_cast<size_t>(
      std::count_if(pages.begin(), pages.end(),
                    [](unsigned char page) { return (page & 1) != 0; }));
}

// What comes from the system is zero already. A table of which little is used
// is to cost no more than that.
TEST(MallocTest, CallocDoesNotTouchLargeBlocksThatNobodyHadYet) {
  for (const size_t size : {36 * kKiB, 160 * kKiB, kMiB, 2 * kMiB}) {
    for (const size_t cached : {0, 2}) {
      hak_release_memory(0);
      // The thread has a few in its cache then, which somebody had.
      if (cached != 0) free(malloc(size));
      void* blocks[40];
      size_t resident = 0;
      for (void*& block : blocks) {
        block = calloc(size / 4, 4);
        ASSERT_TRUE(IsAligned(block, 4096));
        resident += ResidentPages(block, size);
      }
      EXPECT_LE(resident, cached * size / 4096) << size;
      for (void* const block : blocks) {
        ASSERT_TRUE(IsZero(block, size));
        free(block);
      }
    }
  }
}

TEST(MallocTest, ProductsThatOverflowFail) {
  EXPECT_NO_MEMORY(calloc(SIZE_MAX / 2, 3));
  EXPECT_NO_MEMORY(calloc(size_t{1} << 32, size_t{1} << 32));
  EXPECT_NO_MEMORY(calloc(size_t{1} << 33, (size_t{1} << 31) + 1));
  EXPECT_NO_MEMORY(calloc(SIZE_MAX, SIZE_MAX));
  EXPECT_NO_MEMORY(reallocarray(nullptr, SIZE_MAX / 2, 3));
  void* const block = malloc(100);
  Fill(block, 100, 7);
  EXPECT_NO_MEMORY(reallocarray(block, size_t{1} << 32, size_t{1} << 32));
  EXPECT_TRUE(Holds(block, 100, 7));
  free(block);
}

TEST(MallocTest, ImpossibleSizesFailAndLeaveBlocksAsTheyWere) {
  for (const size_t size : kImpossible) {
    EXPECT_NO_MEMORY(malloc(size));
    EXPECT_NO_MEMORY(calloc(size, 1));
    EXPECT_NO_MEMORY(calloc(1, size));
    EXPECT_NO_MEMORY(realloc(nullptr, size));
    EXPECT_NO_MEMORY(memalign(64, size));
    EXPECT_NO_MEMORY(aligned_alloc(64, size));
    EXPECT_NO_MEMORY(aligned_alloc(4096, size));
    EXPECT_NO_MEMORY(aligned_alloc(kMiB, size));
    EXPECT_NO_MEMORY(valloc(size));
    EXPECT_NO_MEMORY(pvalloc(size));
    for (const size_t old_size : EdgeSizes()) {
      void* const block = malloc(old_size);
      Fill(block, old_size, 3);
      EXPECT_NO_MEMORY(realloc(block, size));
      EXPECT_TRUE(Holds(block, old_size, 3)) << old_size << " to " << size;
      free(block);
    }
  }
}

TEST(MallocTest, ImpossibleAlignmentsFail) {
  for (int shift = 44; shift < 63; ++shift) {
    const size_t alignment = size_t{1} << shift;
    for (const size_t size : {size_t{1}, kKiB, kMiB, 3 * kMiB}) {
      // The lower ones may be served by luck: an arena may lie at a multiple.
      errno = 0;
      void* const block = aligned_alloc(alignment, size);
      if (block == nullptr) {
        EXPECT_EQ(errno, ENOMEM) << shift;
      } else {
        EXPECT_TRUE(IsAligned(block, alignment)) << shift;
        Fill(block, size, 1);
        free(block);
      }
    }
  }
  // Volatile: what a compiler can see it refuses itself.
  volatile size_t half_of_all = size_t{1} << 63;
  EXPECT_NO_MEMORY(aligned_alloc(half_of_all, 1));
  // The heap is as whole as before.
  void* const large = malloc(3 * kMiB);
  ASSERT_NE(large, nullptr);
  Fill(large, 3 * kMiB, 5);
  EXPECT_TRUE(Holds(large, 3 * kMiB, 5));
  free(large);
}

TEST(MallocTest, SuccessAndFreeLeaveErrnoAlone) {
  const auto expect_kept = [](const char* what, size_t size) {
    EXPECT_EQ(errno, EXDEV) << what << " " << size;
    errno = EXDEV;
  };
  errno = EXDEV;
  for (int round = 0; round < 3; ++round) {
    for (const size_t size : EdgeSizes()) {
      void* block = malloc(size);
      expect_kept("malloc", size);
      block = realloc(block, size + 100);
      expect_kept("realloc", size);
      free(block);
      expect_kept("free", size);
      block = calloc(size + 1, 3);
      expect_kept("calloc", size);
      free(block);
      expect_kept("free", size);
      block = aligned_alloc(256, size);
      expect_kept("aligned_alloc", size);
      EXPECT_GE(malloc_usable_size(block), size);
      expect_kept("malloc_usable_size", size);
      free(block);
      expect_kept("free", size);
      EXPECT_EQ(posix_memalign(&block, 8192, size), 0);
      expect_kept("posix_memalign", size);
      free(block);
      expect_kept("free", size);
    }
  }
  free(nullptr);
  expect_kept("free(nullptr)", 0);
}

TEST(MallocTest, ReallocKeepsWhatFitsForEveryPairOfSizes) {
  for (const size_t from : EdgeSizes()) {
    for (const size_t to : EdgeSizes()) {
      if (to == 0) continue;
      void* const block = malloc(from);
      Fill(block, from, 11);
      void* const moved = realloc(block, to);
      ASSERT_NE(moved, nullptr);
      ASSERT_TRUE(Holds(moved, std::min(from, to), 11)) << from << " " << to;
      ASSERT_GE(malloc_usable_size(moved), to);
      Fill(moved, to, 12);
      ASSERT_TRUE(Holds(moved, to, 12));
      free(moved);
    }
  }
}

TEST(MallocTest, ReallocOfALargeBlockGrowsAndShrinksStepByStep) {
  void* neighbour = nullptr;
  void* block = malloc(kMiB + 1);
  size_t size = kMiB + 1;
  Fill(block, size, 21);
  // Now and then something lies behind it, so that it has to move.
  for (int step = 0; step < 24; ++step) {
    if (step % 5 == 4) neighbour = realloc(neighbour, 2 * kMiB + step);
    const size_t grown = size + size / 4;
    block = realloc(block, grown);
    ASSERT_NE(block, nullptr);
    ASSERT_TRUE(Holds(block, size, 21)) << grown;
    Fill(block, grown, 21);
    size = grown;
  }
  while (size > 10) {
    size = size / 3 * 2;
    block = realloc(block, size);
    ASSERT_NE(block, nullptr);
    ASSERT_TRUE(Holds(block, size, 21)) << size;
  }
  free(block);
  free(neighbour);
}

// With nothing behind it but the end of the arena it stays where it is, so that
// a buffer which grows bit by bit is not copied over and over.
TEST(MallocTest, TheLastLargeBlockGrowsInPlace) {
  size_t size = 8 * kMiB;
  char* block = static_cast<char*>(malloc(size));
  int moves = 0;
  const auto check = [&](size_t from, size_t to) {
    for (size_t at = from; at < to; at += 100 * kKiB) {
      if (block[at] != static_cast<char>(PatternAt(at, 31))) return false;
    }
    return true;
  };
  for (size_t at = 0; at < size; at += 100 * kKiB) {
    block[at] = static_cast<char>(PatternAt(at, 31));
  }
  for (int step = 0; step < 100; ++step) {
    const size_t grown = size + 5 * kMiB;
    char* const moved = static_cast<char*>(realloc(block, grown));
    ASSERT_NE(moved, nullptr);
    if (moved != block) ++moves;
    block = moved;
    ASSERT_TRUE(check(0, size)) << step;
    for (size_t at = (size / (100 * kKiB) + 1) * 100 * kKiB; at < grown;
         at += 100 * kKiB) {
      block[at] = static_cast<char>(PatternAt(at, 31));
    }
    size = grown;
  }
  EXPECT_LE(moves, 2);
  free(block);
}

TEST(MallocTest, AShrunkenLargeBlockGivesItsEndBack) {
  hak_stats before;
  void* block = malloc(64 * kMiB);
  hak_stats_get(&before, sizeof(before));
  block = realloc(block, 2 * kMiB);
  hak_stats after;
  hak_stats_get(&after, sizeof(after));
  EXPECT_LE(after.large_bytes + 61 * kMiB, before.large_bytes);
  free(block);
}

TEST(MallocTest, ReallocToZeroFrees) {
  errno = EXDEV;
  void* const small = malloc(100);
  EXPECT_EQ(realloc(small, 0), nullptr);
  hak_stats before;
  hak_stats_get(&before, sizeof(before));
  void* const large = malloc(5 * kMiB);
  EXPECT_EQ(realloc(large, 0), nullptr);
  hak_stats after;
  hak_stats_get(&after, sizeof(after));
  EXPECT_EQ(after.large_bytes, before.large_bytes);
  EXPECT_EQ(errno, EXDEV);
}

TEST(MallocTest, ReallocarrayResizesByTheProduct) {
  void* block = reallocarray(nullptr, 10, 30);
  ASSERT_NE(block, nullptr);
  EXPECT_GE(malloc_usable_size(block), 300u);
  Fill(block, 300, 9);
  block = reallocarray(block, 1000, 3000);
  EXPECT_GE(malloc_usable_size(block), 3000000u);
  EXPECT_TRUE(Holds(block, 300, 9));
  free(block);
}

TEST(MallocTest, PosixMemalignReturnsItsErrorsAndTouchesNothingElse) {
  static int something;
  void* const kUntouched = &something;
  for (const size_t alignment : {0, 1, 2, 3, 4, 7, 9, 12, 24, 4095, 65537}) {
    void* out = kUntouched;
    errno = EXDEV;
    EXPECT_EQ(posix_memalign(&out, alignment, 64), EINVAL) << alignment;
    EXPECT_EQ(out, kUntouched);
    EXPECT_EQ(errno, EXDEV);
  }
  for (const size_t size : kImpossible) {
    for (const size_t alignment : {size_t{8}, size_t{4096}, kMiB, 64 * kMiB}) {
      void* out = kUntouched;
      errno = EXDEV;
      EXPECT_EQ(posix_memalign(&out, alignment, size), ENOMEM) << size;
      EXPECT_EQ(out, kUntouched);
      EXPECT_EQ(errno, ENOMEM);
    }
  }
}

TEST(MallocTest, AlignedAllocWantsAPowerOfTwo) {
  for (const size_t alignment :
       {size_t{0}, size_t{3}, size_t{24}, size_t{4097}, SIZE_MAX}) {
    errno = 0;
    EXPECT_EQ(aligned_alloc(alignment, 64), nullptr);
    EXPECT_EQ(errno, EINVAL) << alignment;
  }
}

TEST(MallocTest, MemalignRoundsUpToAPowerOfTwo) {
  for (const size_t alignment : {0, 1, 3, 24, 100, 5000}) {
    void* const block = memalign(alignment, 100);
    ASSERT_NE(block, nullptr);
    size_t power = 1;
    while (power < alignment) power *= 2;
    EXPECT_TRUE(IsAligned(block, power)) << alignment;
    free(block);
  }
  errno = 0;
  volatile size_t all = SIZE_MAX;
  EXPECT_EQ(memalign(all, 64), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST(MallocTest, EveryAlignmentUpTo64MiBForEverySize) {
  for (size_t alignment = 8; alignment <= 64 * kMiB; alignment *= 2) {
    std::vector<void*> blocks;
    for (const size_t size : EdgeSizes()) {
      void* block = nullptr;
      ASSERT_EQ(posix_memalign(&block, alignment, size), 0)
          << alignment << " " << size;
      blocks.push_back(block);
      blocks.push_back(aligned_alloc(alignment, size));
      for (size_t i = blocks.size() - 2; i < blocks.size(); ++i) {
        ASSERT_NE(blocks[i], nullptr);
        ASSERT_TRUE(IsAligned(blocks[i], alignment))
            << alignment << " " << size;
        ASSERT_GE(malloc_usable_size(blocks[i]), size);
        Fill(blocks[i], size, static_cast<unsigned>(i));
      }
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      ASSERT_TRUE(
          Holds(blocks[i], EdgeSizes()[i / 2], static_cast<unsigned>(i)));
      // Half of them go by way of realloc.
      free(i % 2 == 0 ? blocks[i] : realloc(blocks[i], 100));
    }
  }
}

TEST(MallocTest, VallocAndPvallocGivePages) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const size_t size : EdgeSizes()) {
    void* const block = valloc(size);
    ASSERT_TRUE(IsAligned(block, page));
    void* const pages = pvalloc(size);
    ASSERT_TRUE(IsAligned(pages, page));
    const size_t rounded = std::max(page, (size + page - 1) / page * page);
    EXPECT_GE(malloc_usable_size(pages), rounded);
    Fill(pages, rounded, 1);
    free(block);
    free(pages);
  }
}

}  // namespace
