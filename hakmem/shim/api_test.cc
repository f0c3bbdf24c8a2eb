// The native interface of hakmem.h, function by function.

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kSizes[] = {0,    1,     8,     9,    100,      1024,    1025,
                             5000, 32768, 32769, kMiB, kMiB + 1, 7 * kMiB};

bool IsAligned(const void* block, size_t alignment) {
  return reinterpret_cast<uintptr_t>(block) % alignment == 0;
}

hak_stats Stats() {
  hak_stats stats;
  EXPECT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
  return stats;
}

TEST(ApiTest, ConfigNamesTheStage) {
  // The test's name does too: api_p0_test.
  const std::string_view program = program_invocation_short_name;
  EXPECT_NE(program.find(hak_config()), std::string_view::npos)
      << program << " " << hak_config();
}

TEST(ApiTest, PoolsSayWhetherTheyAreCached) {
  const std::string_view stage = hak_config();
  const hak_stats stats = Stats();
  EXPECT_EQ(stats.pools[HAK_POOL_TINY].cached, stage.starts_with("tls"));
  EXPECT_EQ(stats.pools[HAK_POOL_L2].cached,
            stage == "tls_l2" || stage == "tls_full");
  EXPECT_EQ(stats.pools[HAK_POOL_L25].cached, stage == "tls_full");
}

TEST(ApiTest, BlocksGoBackThroughAnyFunctionThatFrees) {
  for (const size_t size : kSizes) {
    for (int way = 0; way < 5; ++way) {
      void* const block =
          way % 2 == 0 ? hak_alloc(size) : hak_alloc_at(size, 7);
      ASSERT_NE(block, nullptr);
      ASSERT_TRUE(IsAligned(block, size <= 8 ? 8 : 16));
      ASSERT_GE(hak_usable_size(block), size);
      std::memset(block, 0x3c, hak_usable_size(block));
      switch (way) {
        case 0:
          hak_free(block);
          break;
        case 1:
          hak_free_at(block, 7);
          break;
        case 2:
          free(block);
          break;
        case 3:
          ::operator delete(block);
          break;
        default:
          EXPECT_EQ(hak_realloc(block, 0), nullptr);
          break;
      }
    }
    hak_free(malloc(size));
    hak_free(::operator new(size));
  }
  hak_free(nullptr);
  hak_free_at(nullptr, 3);
  EXPECT_EQ(hak_usable_size(nullptr), 0u);
}

TEST(ApiTest, FailuresSetErrno) {
  errno = 0;
  EXPECT_EQ(hak_alloc(SIZE_MAX), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(hak_alloc_at(SIZE_MAX - 100, 1), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(hak_calloc(SIZE_MAX / 2, 3), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(hak_aligned_alloc(64, SIZE_MAX - 100), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  for (const size_t alignment : {0, 3, 24, 4097}) {
    errno = 0;
    EXPECT_EQ(hak_aligned_alloc(alignment, 10), nullptr);
    EXPECT_EQ(errno, EINVAL) << alignment;
  }
}

TEST(ApiTest, CallocClearsAndReallocKeeps) {
  for (const size_t size : kSizes) {
    void* const used = hak_alloc(size);
    std::memset(used, 0xee, size);
    hak_free(used);
    auto* bytes = static_cast<unsigned char*>(hak_calloc(1, size));
    for (size_t i = 0; i < size; ++i) ASSERT_EQ(bytes[i], 0);
    std::memset(bytes, 0x77, size);
    bytes = static_cast<unsigned char*>(hak_realloc(bytes, 2 * size + 1));
    for (size_t i = 0; i < size; ++i) ASSERT_EQ(bytes[i], 0x77);
    errno = 0;
    EXPECT_EQ(hak_realloc(bytes, SIZE_MAX), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    for (size_t i = 0; i < size; ++i) ASSERT_EQ(bytes[i], 0x77);
    hak_free(bytes);
  }
  void* const fresh = hak_realloc(nullptr, 100);
  ASSERT_NE(fresh, nullptr);
  hak_free(fresh);
}

TEST(ApiTest, AlignmentIsKeptForEveryPowerOfTwo) {
  for (size_t alignment = 1; alignment <= 64 * kMiB; alignment *= 2) {
    for (const size_t size : kSizes) {
      void* const block = hak_aligned_alloc(alignment, size);
      ASSERT_TRUE(block != nullptr && IsAligned(block, alignment))
          << alignment << " " << size;
      ASSERT_GE(hak_usable_size(block), size);
      hak_free(block);
    }
  }
}

TEST(StatsTest, NullIsRefused) {
  EXPECT_EQ(hak_stats_get(nullptr, sizeof(hak_stats)), EINVAL);
  EXPECT_EQ(hak_stats_get(nullptr, 0), EINVAL);
}

TEST(StatsTest, AnOlderCallerGetsOnlyWhatItKnows) {
  std::vector<unsigned char> bytes(sizeof(hak_stats), 0xab);
  const size_t known = offsetof(hak_stats, committed_bytes);
  EXPECT_EQ(hak_stats_get(reinterpret_cast<hak_stats*>(bytes.data()), known),
            0);
  for (size_t i = known; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], 0xab) << i;
  hak_stats stats;
  std::memcpy(&stats, bytes.data(), sizeof(stats));
  EXPECT_EQ(stats.reserved_bytes, Stats().reserved_bytes);
  // And one that knows nothing gets nothing.
  EXPECT_EQ(hak_stats_get(reinterpret_cast<hak_stats*>(&bytes[known]), 0), 0);
  EXPECT_EQ(bytes[known], 0xab);
}

TEST(StatsTest, ANewerCallerGetsZerosForWhatThereIsNot) {
  std::vector<unsigned char> bytes(sizeof(hak_stats) + 100, 0xab);
  EXPECT_EQ(hak_stats_get(reinterpret_cast<hak_stats*>(bytes.data()),
                          sizeof(hak_stats) + 64),
            0);
  for (size_t i = 0; i < 100; ++i) {
    ASSERT_EQ(bytes[sizeof(hak_stats) + i], i < 64 ? 0 : 0xab) << i;
  }
}

TEST(StatsTest, FiguresFollowWhatTheProgramDoes) {
  // More than the caches may hold of it.
  std::vector<void*> small(400000);
  const hak_stats before = Stats();
  void* const large = hak_alloc(32 * kMiB);
  for (void*& block : small) block = hak_alloc(100);
  const hak_stats with = Stats();
  EXPECT_EQ(with.reserved_bytes, before.reserved_bytes);
  EXPECT_GE(with.large_bytes, before.large_bytes + 32 * kMiB);
  EXPECT_GE(with.slab_bytes, before.slab_bytes + 400000 * 100);
  EXPECT_GE(with.committed_bytes,
            with.slab_bytes + with.large_bytes + with.free_dirty_bytes);
  EXPECT_GT(with.metadata_bytes, before.metadata_bytes);
  for (void* const block : small) hak_free(block);
  std::memset(large, 1, 32 * kMiB);
  hak_free(large);
  const hak_stats after = Stats();
  EXPECT_EQ(after.large_bytes, before.large_bytes);
  EXPECT_LT(after.slab_bytes, with.slab_bytes);
  EXPECT_EQ(after.direct_bytes, 0u);
}

void ExpectAMissAPool() {
  const hak_stats before = Stats();
  void* const tiny = hak_alloc(700);
  void* const l2 = hak_alloc(15000);
  void* const l25 = hak_alloc(600000);
  const hak_stats after = Stats();
  for (int pool = 0; pool < HAK_POOLS; ++pool) {
    const uint64_t misses =
        after.pools[pool].alloc_misses - before.pools[pool].alloc_misses;
    EXPECT_EQ(misses, after.pools[pool].cached) << pool;
  }
  hak_free(tiny);
  hak_free(l2);
  hak_free(l25);
}

TEST(StatsTest, AThreadsFirstCallOfAClassIsAMissWhereThePoolIsCached) {
  std::thread(&ExpectAMissAPool).join();
}

}  // namespace
