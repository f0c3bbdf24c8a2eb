// Slabs that one site and size has for itself.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/core.h"
#include "hakmem/core/tiny_test_pool.h"

namespace hakmem {
namespace {

constexpr LockedPool& pool = locked_pool;

// Before anything reads the options: longer than any test takes.
[[maybe_unused]] const int options = setenv("HAKMEM_DECAY_MS", "3600000", 1);
constexpr SizeClass kTwin = TwinOf(7);

struct TestOwner {
  TestOwner(uint32_t site, SizeClass twin) : key(SiteCache::KeyOf(site, twin)) {
    pool.MakeOwner(twin, key, site, number);
  }
  std::vector<void*> Allocate(uint32_t count) const {
    std::vector<void*> blocks(count);
    EXPECT_EQ(pool.AllocateOwned(number, blocks.data(), count), count);
    return blocks;
  }
  const uint32_t key;
  std::atomic<uint32_t> number{0};
};

void Free(SizeClass twin, const std::vector<void*>& blocks) {
  pool.FreeBatch(twin, blocks.data(), static_cast<uint32_t>(blocks.size()));
}

TEST(OwnerTest, NoTwoPairsHaveOneKey) {
  std::vector<uint32_t> keys = {0};
  for (uint32_t site = 0; site <= kMaxSites; ++site) {
    for (SizeClass c = 2; c <= kLastTinyClass; ++c) {
      keys.push_back(SiteCache::KeyOf(site, TwinOf(c)));
    }
  }
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
  // What is no site's id in all of its bits leads to the same slot.
  EXPECT_EQ(SiteCache::KeyOfId((uintptr_t{1} << 40) + 77 * sizeof(ObservedSite),
                               kTwin * sizeof(SiteSlot)) %
                (1 << 20),
            SiteCache::KeyOf(77, kTwin) % (1 << 20));
}

TEST(OwnerTest, IsMadeOnce) {
  TestOwner owner(1, kTwin);
  const uint32_t number = owner.number;
  ASSERT_NE(number, 0u);
  pool.MakeOwner(kTwin, owner.key, 1, owner.number);
  EXPECT_EQ(owner.number, number);
  const TestOwner another(2, kTwin);
  EXPECT_NE(another.number, number);
}

TEST(OwnerTest, BlocksAreInSlabsOfTheirOwn) {
  const TestOwner a(1, kTwin);
  const TestOwner b(2, kTwin);
  const TestOwner c(1, TwinOf(8));
  const size_t before = pool.GetUsage().slab_bytes;
  std::vector<void*> of_a, of_b, of_c, of_all;
  const auto add = [](std::vector<void*>& to, std::vector<void*> blocks) {
    to.insert(to.end(), blocks.begin(), blocks.end());
  };
  for (uint32_t count = 1; count < 200; count += 7) {
    add(of_a, a.Allocate(count));
    add(of_b, b.Allocate(count));
    add(of_c, c.Allocate(count));
    std::vector<void*> blocks(count);
    ASSERT_EQ(pool.AllocateBatch(kTwin, blocks.data(), count), count);
    add(of_all, blocks);
    // What comes back goes to where it came from, and is reused there.
    Free(kTwin, {of_a.back(), of_b.back(), of_all.back()});
    of_a.pop_back();
    of_b.pop_back();
    of_all.pop_back();
  }
  for (void* const block : of_a) ASSERT_EQ(arena.OwnerOf(block), a.key);
  for (void* const block : of_b) ASSERT_EQ(arena.OwnerOf(block), b.key);
  for (void* const block : of_c) ASSERT_EQ(arena.OwnerOf(block), c.key);
  for (void* const block : of_all) ASSERT_EQ(arena.OwnerOf(block), 0u);
  std::vector<void*> all = of_a;
  add(all, of_b);
  add(all, of_all);
  const size_t taken =
      (all.size()) * ClassSize(kTwin) + of_c.size() * ClassSize(TwinOf(8));
  EXPECT_EQ(pool.GetUsage().taken_bytes, taken);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
  Free(TwinOf(8), of_c);
  Free(kTwin, all);
  for (void* const block : of_a) ASSERT_EQ(arena.OwnerOf(block), 0u);
  // An owner keeps no empty slab, the class one.
  EXPECT_EQ(pool.GetUsage().slab_bytes, before + kGranuleSize);
  EXPECT_EQ(pool.GetUsage().taken_bytes, 0u);
  EXPECT_EQ(pool.ReleaseEmptySlabs(), kGranuleSize);
}

TEST(OwnerTest, FreePagesOfItsSlabsArePurged) {
  const TestOwner owner(3, kTwin);
  const std::vector<void*> blocks = owner.Allocate(3 * SlabBlocks(kTwin));
  // Of each slab the last block stays, and one page with it.
  std::vector<void*> kept, freed;
  for (void* const block : blocks) {
    const auto offset =
        static_cast<size_t>(static_cast<char*>(block) - arena.AddressOf(0)) %
        kGranuleSize;
    const bool is_last = offset / ClassSize(kTwin) == SlabBlocks(kTwin) - 1;
    (is_last ? kept : freed).push_back(block);
  }
  ASSERT_EQ(kept.size(), 3u);
  Free(kTwin, freed);
  // The active slab's pages are looked at by Purge() alone.
  pool.Purge();
  for (void* const block : kept) {
    char* const start = arena.AddressOf(static_cast<uint32_t>(
        (static_cast<char*>(block) - arena.AddressOf(0)) >> kGranuleShift));
    EXPECT_LE(os::ResidentBytes(start, kGranuleSize), 2 * os::kPageSize);
  }
  Free(kTwin, kept);
}

TEST(OwnerTest, ABinOfItsOwnIsInTheClassMap) {
  const TestOwner owner(8, kTwin);
  const TestOwner other(9, kTwin);
  const auto values = [](const std::vector<void*>& blocks) {
    std::set<uint32_t> seen;
    for (void* const block : blocks) seen.insert(arena.view().ClassOf(block));
    return seen;
  };
  const std::vector<void*> before = owner.Allocate(2 * SlabBlocks(kTwin));
  const std::vector<void*> of_other = other.Allocate(10);
  EXPECT_EQ(values(before), std::set<uint32_t>{MapValueOf(kTwin)});
  EXPECT_EQ(LockedPool::OwnBinOf(owner.number), 0u);
  pool.GiveOwnBin(owner.number);
  const uint32_t bin = LockedPool::OwnBinOf(owner.number);
  ASSERT_GE(bin, kFirstOwnBin);
  EXPECT_EQ(bin, kFirstOwnBin + arena.own_bins() - 1);
  // It is made once.
  pool.GiveOwnBin(owner.number);
  EXPECT_EQ(LockedPool::OwnBinOf(owner.number), bin);
  // What slabs it has are found by it, and what it gets.
  const std::vector<void*> after = owner.Allocate(2 * SlabBlocks(kTwin));
  EXPECT_EQ(values(before), std::set<uint32_t>{bin});
  EXPECT_EQ(values(after), std::set<uint32_t>{bin});
  EXPECT_EQ(values(of_other), std::set<uint32_t>{MapValueOf(kTwin)});
  EXPECT_EQ(arena.ClassOf(before[0]), kTwin);
  EXPECT_EQ(arena.OwnerOf(before[0]), owner.key);
  Free(kTwin, before);
  Free(kTwin, after);
  Free(kTwin, of_other);
  EXPECT_EQ(values(after), std::set<uint32_t>{kNoClass});
  EXPECT_EQ(pool.GetUsage().taken_bytes, 0u);
}

TEST(OwnerTest, BinsRunOut) {
  std::set<uint32_t> bins;
  uint32_t without = 0;
  for (uint32_t site = 100; site < 100 + kMostOwnBins + 5; ++site) {
    const TestOwner owner(site, kTwin);
    pool.GiveOwnBin(owner.number);
    const uint32_t bin = LockedPool::OwnBinOf(owner.number);
    const std::vector<void*> blocks = owner.Allocate(1);
    if (bin == 0) {
      ++without;
      EXPECT_EQ(arena.view().ClassOf(blocks[0]), MapValueOf(kTwin));
    } else {
      EXPECT_TRUE(bins.insert(bin).second);
      EXPECT_LT(bin, kNumMapValues);
    }
    EXPECT_EQ(arena.ClassOf(blocks[0]), kTwin);
    Free(kTwin, blocks);
  }
  EXPECT_EQ(arena.own_bins(), kMostOwnBins);
  EXPECT_GE(without, 5u);
}

std::vector<Tag> TagsOf(SizeClass twin, const std::vector<void*>& blocks) {
  std::vector<Tag> tags;
  for (void* const block : blocks) {
    tags.push_back(Slab::TagOfKnown(block, twin).load());
  }
  return tags;
}

// Free or not: so nobody has to write one, and it takes four bytes a slab.
TEST(OwnerTest, AllOfTheirBlocksHaveOneTag) {
  ASSERT_TRUE(arena.EnsureReady());
  for (const SizeClass twin : {kFirstTwin + 1, kTwin, TwinOf(kLastTinyClass)}) {
    EXPECT_LT(Slab::MetadataBytes(twin, true), Slab::MetadataBytes(twin));
    const TestOwner owner(12, twin);
    const size_t metadata = arena.metadata_bytes();
    std::vector<void*> blocks = owner.Allocate(SlabBlocks(twin) + 1);
    EXPECT_EQ(TagsOf(twin, blocks), std::vector<Tag>(blocks.size(), 12));
    EXPECT_EQ(arena.metadata_bytes() - metadata,
              2 * Slab::MetadataBytes(twin, true));
    // One stays, and with it its slab.
    const std::vector<void*> most(blocks.begin() + 1, blocks.end());
    Free(twin, most);
    blocks.resize(1);
    EXPECT_EQ(TagsOf(twin, blocks), std::vector<Tag>(1, 12));
    Free(twin, blocks);
    EXPECT_EQ(arena.metadata_bytes(), metadata);
  }
}

// All that wait in the owner's depot, which are not cached any more then.
std::vector<void*> LoadAll(CachedPool& cached, const TestOwner& owner) {
  std::vector<void*> blocks;
  while (Magazine* const magazine = cached.LoadOwned(owner.number)) {
    blocks.insert(blocks.end(), magazine->slots,
                  magazine->slots + magazine->count);
    cache_budget.Return(magazine->count * ClassSize(kTwin));
    thread_cache.PutMagazine(magazine);
  }
  return blocks;
}

TEST(OwnerTest, ADepotHoldsItsBlocksAsTheyAre) {
  CachedPool cached(pool);
  const TestOwner owner(5, kTwin);
  const TestOwner other(6, kTwin);
  const int64_t budget = cache_budget.used();
  std::vector<void*> blocks = owner.Allocate(40);
  const auto store = [&](size_t from, uint32_t count) {
    return cached.StoreOwned(thread_cache, owner.number, kTwin,
                             blocks.data() + from, count);
  };
  // A few are not worth it.
  EXPECT_FALSE(store(0, 1));
  EXPECT_EQ(cached.DepotBytes(), 0u);
  ASSERT_TRUE(store(0, 10));
  ASSERT_TRUE(store(10, 30));
  EXPECT_EQ(cached.DepotBytes(), 40 * ClassSize(kTwin));
  EXPECT_EQ(LockedPool::DepotOf(owner.number).blocks(), 40u);
  EXPECT_EQ(LockedPool::DepotOf(other.number).blocks(), 0u);
  EXPECT_EQ(cache_budget.used() - budget,
            static_cast<int64_t>(40 * ClassSize(kTwin)));
  // They come as they went, with their tags, and each of them once.
  EXPECT_EQ(cached.LoadOwned(other.number), nullptr);
  std::vector<void*> back = LoadAll(cached, owner);
  ASSERT_EQ(back.size(), 40u);
  EXPECT_EQ(TagsOf(kTwin, back), std::vector<Tag>(40, 5));
  std::sort(back.begin(), back.end());
  std::sort(blocks.begin(), blocks.end());
  EXPECT_EQ(back, blocks);
  EXPECT_EQ(cached.DepotBytes(), 0u);
  EXPECT_EQ(cache_budget.used(), budget);
  Free(kTwin, blocks);
}

// Beyond the limit, as the pool's depots do, up to the same part of the peak.
TEST(OwnerTest, ADepotKeepsWhatThePeakWantsBack) {
  constexpr PoolGeometry kHalf = [] {
    PoolGeometry geometry = kGeometry;
    geometry.peak_divisor = 2;
    return geometry;
  }();
  static constinit LockedPool pool_of_half(kHalf);
  CachedPool cached(pool_of_half);
  const TestOwner owner(9, kTwin);
  const std::vector<void*> blocks = owner.Allocate(40);
  const auto store = [&](size_t from) {
    return cached.StoreOwned(thread_cache, owner.number, kTwin,
                             blocks.data() + from, 20);
  };
  const auto full = static_cast<size_t>(cache_budget.limit());
  ASSERT_TRUE(cache_budget.TakeForDepot(full));
  constexpr int64_t kPeak = 64 << 20;
  arena.regretted() = size_t{kPeak};
  arena.demand().Add(0, kPeak);
  EXPECT_FALSE(store(0)) << "at the peak";
  arena.demand().Add(0, -kPeak / 4);
  EXPECT_FALSE(store(0)) << "above half of it";
  arena.demand().Add(0, -kPeak / 2);
  EXPECT_TRUE(store(0));
  arena.regretted() = 0;
  EXPECT_FALSE(store(20)) << "nothing was wanted back";
  arena.demand().Add(0, -kPeak / 4);
  cache_budget.Return(full);
  Free(kTwin, {blocks.begin() + 20, blocks.end()});
  EXPECT_EQ(cached.DrainDepots(), 0u) << "the owner is of another pool";
  const std::vector<void*> back = LoadAll(cached, owner);
  ASSERT_EQ(back.size(), 20u);
  Free(kTwin, back);
}

constexpr PoolGeometry WithShare(size_t share) {
  PoolGeometry geometry = kGeometry;
  geometry.depot_share = share;
  return geometry;
}

TEST(OwnerTest, DepotsHoldAsMuchOfWhatIsLiveAsTheirPoolSays) {
  static constinit LockedPool pool_of_less(WithShare(16));
  static constinit LockedPool pool_of_more(WithShare(8));
  CachedPool less(pool_of_less);
  CachedPool more(pool_of_more);
  const TestOwner owner(12, kTwin);
  const std::vector<void*> blocks = owner.Allocate(20);
  for (int i = 0; i < 4; ++i) cache_budget.AddSharer();
  void* const some = AllocateLarge(16 << 20, 16, nullptr);
  const auto full =
      static_cast<size_t>(cache_budget.limit() - cache_budget.used());
  ASSERT_TRUE(cache_budget.TakeForDepot(full));
  EXPECT_FALSE(
      less.StoreOwned(thread_cache, owner.number, kTwin, blocks.data(), 20));
  EXPECT_TRUE(
      more.StoreOwned(thread_cache, owner.number, kTwin, blocks.data(), 20));
  cache_budget.Return(full);
  FreeLarge(some);
  for (int i = 0; i < 4; ++i) cache_budget.RemoveSharer();
  const std::vector<void*> back = LoadAll(more, owner);
  ASSERT_EQ(back.size(), 20u);
  Free(kTwin, back);
}

// A magazine of free blocks that counts as cached, as from a depot.
Magazine* Magazined(const std::vector<void*>& blocks) {
  const auto count = static_cast<uint16_t>(blocks.size());
  Magazine* const magazine = thread_cache.GetMagazine(MagazineFamilyFor(count));
  std::copy(blocks.begin(), blocks.end(), magazine->slots);
  magazine->count = count;
  cache_budget.Force(count * ClassSize(kTwin));
  return magazine;
}

TEST(OwnerTest, ASlotTakesAMagazineAsAWhole) {
  constexpr auto kGiveBack = [](SizeClass twin, void* const* blocks,
                                uint32_t count) {
    pool.FreeBatch(twin, blocks, count);
  };
  const TestOwner owner(11, kTwin);
  uint32_t site = site_table.Find(SiteKind::kNumber, 11);
  SiteCache& sites = thread_cache.site_cache();
  SiteSlot* const slot = sites.Load(&site, kTwin, true, kGiveBack);
  ASSERT_NE(slot, nullptr);
  const int64_t budget = cache_budget.used();
  const auto exchange = [&](uint32_t count) {
    const std::vector<void*> blocks = owner.Allocate(count);
    Magazine* const magazine = Magazined(blocks);
    Magazine* const empty = slot->Exchange(magazine);
    EXPECT_EQ(std::vector<void*>(slot->blocks, slot->top), blocks);
    EXPECT_EQ(slot->given, static_cast<int32_t>(count));
    // As if the program had them.
    Free(kTwin, blocks);
    slot->top = slot->blocks;
    slot->given = 0;
    return std::pair(magazine, empty);
  };
  const auto expect_room = [&](uint32_t room) {
    EXPECT_EQ(slot->capacity(), room);
    EXPECT_EQ(cache_budget.used() - budget,
              static_cast<int64_t>(room / 2 * ClassSize(kTwin)));
  };
  // One without room gets the room that they need.
  const auto [first, nothing] = exchange(10);
  EXPECT_EQ(nothing, nullptr);
  expect_room(10);
  // One with less gets more, and what it had is over.
  const auto [second, replaced] = exchange(30);
  EXPECT_EQ(replaced, first);
  expect_room(30);
  // One that has more keeps it, where the magazine has that room too...
  const auto [third, second_again] = exchange(16);
  EXPECT_EQ(second_again, second);
  expect_room(30);
  // ... and where it has not.
  const auto [small, itself] = exchange(6);
  EXPECT_EQ(itself, small);
  expect_room(30);
  for (Magazine* const empty : {replaced, second_again, itself}) {
    thread_cache.PutMagazine(empty);
  }
  sites.Retire();
  EXPECT_EQ(cache_budget.used(), budget);
}

TEST(OwnerTest, ADrainedDepotsBlocksAreFree) {
  CachedPool cached(pool);
  const TestOwner owner(7, kTwin);
  const int64_t budget = cache_budget.used();
  const std::vector<void*> blocks = owner.Allocate(60);
  ASSERT_TRUE(
      cached.StoreOwned(thread_cache, owner.number, kTwin, blocks.data(), 40));
  EXPECT_EQ(cached.DrainDepots(), 40u);
  EXPECT_EQ(cached.DrainDepots(), 0u);
  EXPECT_EQ(cached.DepotBytes(), 0u);
  EXPECT_EQ(cache_budget.used(), budget);
  EXPECT_EQ(pool.GetUsage().taken_bytes, 20 * ClassSize(kTwin));
  const std::vector<void*> rest(blocks.begin() + 40, blocks.end());
  Free(kTwin, rest);
  EXPECT_EQ(pool.GetUsage().taken_bytes, 0u);
}

TEST(OwnerTest, ThreadsShareIt) {
  const TestOwner owner(4, kTwin);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&owner] {
      for (uint32_t round = 0; round < 300; ++round) {
        const std::vector<void*> blocks = owner.Allocate(1 + round % 60);
        for (void* const block : blocks) {
          ASSERT_EQ(arena.OwnerOf(block), owner.key);
          *static_cast<void**>(block) = block;
        }
        for (void* const block : blocks) {
          ASSERT_EQ(*static_cast<void**>(block), block);
        }
        Free(kTwin, blocks);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.GetUsage().taken_bytes, 0u);
}

}  // namespace
}  // namespace hakmem
