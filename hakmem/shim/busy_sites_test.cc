// Sites with so many blocks of a size that these have slabs of their own, as a
// program sees them: exact like all others.

#include <stdlib.h>

#include <algorithm>
#include <barrier>
#include <cstring>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/expect_abort.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/in_child.h"

namespace {

constexpr size_t kGranule = 64 << 10;

uintptr_t GranuleOf(const void* block) {
  return reinterpret_cast<uintptr_t>(block) / kGranule;
}

hak_site_stats StatsOf(uintptr_t site) {
  hak_site_stats stats;
  EXPECT_EQ(hak_site_stats_get(site, &stats, sizeof(stats)), 0);
  return stats;
}

// Sites of its own for each test: with as many allocations as it takes to be
// busy, and with as many more as it takes for free() to know them by itself.
class BusySitesTest : public testing::TestWithParam<int> {
 protected:
  static constexpr int kSites = 3;

  BusySitesTest() {
    const auto* const info =
        testing::UnitTest::GetInstance()->current_test_info();
    for (unsigned i = 0; i < kSites; ++i) {
      sites[i] = hak_site("busy_sites_test.cc", i, info->name());
      total_before_[i] = StatsOf(sites[i]).total_blocks;
    }
  }
  ~BusySitesTest() override {
    for (const uintptr_t site : sites) {
      EXPECT_EQ(StatsOf(site).live_blocks, 0u);
      EXPECT_EQ(StatsOf(site).live_bytes, 0u);
    }
    for (int s = 0; s < kSites; ++s) {
      EXPECT_GE(StatsOf(sites[s]).total_blocks - total_before_[s], made_busy_);
    }
    EXPECT_EQ(hak_sites_check(), 0);
  }

  // Makes all of the sites busy with blocks of this size.
  void MakeBusy(size_t size) {
    std::vector<void*> blocks;
    for (size_t bytes = 0; bytes < 8 * kGranule; bytes += size) {
      for (const uintptr_t site : sites) {
        blocks.push_back(hak_alloc_at(size, site));
      }
    }
    for (void* const block : blocks) free(block);
    void* some[50];
    for (int i = 0; i < GetParam(); i += static_cast<int>(std::size(some))) {
      for (const uintptr_t site : sites) {
        for (void*& block : some) block = hak_alloc_at(size, site);
        for (void* const block : some) free(block);
      }
    }
    made_busy_ += static_cast<uint64_t>(GetParam());
  }

  uintptr_t sites[kSites];

 private:
  uint64_t total_before_[kSites];
  uint64_t made_busy_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Allocations, BusySitesTest,
                         testing::Values(0, 200000));

TEST_P(BusySitesTest, HaveSlabsOfTheirOwn) {
  hak_stats stats;
  ASSERT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
  if (stats.pools[0].cached == 0)
    GTEST_SKIP() << "they have where Tiny is "
                    "cached";
  std::vector<void*> blocks;
  MakeBusy(100);
  // By granule, whose blocks are there; by turns, as no malloc would sort them.
  std::map<uintptr_t, std::set<uintptr_t>> owners;
  for (int i = 0; i < 10000; ++i) {
    for (const uintptr_t site : sites) {
      blocks.push_back(hak_alloc_at(100, site));
      owners[GranuleOf(blocks.back())].insert(site);
    }
  }
  const auto shared =
      std::count_if(owners.begin(), owners.end(),
                    [](const auto& of) { return of.second.size() > 1; });
  // 30000 blocks are 51 granules; slow paths take from those of all.
  EXPECT_GE(owners.size(), 51u);
  EXPECT_LE(shared, 5);
  for (void* const block : blocks) free(block);
}

// By a thread that has no blocks of the site: it would hand it out otherwise.
TEST_P(BusySitesTest, AnotherThreadsDoubleFreeIsSeen) {
  for (const size_t size : {100, 3000}) {
    MakeBusy(size);
    std::vector<void*> all;
    for (size_t bytes = 0; bytes < 4 * kGranule; bytes += size) {
      all.push_back(hak_alloc_at(size, sites[0]));
    }
    // Each has one beside it that keeps the slab: the memory of a slab that
    // went is that of the next one's blocks.
    std::sort(all.begin(), all.end());
    std::vector<void*> blocks;
    std::vector<void*> neighbours;
    for (size_t i = 0; i < all.size(); ++i) {
      if (blocks.size() < 20 && i + 1 < all.size() &&
          GranuleOf(all[i]) == GranuleOf(all[i + 1])) {
        blocks.push_back(all[i++]);
      }
      neighbours.push_back(all[i]);
    }
    ASSERT_EQ(blocks.size(), 20u);
    for (void* const block : blocks) free(block);
    hak_release_memory(0);
    const auto free_again = [&](void* block) {
      std::thread([&] {
        free(hak_alloc_at(size, sites[1]));
        free(hakmem::Launder(block));
      }).join();
    };
    for (void* const block : blocks) {
      EXPECT_ABORT(free_again(block), "double free", block);
    }
    for (void* const block : neighbours) free(block);
  }
}

TEST_P(BusySitesTest, EveryWayToFreeAndToResize) {
  constexpr size_t kSizes[] = {16, 100, 1000, 3000, 20000};
  for (const size_t size : kSizes) MakeBusy(size);
  void (*const frees[])(void*) = {
      &free, &hak_free, [](void* block) { ::operator delete(block); },
      [](void* block) { EXPECT_EQ(realloc(block, 0), nullptr); }};
  std::mt19937 random(3);
  struct Block {
    unsigned char* address;
    size_t size;
    int site;
    unsigned char fill;
  };
  std::vector<Block> blocks(3000, Block{nullptr, 0, 0, 0});
  uint64_t live[kSites] = {};
  for (int i = 0; i < 200000; ++i) {
    Block& block = blocks[random() % blocks.size()];
    if (block.address != nullptr) {
      for (size_t byte = 0; byte < block.size; byte += 13) {
        ASSERT_EQ(block.address[byte], block.fill);
      }
    }
    const size_t size = kSizes[random() % std::size(kSizes)] - random() % 8;
    const int site = static_cast<int>(random() % kSites);
    switch (random() % 8) {
      case 0: {
        // To another site, in place or not: the address may stay, the slab
        // must be its site's.
        block.address = static_cast<unsigned char*>(
            hak_realloc_at(block.address, size, sites[site]));
        ASSERT_NE(block.address, nullptr);
        if (block.size != 0) --live[block.site];
        for (size_t byte = 0; byte < std::min(size, block.size); byte += 13) {
          ASSERT_EQ(block.address[byte], block.fill);
        }
        break;
      }
      case 1:
        if (block.size != 0) {
          hak_free_at(block.address, sites[block.site]);
          --live[block.site];
        }
        block.address =
            static_cast<unsigned char*>(hak_calloc_at(1, size, sites[site]));
        for (size_t byte = 0; byte < size; ++byte) {
          ASSERT_EQ(block.address[byte], 0);
        }
        break;
      default:
        if (block.size != 0) {
          frees[random() % 4](block.address);
          --live[block.site];
        }
        block.address =
            static_cast<unsigned char*>(hak_alloc_at(size, sites[site]));
    }
    ++live[site];
    block = {block.address, size, site, static_cast<unsigned char>(i)};
    std::memset(block.address, block.fill, size);
    if (i % 20000 == 0) {
      for (int s = 0; s < kSites; ++s) {
        EXPECT_EQ(StatsOf(sites[s]).live_blocks, live[s]);
      }
      EXPECT_EQ(hak_sites_check(), 0);
    }
  }
  uint64_t bytes[kSites] = {};
  for (const Block& block : blocks) {
    if (block.size != 0) bytes[block.site] += hak_usable_size(block.address);
  }
  for (int s = 0; s < kSites; ++s) {
    EXPECT_EQ(StatsOf(sites[s]).live_bytes, bytes[s]);
    uint64_t ages = 0;
    for (const uint64_t age : StatsOf(sites[s]).ages) ages += age;
    EXPECT_GT(ages, 0u);
  }
  for (const Block& block : blocks) free(block.address);
}

TEST_P(BusySitesTest, ThreadsThatFreeForEachOther) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 30;
  constexpr int kBlocks = 2000;
  constexpr size_t kSizes[] = {48, 400, 2500};
  for (const size_t size : kSizes) MakeBusy(size);
  struct Block {
    uintptr_t* address;
    int site;
  };
  std::vector<std::vector<Block>> blocks(kThreads, std::vector<Block>(kBlocks));
  std::barrier barrier(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < kRounds; ++round) {
        for (Block& block : blocks[t]) {
          block.site = static_cast<int>(random() % kSites);
          block.address = static_cast<uintptr_t*>(
              hak_alloc_at(kSizes[random() % 3], sites[block.site]));
          *block.address = reinterpret_cast<uintptr_t>(&block);
        }
        barrier.arrive_and_wait();
        if (t == 0) {
          uint64_t live = 0;
          for (const uintptr_t site : sites) live += StatsOf(site).live_blocks;
          EXPECT_EQ(live, uint64_t{kThreads} * kBlocks);
          EXPECT_EQ(hak_sites_check(), 0);
        }
        barrier.arrive_and_wait();
        for (Block& block : blocks[(t + round) % kThreads]) {
          ASSERT_EQ(*block.address, reinterpret_cast<uintptr_t>(&block));
          hak_free_at(block.address, sites[block.site]);
        }
        barrier.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Blocks go round: one thread allocates, another frees, and what the first gets
// next is what the second has freed. At each turn all is accounted for, as
// live, in a thread's hands or in a depot.
TEST_P(BusySitesTest, DepotsAreCounted) {
  constexpr int kRounds = 40;
  constexpr size_t kBlocks = 3000;
  MakeBusy(64);
  const auto stats = [] {
    hak_stats now;
    EXPECT_EQ(hak_stats_get(&now, sizeof(now)), 0);
    EXPECT_EQ(now.live_bytes + now.thread_cache_bytes + now.depot_bytes +
                  now.slab_free_bytes + now.slab_tail_bytes +
                  now.free_run_bytes + now.table_bytes,
              now.mapped_bytes);
    return now;
  };
  std::vector<char*> blocks(kBlocks);
  std::barrier barrier(2);
  std::thread freeing([&] {
    for (int round = 0; round < kRounds; ++round) {
      barrier.arrive_and_wait();
      for (char* const block : blocks) free(block);
      barrier.arrive_and_wait();
    }
    // A thread that ends moves what it has counted, and is not to meanwhile.
    barrier.arrive_and_wait();
  });
  // With neither of the threads having anything, this is all that is live.
  hak_release_memory(0);
  const uint64_t live = stats().live_bytes;
  uint64_t depots = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (char*& block : blocks) {
      block = static_cast<char*>(hak_alloc_at(64, sites[round % kSites]));
      std::memset(block, round, 64);
    }
    EXPECT_EQ(StatsOf(sites[round % kSites]).live_blocks, kBlocks);
    EXPECT_EQ(hak_sites_check(), 0);
    EXPECT_GE(stats().live_bytes, live + kBlocks * 64);
    barrier.arrive_and_wait();
    barrier.arrive_and_wait();
    for (const uintptr_t site : sites) {
      EXPECT_EQ(StatsOf(site).live_blocks, 0u);
    }
    EXPECT_EQ(hak_sites_check(), 0);
    const hak_stats now = stats();
    EXPECT_LE(now.live_bytes, live + kBlocks * 64 / 4);
    depots = std::max(depots, now.depot_bytes);
  }
  barrier.arrive_and_wait();
  freeing.join();
  EXPECT_EQ(hak_sites_check(), 0);
  if (stats().pools[0].cached != 0) {
    EXPECT_GE(depots, kBlocks * 64 / 4);
  }
  hak_release_memory(0);
  EXPECT_EQ(stats().depot_bytes, 0u);
  EXPECT_EQ(hak_sites_check(), 0);
}

TEST_P(BusySitesTest, WhatSlotsHoldCountsAsCached) {
  MakeBusy(64);
  hak_release_memory(0);
  hak_stats before, after;
  ASSERT_EQ(hak_stats_get(&before, sizeof(before)), 0);
  const uint64_t enough = before.thread_cache_bytes + 32 * 64;
  // Again where some of them are in slabs by then: once in 40 runs of all tests
  // here, on a busy machine, nine of the 40 were.
  for (int round = 0; round < 20; ++round) {
    void* blocks[40];
    for (void*& block : blocks) block = hak_alloc_at(64, sites[0]);
    for (void* const block : blocks) free(block);
    ASSERT_EQ(hak_stats_get(&after, sizeof(after)), 0);
    if (after.thread_cache_bytes >= enough) break;
  }
  if (after.pools[0].cached == 0) GTEST_SKIP() << "nothing is cached";
  EXPECT_GE(after.thread_cache_bytes, enough);
  EXPECT_LE(after.live_bytes, before.live_bytes + 8 * 64);
}

// What a thread frees that another allocates, it has no use for.
TEST_P(BusySitesTest, WhoOnlyFreesKeepsLess) {
  MakeBusy(64);
  constexpr size_t kBlocks = 2000;
  // Half of what a slot may hold, and blocks with a date in their twin's bin.
  constexpr size_t kMostKept = 127 + 40;
  std::vector<void*> blocks(kBlocks);
  for (void*& block : blocks) block = hak_alloc_at(64, sites[0]);
  const auto cached = [] {
    hak_stats stats;
    EXPECT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
    return stats.thread_cache_bytes;
  };
  uint64_t before = 0, most = 0;
  std::thread freeing([&] {
    before = cached();
    for (void* const block : blocks) {
      free(block);
      most = std::max(most, cached());
    }
  });
  freeing.join();
  EXPECT_LE(most, before + kMostKept * 64);
}

// Threads leave their slots to each other.
TEST_P(BusySitesTest, NewThreadsGoOnWhereOthersEnded) {
  MakeBusy(96);
  uint64_t total[kSites];
  for (int s = 0; s < kSites; ++s) total[s] = StatsOf(sites[s]).total_blocks;
  constexpr int kThreads = 50;
  constexpr int kBlocks = 200;
  std::vector<void*> blocks;
  for (int t = 0; t < kThreads; ++t) {
    std::thread([&] {
      for (void* const block : blocks) free(block);
      blocks.clear();
      for (int i = 0; i < kBlocks; ++i) {
        blocks.push_back(hak_alloc_at(96, sites[t % kSites]));
      }
    }).join();
    for (int s = 0; s < kSites; ++s) {
      EXPECT_EQ(StatsOf(sites[s]).live_blocks, s == t % kSites ? kBlocks : 0);
    }
    EXPECT_EQ(hak_sites_check(), 0);
    std::vector<void*> sorted = blocks;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end());
  }
  for (void* const block : blocks) free(block);
  for (int s = 0; s < kSites; ++s) {
    EXPECT_EQ(
        StatsOf(sites[s]).total_blocks - total[s],
        kBlocks * static_cast<uint64_t>((kThreads + kSites - 1 - s) / kSites));
  }
  // Nor does what they have left survive when memory is asked back.
  hak_release_memory(0);
  hak_stats stats;
  ASSERT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
  EXPECT_EQ(stats.depot_bytes, 0u);
  EXPECT_EQ(stats.thread_cache_bytes, 0u);
  EXPECT_EQ(hak_sites_check(), 0);
}

TEST_P(BusySitesTest, AForkedChildHasThemToo) {
  MakeBusy(200);
  std::barrier barrier(2);
  std::vector<void*> blocks(5000);
  std::thread thread([&] {
    for (size_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = hak_alloc_at(200, sites[i % kSites]);
    }
    barrier.arrive_and_wait();
    barrier.arrive_and_wait();
  });
  barrier.arrive_and_wait();
  hakmem::InChild([this, &blocks] {
    const bool was_right = hak_sites_check() == 0;
    for (void* const block : blocks) free(block);
    return was_right && hak_sites_check() == 0 &&
           std::all_of(std::begin(sites), std::end(sites), [](uintptr_t site) {
             return StatsOf(site).live_blocks == 0;
           });
  });
  barrier.arrive_and_wait();
  thread.join();
  for (void* const block : blocks) free(block);
}

TEST_P(BusySitesTest, MemoryGoesBackWhenTheyAreIdle) {
  for (int round = 0; round < 3; ++round) {
    hak_release_memory(0);
    hak_stats before;
    hak_stats_get(&before, sizeof(before));
    std::vector<void*> blocks;
    for (int i = 0; i < 20000; ++i) {
      blocks.push_back(hak_alloc_at(16 + i % 50 * 60, sites[i % kSites]));
    }
    for (void* const block : blocks) free(block);
    hak_release_memory(0);
    hak_stats after;
    hak_stats_get(&after, sizeof(after));
    EXPECT_LE(after.slab_bytes, before.slab_bytes + (1 << 20));
  }
}

}  // namespace
