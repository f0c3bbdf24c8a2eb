// The names beside malloc, free, realloc and calloc: C23's, glibc's, and what
// programs look for in other allocators.

#include <malloc.h>
#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"

extern "C" {
void free_sized(void* ptr, size_t size) noexcept;
void free_aligned_sized(void* ptr, size_t alignment, size_t size) noexcept;
void* __libc_malloc(size_t size) noexcept;
void __libc_free(void* ptr) noexcept;
void* __libc_calloc(size_t count, size_t size) noexcept;
void* __libc_realloc(void* ptr, size_t size) noexcept;
void* __libc_memalign(size_t alignment, size_t size) noexcept;
void* __libc_valloc(size_t size) noexcept;
void* __libc_pvalloc(size_t size) noexcept;
int __posix_memalign(void** out, size_t alignment, size_t size) noexcept;
int __libc_mallopt(int parameter, int value) noexcept;
struct mallinfo __libc_mallinfo(void) noexcept;
void cfree(void* ptr) noexcept;
size_t nallocx(size_t size, int flags) noexcept;
void sdallocx(void* ptr, size_t size, int flags) noexcept;
}

namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;

constexpr size_t kSizes[] = {0,        1,        8,        9,         100,
                             kKiB,     kKiB + 1, 5000,     32 * kKiB, 40000,
                             kMiB - 1, kMiB,     kMiB + 1, 3 * kMiB};

hak_stats Stats() {
  hak_stats stats;
  if (hak_stats_get(&stats, sizeof(stats)) != 0) abort();
  return stats;
}

bool IsAligned(const void* block, size_t alignment) {
  return reinterpret_cast<uintptr_t>(block) % alignment == 0;
}

// What the program holds, blocks in caches apart: they are counted as held.
void ExpectFreed(const hak_stats& before) {
  hak_release_memory(0);
  const hak_stats after = Stats();
  EXPECT_LE(after.slab_bytes, before.slab_bytes + 2 * kMiB);
  EXPECT_EQ(after.large_bytes, before.large_bytes);
  EXPECT_EQ(after.direct_bytes, before.direct_bytes);
}

// Each function that frees, often enough for a leak to show.
TEST(FreeTest, EveryFreeGivesTheBlockBack) {
  hak_release_memory(0);
  const hak_stats before = Stats();
  for (const size_t size : kSizes) {
    for (int i = 0; i < 300; ++i) {
      errno = EXDEV;
      free_sized(malloc(size), size);
      free_sized(calloc(size, 1), size);
      free_sized(realloc(nullptr, size), size);
      free_sized(realloc(malloc(3000), std::max<size_t>(size, 1)),
                 std::max<size_t>(size, 1));
      free_aligned_sized(aligned_alloc(64, size), 64, size);
      free_aligned_sized(aligned_alloc(8, size), 8, size);
      sdallocx(malloc(size), size, 0);
      sdallocx(aligned_alloc(4096, size), size, 12);
      // A block may be used, and given back, as what nallocx() says it is.
      sdallocx(malloc(size), nallocx(size, 0), 0);
      cfree(malloc(size));
      __libc_free(malloc(size));
      hak_free(malloc(size));
      ASSERT_EQ(errno, EXDEV);
    }
  }
  ExpectFreed(before);
}

TEST(FreeTest, NullIsIgnored) {
  errno = EXDEV;
  free_sized(nullptr, 0);
  free_sized(nullptr, 100);
  free_aligned_sized(nullptr, 64, 100);
  sdallocx(nullptr, 100, 0);
  cfree(nullptr);
  __libc_free(nullptr);
  EXPECT_EQ(malloc_usable_size(nullptr), 0u);
  EXPECT_EQ(errno, EXDEV);
}

TEST(LibcNamesTest, AreOfTheSameHeap) {
  hak_release_memory(0);
  const hak_stats before = Stats();
  for (const size_t size : kSizes) {
    for (int i = 0; i < 100; ++i) {
      std::vector<void*> blocks = {
          __libc_malloc(size),       __libc_calloc(1, size),
          __libc_memalign(64, size), __libc_valloc(size),
          __libc_pvalloc(size),      __libc_realloc(nullptr, size)};
      void* block = nullptr;
      ASSERT_EQ(__posix_memalign(&block, 128, size), 0);
      ASSERT_TRUE(IsAligned(block, 128));
      blocks.push_back(block);
      ASSERT_TRUE(IsAligned(blocks[2], 64));
      ASSERT_TRUE(IsAligned(blocks[3], 4096));
      ASSERT_TRUE(IsAligned(blocks[4], 4096));
      for (void*& any : blocks) {
        ASSERT_NE(any, nullptr);
        ASSERT_GE(malloc_usable_size(any), size);
        any = __libc_realloc(any, size + 1);
        std::memset(any, 1, size + 1);
        free(any);
      }
    }
  }
  ExpectFreed(before);
}

TEST(LibcNamesTest, FailAsTheOthersDo) {
  volatile size_t most = SIZE_MAX;
  errno = 0;
  EXPECT_EQ(__libc_malloc(most), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(__libc_calloc(most, 2), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(__libc_pvalloc(most), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(__libc_memalign(most, 8), nullptr);
  EXPECT_EQ(errno, EINVAL);
  // The largest power of two is one: there is only no memory for it.
  errno = 0;
  EXPECT_EQ(__libc_memalign(most / 2 + 1, 8), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = EXDEV;
  void* untouched = &untouched;
  EXPECT_EQ(__posix_memalign(&untouched, 3, 8), EINVAL);
  EXPECT_EQ(errno, EXDEV);
  EXPECT_EQ(__posix_memalign(&untouched, 64, most), ENOMEM);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(untouched, &untouched);
}

TEST(NallocxTest, IsWhatABlockWillHave) {
  for (const size_t size : kSizes) {
    void* block = malloc(size);
    EXPECT_EQ(nallocx(size, 0), malloc_usable_size(block)) << size;
    free(block);
    for (int shift = 0; shift <= 20; ++shift) {
      block = aligned_alloc(size_t{1} << shift, size);
      EXPECT_EQ(nallocx(size, shift), malloc_usable_size(block))
          << size << " " << shift;
      // Zeroing, a cache, an arena: no matter.
      EXPECT_EQ(nallocx(size, shift | 0x40 | 0x300 | 0x500000),
                malloc_usable_size(block));
      free(block);
    }
  }
}

TEST(NallocxTest, IsZeroForWhatCannotBe) {
  for (const size_t size : {SIZE_MAX, SIZE_MAX / 2 + 1, size_t{PTRDIFF_MAX}}) {
    EXPECT_EQ(nallocx(size, 0), 0u);
    EXPECT_EQ(nallocx(size, 12), 0u);
  }
  EXPECT_EQ(nallocx(1, 63), 0u);
  EXPECT_EQ(nallocx(kMiB, 63), 0u);
}

TEST(MalloptTest, SaysWhatItUnderstands) {
  errno = EXDEV;
  for (const int parameter :
       {M_MXFAST, M_NLBLKS, M_GRAIN, M_KEEP, M_TRIM_THRESHOLD, M_TOP_PAD,
        M_MMAP_THRESHOLD, M_MMAP_MAX, M_CHECK_ACTION, M_ARENA_TEST,
        M_ARENA_MAX}) {
    for (const int value : {0, 1, 65536, INT_MAX}) {
      EXPECT_EQ(mallopt(parameter, value), 1) << parameter;
      EXPECT_EQ(__libc_mallopt(parameter, value), 1) << parameter;
    }
  }
  EXPECT_EQ(mallopt(M_PERTURB, 0), 1);
  EXPECT_EQ(mallopt(M_PERTURB, 0xa5), 0) << "nothing will be filled";
  for (const int parameter : {0, 5, 100, -9, -1000, INT_MIN, INT_MAX}) {
    EXPECT_EQ(mallopt(parameter, 1), 0) << parameter;
  }
  EXPECT_EQ(errno, EXDEV);
}

void ExpectConsistent(const struct mallinfo2& info) {
  EXPECT_EQ(info.arena, info.uordblks + info.fordblks);
  EXPECT_LE(info.keepcost, info.fordblks);
  EXPECT_EQ(info.hblks, 0u);
  EXPECT_EQ(info.hblkhd, 0u);
}

TEST(MallinfoTest, CountsWhatIsInUse) {
  constexpr size_t kSize = 3000;
  constexpr size_t kCount = 8000;
  hak_release_memory(0);
  const struct mallinfo2 before = mallinfo2();
  ExpectConsistent(before);
  EXPECT_GT(before.uordblks, 0u);
  std::vector<void*> blocks(kCount);
  for (void*& block : blocks) block = malloc(kSize);
  const struct mallinfo2 full = mallinfo2();
  ExpectConsistent(full);
  EXPECT_GE(full.uordblks, before.uordblks + kCount * kSize);
  EXPECT_LE(full.uordblks, before.uordblks + kCount * kSize * 3 / 2);
  // Every other block: slabs stay, their blocks are free.
  for (size_t i = 0; i < kCount; i += 2) free(blocks[i]);
  hak_release_memory(0);
  const struct mallinfo2 half = mallinfo2();
  ExpectConsistent(half);
  EXPECT_LE(half.uordblks + kCount * kSize * 2 / 5, full.uordblks);
  EXPECT_GE(half.fordblks, kCount * kSize * 2 / 5);
  for (size_t i = 1; i < kCount; i += 2) free(blocks[i]);
  hak_release_memory(0);
  const struct mallinfo2 after = mallinfo2();
  ExpectConsistent(after);
  EXPECT_LE(after.uordblks, before.uordblks + kMiB);
  EXPECT_EQ(after.keepcost, 0u) << "all of it went to the system";
}

TEST(MallinfoTest, TheNarrowFormStopsAtTheLargestInt) {
  const struct mallinfo small = __libc_mallinfo();
  EXPECT_EQ(static_cast<size_t>(small.uordblks), mallinfo2().uordblks);
  void* const huge = malloc(size_t{3} << 30);
  ASSERT_NE(huge, nullptr);
  const struct mallinfo info = __libc_mallinfo();
  EXPECT_EQ(info.uordblks, INT_MAX);
  EXPECT_EQ(info.arena, INT_MAX);
  EXPECT_GE(mallinfo2().uordblks, size_t{3} << 30);
  free(huge);
}

// Fills the caches, the depots and the free runs, in less than may stay free.
void LeaveFreeMemoryBehind() {
  std::vector<void*> blocks;
  for (const size_t size : {size_t{100}, size_t{3000}, size_t{50000}}) {
    for (size_t i = 0; i < 8 * kMiB / size; ++i) {
      blocks.push_back(malloc(size));
      std::memset(blocks.back(), 1, size);
    }
  }
  for (void* const block : blocks) free(block);
  void* const large = malloc(6 * kMiB);
  std::memset(large, 1, 6 * kMiB);
  free(large);
}

TEST(TrimTest, GivesBackAllThatIsFreeAndSaysSo) {
  malloc_trim(0);
  const hak_stats before = Stats();
  LeaveFreeMemoryBehind();
  EXPECT_GT(Stats().free_dirty_bytes, 5 * kMiB);
  errno = EXDEV;
  const int first = malloc_trim(0);
  const int second = malloc_trim(0);
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 0) << "nothing was left to return";
  EXPECT_EQ(errno, EXDEV);
  const hak_stats after = Stats();
  EXPECT_EQ(after.free_dirty_bytes, 0u);
  EXPECT_LE(after.slab_bytes, before.slab_bytes + kMiB);
  EXPECT_LE(after.cache_bytes, before.cache_bytes + kMiB);
}

TEST(TrimTest, KeepsAsMuchAsItIsTold) {
  malloc_trim(0);
  LeaveFreeMemoryBehind();
  EXPECT_EQ(malloc_trim(4 * kMiB), 1);
  const size_t kept = Stats().free_dirty_bytes;
  EXPECT_LE(kept, 4 * kMiB);
  EXPECT_GE(kept, 3 * kMiB);
  EXPECT_EQ(malloc_trim(4 * kMiB), 0);
  EXPECT_EQ(malloc_trim(SIZE_MAX), 0);
  EXPECT_EQ(hak_release_memory(0), kept);
}

TEST(MallocInfoTest, WritesADocument) {
  char* text = nullptr;
  size_t size = 0;
  FILE* const stream = open_memstream(&text, &size);
  ASSERT_NE(stream, nullptr);
  EXPECT_EQ(malloc_info(0, stream), 0);
  std::fclose(stream);
  const std::string document(text, size);
  free(text);
  EXPECT_EQ(document.find("<malloc version=\"hakmem-1\">\n"), 0u);
  EXPECT_NE(document.find(std::string("stage=\"") + hak_config() + "\""),
            std::string::npos);
  EXPECT_EQ(document.substr(document.size() - 10), "</malloc>\n");
}

TEST(MallocInfoTest, OptionsAreRefused) {
  char* text = nullptr;
  size_t size = 0;
  FILE* const stream = open_memstream(&text, &size);
  for (const int options : {1, -1, INT_MAX}) {
    errno = 0;
    EXPECT_EQ(malloc_info(options, stream), -1);
    EXPECT_EQ(errno, EINVAL);
  }
  std::fclose(stream);
  EXPECT_EQ(size, 0u);
  free(text);
}

TEST(MallocInfoTest, AStreamThatTakesNothingIsAnError) {
  FILE* const full = std::fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  setvbuf(full, nullptr, _IONBF, 0);
  errno = 0;
  EXPECT_EQ(malloc_info(0, full), -1);
  EXPECT_EQ(errno, ENOSPC);
  std::fclose(full);
}

TEST(MallocStatsTest, WritesLinesWithoutAllocating) {
  void* const block = malloc(5 * kMiB);
  testing::internal::CaptureStderr();
  const struct mallinfo2 before = mallinfo2();
  const hak_stats counters = Stats();
  malloc_stats();
  const struct mallinfo2 after = mallinfo2();
  EXPECT_EQ(Stats().pools[0].alloc_misses, counters.pools[0].alloc_misses);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(before.uordblks, after.uordblks);
  EXPECT_THAT(text,
              testing::MatchesRegex("hakmem: mapped bytes = [0-9]+\n"
                                    "hakmem: in use bytes = [0-9]+\n"
                                    "hakmem: thread cache bytes = [0-9]+\n"
                                    "hakmem: depot bytes = [0-9]+\n"
                                    "hakmem: slab free bytes = [0-9]+\n"
                                    "hakmem: slab tail bytes = [0-9]+\n"
                                    "hakmem: free run bytes = [0-9]+\n"
                                    "hakmem: table bytes = [0-9]+\n"
                                    "hakmem: resident bytes = [0-9]+\n"));
  EXPECT_NE(text.find("in use bytes = " + std::to_string(after.uordblks)),
            std::string::npos);
  free(block);
}

}  // namespace
