// Free pages of slabs with HAKMEM_PURGE=later.

#include <cstdint>
#include <cstdlib>
#include <cstring>
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
                                     setenv("HAKMEM_PURGE", "later", 1) |
                                     setenv("HAKMEM_MINCORE", "1", 1) |
                                     setenv("HAKMEM_HUGE_PAGES", "never", 1);

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

// How many bytes of a new slab are there though nothing has been written to it
// yet: of the second half of `count` that are made one after the other, where
// all of each is written to then, or nothing.
size_t Populated(SizeClass size_class, bool writes, int64_t demand = 32 << 20,
                 uint32_t count = 128) {
  arena.Purge(0);
  arena.demand().Add(0, demand);
  std::vector<Slab*> slabs;
  size_t resident = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Slab* const slab = Slab::Create(size_class);
    char* const begin = arena.AddressOf(slab->start);
    const size_t bytes = slab->granules * kGranuleSize;
    if (i >= count / 2) resident += os::ResidentBytes(begin, bytes);
    if (writes) std::memset(begin, 1, bytes);
    slabs.push_back(slab);
  }
  for (Slab* const slab : slabs) Slab::Destroy(slab);
  arena.demand().Add(0, -demand);
  return resident / (count / 2);
}

TEST(PoolLaterTest, SlabsAreThereAtOnceWhereAllOfThemIsUsed) {
  for (const SizeClass c : {kLastTinyClass, kLastL2Class}) {
    EXPECT_EQ(Populated(c, false), 0u);
    const size_t used = SlabBlocks(c) * ClassSize(c);
    ASSERT_EQ(used % os::kPageSize, 0u);
    EXPECT_EQ(Populated(c, true), used / 8 * 7);
    EXPECT_EQ(Populated(c, true, 32 << 20, 12), 0u) << "few, the others went";
    EXPECT_EQ(Populated(c, false), 0u);
  }
  EXPECT_EQ(Populated(kLastL2Class + 1, true), 0u);
  EXPECT_EQ(Populated(kLastL2Class, true, 16 << 20), 0u);
  arena.SetPressed(true);
  EXPECT_EQ(Populated(kLastL2Class, true), 0u) << "near a limit";
  arena.SetPressed(false);
}

}  // namespace
}  // namespace hakmem
