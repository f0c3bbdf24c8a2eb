// Free pages of slabs with HAKMEM_PURGE=later.

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/core.h"
#include "hakmem/core/tiny_test_pool.h"

namespace hakmem {
namespace {

constexpr LockedPool& pool = locked_pool;

// Before anything reads the options: longer than any test takes.
constexpr int64_t kDecay = 3600000;
[[maybe_unused]] const int options = setenv("HAKMEM_DECAY_MS", "3600000", 1) |
                                     setenv("HAKMEM_PURGE", "later", 1);

TEST(PoolLaterTest, PagesGoAfterTenPeriodsInWhichNobodyWantedThem) {
  constexpr SizeClass kLast = kLastTinyClass;
  pool.NoteTidied();
  std::vector<void*> blocks((32 << 20) / ClassSize(kLast));
  for (void*& block : blocks) block = pool.Allocate(kLast);
  ASSERT_EQ(arena.options().purge, kPurgeLater);
  const auto is_last_of_its_slab = [](size_t i) {
    return i % SlabBlocks(kLast) == SlabBlocks(kLast) - 1;
  };
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!is_last_of_its_slab(i)) pool.Free(kLast, blocks[i]);
  }
  const size_t dirty = LockedPool::dirty_bytes();
  EXPECT_GT(dirty, size_t{16} << 20);
  const int64_t now = os::CoarseMilliseconds() + 20 * kDecay;
  EXPECT_EQ(pool.Decay(now), 0u) << "nobody knows since when they were free";
  EXPECT_EQ(pool.Decay(now + kDecay), 0u);
  EXPECT_EQ(pool.Decay(now + 10 * kDecay - 1), 0u);
  EXPECT_EQ(pool.Decay(now + 10 * kDecay), dirty);
  EXPECT_EQ(LockedPool::dirty_bytes(), 0u);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (is_last_of_its_slab(i)) pool.Free(kLast, blocks[i]);
  }
}

}  // namespace
}  // namespace hakmem
