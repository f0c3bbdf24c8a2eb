// The suite that every variant of every pool passes, on one thread.

#include "hakmem/core/pool_test.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace hakmem {
namespace {

using PoolTest = PoolSuite;
// What is left of a peak is spread over all slabs. Free pages among it go back
// at once but for the bound, and the survivors keep what they hold.
TEST_F(PoolTest, FreePagesBetweenSurvivorsGoBack) {
  std::mt19937 random(3);
  const SizeClass c = last_class() - 1;
  std::vector<void*> blocks;
  for (size_t bytes = 0; bytes < size_t{48} << 20; bytes += ClassSize(c)) {
    blocks.push_back(pool_.Allocate(c));
    ASSERT_NE(blocks.back(), nullptr);
    Fill(blocks.back(), blocks.size());
  }
  std::vector<void*> survivors;
  std::vector<uint64_t> owners;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (random() % 12 == 0) {
      survivors.push_back(blocks[i]);
      owners.push_back(i + 1);
    } else {
      pool_.Free(blocks[i]);
    }
  }
  thread_cache.FlushBins();
  pool_.DrainDepots();
  pool_.backend().ReleaseEmptySlabs();
  const Arena::Stats stats = arena.GetStats();
  EXPECT_LE(LockedPool::dirty_bytes(),
            stats.slab_bytes / 128 + arena.options().retain_bytes / 4);
  if (ClassSize(c) % os::kPageSize == 0) {
    const size_t free = stats.slab_bytes - survivors.size() * ClassSize(c);
    EXPECT_LE(pool_.backend().Purge(), free);
  } else {
    pool_.backend().Purge();
  }
  EXPECT_EQ(LockedPool::dirty_bytes(), 0u);
  for (size_t i = 0; i < survivors.size(); ++i) {
    ASSERT_TRUE(IsFilled(survivors[i], owners[i]));
  }
  // Their slabs serve again.
  for (void*& block : blocks) {
    block = pool_.Allocate(c);
    Fill(block, 7);
  }
  for (size_t i = 0; i < survivors.size(); ++i) {
    ASSERT_TRUE(IsFilled(survivors[i], owners[i]));
    pool_.Free(survivors[i]);
  }
  for (void* const block : blocks) pool_.Free(block);
}

using PoolDeathTest = PoolSuite;

TEST_F(PoolTest, BlocksAreAlignedApartAndKeepWhatIsWrittenToThem) {
  struct Block {
    SizeClass size_class;
    uint64_t owner;
  };
  constexpr size_t kMostBlocks = 3000;
  constexpr size_t kMostBytes = size_t{48} << 20;
  std::mt19937 random(1);
  std::map<char*, Block> live;
  size_t bytes = 0;
  uint64_t owner = 0;
  const int rounds = Rounds(60000);
  for (int step = 0; step < rounds; ++step) {
    // Waves: what is live grows and shrinks, so that slabs come and go.
    const bool grow = step / (rounds / 6) % 2 == 0;
    if (live.empty() || (random() % 8 < (grow ? 6u : 2u) &&
                         live.size() < kMostBlocks && bytes < kMostBytes)) {
      const SizeClass c = first_class() + random() % pool_.geometry().classes();
      auto* const block = static_cast<char*>(pool_.Allocate(c));
      ASSERT_NE(block, nullptr);
      ASSERT_EQ(arena.ClassOf(block), c);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(block) % AlignmentOf(c), 0u);
      const auto next = live.lower_bound(block);
      if (next != live.end()) {
        ASSERT_LE(block + ClassSize(c), next->first) << "blocks overlap";
      }
      if (next != live.begin()) {
        const auto& [before, info] = *std::prev(next);
        ASSERT_LE(before + ClassSize(info.size_class), block)
            << "blocks overlap";
      }
      Fill(block, ++owner);
      live.emplace(block, Block{c, owner});
      bytes += ClassSize(c);
    } else {
      // Any live block: the first from a random place between the ends.
      const auto spread =
          static_cast<size_t>(live.rbegin()->first - live.begin()->first) + 1;
      const auto victim = live.lower_bound(
          live.begin()->first + (uint64_t{random()} << 20 | random()) % spread);
      ASSERT_TRUE(IsFilled(victim->first, victim->second.owner));
      bytes -= ClassSize(victim->second.size_class);
      pool_.Free(victim->first);
      live.erase(victim);
    }
  }
  for (const auto& [block, info] : live) {
    ASSERT_TRUE(IsFilled(block, info.owner));
    pool_.Free(block);
  }
}

enum class Order { kSame, kReverse, kRandom };

class PoolOrderTest : public PoolSuite,
                      public testing::WithParamInterface<Order> {};

TEST_P(PoolOrderTest, EveryClassServesSeveralSlabsFull) {
  std::mt19937 random(2);
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    const uint32_t count = SlabBlocks(c) * 3 + 1;
    std::vector<void*> blocks;
    for (uint32_t i = 0; i < count; ++i) {
      blocks.push_back(pool_.Allocate(c));
      ASSERT_NE(blocks.back(), nullptr);
      Fill(blocks.back(), i + 1);
    }
    ASSERT_EQ(std::set<void*>(blocks.begin(), blocks.end()).size(), count);
    for (uint32_t i = 0; i < count; ++i) {
      ASSERT_TRUE(IsFilled(blocks[i], i + 1)) << "class " << c;
    }
    if (GetParam() == Order::kReverse) {
      std::reverse(blocks.begin(), blocks.end());
    } else if (GetParam() == Order::kRandom) {
      std::shuffle(blocks.begin(), blocks.end(), random);
    }
    for (void* const block : blocks) pool_.Free(block);
    ReleaseAll();
    ASSERT_EQ(arena.GetStats().slab_bytes, 0u) << "class " << c;
  }
}

INSTANTIATE_TEST_SUITE_P(Free, PoolOrderTest,
                         testing::Values(Order::kSame, Order::kReverse,
                                         Order::kRandom),
                         [](const testing::TestParamInfo<Order>& info) {
                           switch (info.param) {
                             case Order::kSame:
                               return "InOrder";
                             case Order::kReverse:
                               return "InReverse";
                             default:
                               return "AtRandom";
                           }
                         });

TEST_F(PoolTest, ABlockThatWasFreedIsTheNextToBeUsed) {
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    void* const other = pool_.Allocate(c);
    void* const block = pool_.Allocate(c);
    pool_.Free(block);
    void* const again = pool_.Allocate(c);
    EXPECT_EQ(again, block) << "class " << c;
    pool_.Free(again);
    pool_.Free(other);
  }
}

// As far as the classes have told of it, which they do in steps, and of what
// goes block by block when a slab comes or goes.
TEST_F(PoolTest, DemandIsWhatIsHandedOut) {
  LockedPool& backend = pool_.backend();
  const size_t before = arena.demand().bytes();
  size_t untold = 0;
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    untold += LockedPool::kShownStep + SlabBlocks(c) * ClassSize(c);
  }
  size_t bytes = 0;
  const auto expect_shown = [&] {
    EXPECT_NEAR(static_cast<double>(arena.demand().bytes()),
                static_cast<double>(before + bytes),
                static_cast<double>(untold));
  };
  std::vector<std::pair<SizeClass, void*>> blocks;
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    void* batch[3];
    ASSERT_EQ(backend.AllocateBatch(c, batch, 3), 3u);
    for (void* const block : batch) blocks.emplace_back(c, block);
    blocks.emplace_back(c, backend.Allocate(c));
    bytes += 4 * ClassSize(c);
    expect_shown();
  }
  // So much of one class that that is nothing to it.
  const SizeClass c = last_class();
  while (bytes < 10 * untold) {
    blocks.emplace_back(c, backend.Allocate(c));
    bytes += ClassSize(c);
  }
  expect_shown();
  for (const auto& [size_class, block] : blocks) {
    backend.FreeBatch(size_class, &block, 1);
    bytes -= ClassSize(size_class);
  }
  expect_shown();
  backend.ReleaseEmptySlabs();
}

// A thread that is in the slabs of one class keeps nobody from the others.
TEST_F(PoolTest, AClassDoesNotWaitForItsNeighbour) {
  LockedPool& backend = pool_.backend();
  for (SizeClass c = first_class(); c != last_class(); ++c) {
    Mutex& mine = backend.MutexOf(c);
    Mutex& neighbours = backend.MutexOf(c + 1);
    MutexLock lock(mine);
    const bool got = neighbours.TryLock();
    EXPECT_TRUE(got) << "class " << c;
    if (got) neighbours.Unlock();
  }
}

// Of those who find too many free pages one sends them off, and the others do
// not wait for it.
TEST_F(PoolTest, OneThreadPurgesAtATime) {
  LockedPool& backend = pool_.backend();
  SizeClass c = first_class() + pool_.geometry().classes() / 2;
  while (c > first_class() && SlabBlocks(c) < 4) --c;
  if (SlabBlocks(c) < 4) GTEST_SKIP() << "slabs have no room for free pages";
  std::vector<void*> blocks(8 * arena.options().retain_bytes / ClassSize(c));
  for (void*& block : blocks) block = backend.Allocate(c);
  Mutex* purging = nullptr;
  backend.ForEachMutex([&purging](Mutex& mu) {
    if (purging == nullptr) purging = &mu;
  });
  const auto is_last_of_its_slab = [c](size_t i) {
    return i % SlabBlocks(c) == SlabBlocks(c) - 1;
  };
  // Twice: what was there all the time since the first is to go at the second.
  int64_t now = os::CoarseMilliseconds();
  const auto decay = [&] {
    const int64_t long_enough = 10 * arena.decay_period();
    backend.Decay(now += long_enough);
    return backend.Decay(now += long_enough);
  };
  size_t dirty = 0;
  {
    MutexLock lock(*purging);
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (!is_last_of_its_slab(i)) backend.Free(c, blocks[i]);
    }
    dirty = LockedPool::dirty_bytes();
    EXPECT_GT(dirty, arena.options().retain_bytes);
    EXPECT_EQ(decay(), 0u);
    EXPECT_EQ(LockedPool::dirty_bytes(), dirty);
  }
  EXPECT_GT(decay(), dirty / 2);
  EXPECT_LT(LockedPool::dirty_bytes(), dirty / 2);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (is_last_of_its_slab(i)) backend.Free(c, blocks[i]);
  }
}

TEST_F(PoolTest, BatchesAreWholeAndOfTheirOwn) {
  LockedPool& backend = pool_.backend();
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    std::set<void*> all;
    std::vector<std::vector<void*>> batches;
    for (const uint32_t count : {1u, 2u, 13u, SlabBlocks(c), 510u}) {
      std::vector<void*> batch(std::min(count, 4 * SlabBlocks(c)));
      const auto size = static_cast<uint32_t>(batch.size());
      ASSERT_EQ(backend.AllocateBatch(c, batch.data(), size), size);
      for (void* const block : batch) {
        ASSERT_EQ(arena.ClassOf(block), c);
        ASSERT_TRUE(all.insert(block).second);
      }
      batches.push_back(batch);
    }
    for (const std::vector<void*>& batch : batches) {
      backend.FreeBatch(c, batch.data(), static_cast<uint32_t>(batch.size()));
    }
    backend.ReleaseEmptySlabs();
    ASSERT_EQ(arena.GetStats().slab_bytes, 0u) << "class " << c;
  }
}

// Takes all blocks of a new slab, by address. There is no other with a free
// one.
void TakeSlab(LockedPool& backend, SizeClass c, std::vector<void*>* slab) {
  for (uint32_t i = 0; i < SlabBlocks(c); ++i) {
    slab->push_back(backend.Allocate(c));
    ASSERT_EQ(arena.SpanOf(slab->back()), arena.SpanOf(slab->front()));
  }
}

// So that the emptier slabs get their chance to become empty.
TEST_F(PoolTest, TheFullestSlabServesFirst) {
  LockedPool& backend = pool_.backend();
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    const uint32_t blocks = SlabBlocks(c);
    if (blocks < 3) continue;
    std::vector<void*> slabs[3];
    for (std::vector<void*>& slab : slabs) {
      ASSERT_NO_FATAL_FAILURE(TakeSlab(backend, c, &slab));
    }
    for (uint32_t i = 1; i < blocks; ++i) backend.Free(c, slabs[0][i]);
    backend.Free(c, slabs[1][1]);
    EXPECT_EQ(backend.Allocate(c), slabs[1][1]) << "class " << c;
    EXPECT_EQ(backend.Allocate(c), slabs[0][1]) << "class " << c;
    backend.Free(c, slabs[0][1]);
    const size_t before = arena.GetStats().slab_bytes;
    backend.Free(c, slabs[0][0]);
    backend.ReleaseEmptySlabs();
    EXPECT_EQ(arena.GetStats().slab_bytes,
              before - SlabGranules(c) * kGranuleSize);
    for (void* const block : slabs[1]) backend.Free(c, block);
    for (void* const block : slabs[2]) backend.Free(c, block);
    backend.ReleaseEmptySlabs();
  }
}

// Also where none of its pages is looked at yet.
TEST_F(PoolTest, ASlabIsAsFullAsItIsNow) {
  LockedPool& backend = pool_.backend();
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    const uint32_t blocks = SlabBlocks(c);
    if (blocks < 16) continue;
    std::vector<void*> slabs[3];
    for (std::vector<void*>& slab : slabs) {
      ASSERT_NO_FATAL_FAILURE(TakeSlab(backend, c, &slab));
    }
    backend.Free(c, slabs[1][0]);
    for (uint32_t i = 0; i < blocks / 4; ++i) backend.Free(c, slabs[0][i]);
    EXPECT_EQ(backend.Allocate(c), slabs[1][0]) << "class " << c;
    for (uint32_t i = blocks / 4; i < blocks; ++i) backend.Free(c, slabs[0][i]);
    for (void* const block : slabs[1]) backend.Free(c, block);
    for (void* const block : slabs[2]) backend.Free(c, block);
    backend.ReleaseEmptySlabs();
  }
}

TEST_F(PoolTest, FreePagesOfASlabAreFoundToTheLastBlock) {
  LockedPool& backend = pool_.backend();
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    const uint32_t blocks = SlabBlocks(c);
    std::vector<void*> slab;
    ASSERT_NO_FATAL_FAILURE(TakeSlab(backend, c, &slab));
    // The class's active slab is another one then.
    void* const next = backend.Allocate(c);
    for (uint32_t i = 0; i + 1 < blocks; ++i) backend.Free(c, slab[i]);
    const size_t pages = (blocks - 1) * ClassSize(c) / os::kPageSize;
    EXPECT_EQ(LockedPool::dirty_bytes(),
              pages < Slab::kWorthwhileRun ? 0 : pages * os::kPageSize)
        << "class " << c;
    backend.Free(c, slab.back());
    backend.Free(c, next);
    backend.ReleaseEmptySlabs();
  }
}

TEST_F(PoolTest, SlabsGoBackAsTheirLastBlockIsFreed) {
  LockedPool& backend = pool_.backend();
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    std::vector<void*> blocks(SlabBlocks(c) * 8);
    const auto count = static_cast<uint32_t>(blocks.size());
    ASSERT_EQ(backend.AllocateBatch(c, blocks.data(), count), count);
    EXPECT_EQ(arena.GetStats().slab_bytes, 8 * SlabGranules(c) * kGranuleSize);
    backend.FreeBatch(c, blocks.data(), count);
    // One stays, for the next call.
    EXPECT_LE(arena.GetStats().slab_bytes, SlabGranules(c) * kGranuleSize);
    backend.ReleaseEmptySlabs();
    EXPECT_EQ(arena.GetStats().slab_bytes, 0u);
  }
}

TEST_F(PoolDeathTest, ADoubleFreeToTheLockedPoolEndsTheProgram) {
  LockedPool& backend = pool_.backend();
  for (const SizeClass c : {first_class(), last_class()}) {
    void* const kept = backend.Allocate(c);
    void* const block = backend.Allocate(c);
    backend.Free(c, block);
    EXPECT_DEATH(backend.Free(c, block),
                 "^hakmem: double free of the block at 0x[0-9a-f]+\n$");
    backend.Free(c, kept);
    backend.ReleaseEmptySlabs();
    // Its slab is gone by now.
    EXPECT_DEATH(backend.Free(c, block),
                 "^hakmem: double free of the block at 0x[0-9a-f]+\n$");
  }
}

TEST_F(PoolDeathTest, APointerIntoABlockEndsTheProgram) {
  LockedPool& backend = pool_.backend();
  for (const SizeClass c : {first_class(), last_class()}) {
    auto* const block = static_cast<char*>(backend.Allocate(c));
    EXPECT_DEATH(backend.Free(c, block + ClassSize(c) / 2),
                 "^hakmem: pointer into the middle of a block, at "
                 "0x[0-9a-f]+\n$");
    backend.Free(c, block);
  }
}

}  // namespace
}  // namespace hakmem
