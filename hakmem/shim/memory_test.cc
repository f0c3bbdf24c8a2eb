// What the heap says of its memory, and how it goes back: on request, beyond a
// limit, and by the background thread.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/rollup.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

hak_stats Stats() {
  hak_stats stats;
  EXPECT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
  return stats;
}

void ExpectSums(const hak_stats& stats) {
  EXPECT_EQ(stats.live_bytes + stats.thread_cache_bytes + stats.depot_bytes +
                stats.slab_free_bytes + stats.slab_tail_bytes +
                stats.free_run_bytes + stats.table_bytes,
            stats.mapped_bytes);
  EXPECT_EQ(stats.slab_bytes + stats.large_bytes + stats.free_run_bytes,
            stats.committed_bytes);
  EXPECT_EQ(stats.committed_bytes + stats.direct_bytes + stats.table_bytes,
            stats.mapped_bytes);
  EXPECT_EQ(stats.slab_resident_bytes + stats.large_resident_bytes +
                stats.direct_resident_bytes + stats.free_resident_bytes +
                stats.table_resident_bytes,
            stats.resident_bytes);
  EXPECT_LE(stats.resident_bytes, stats.mapped_bytes);
  EXPECT_LE(stats.free_resident_bytes, stats.free_dirty_bytes);
}

// What is resident by our count and by the system's, within a twentieth.
void ExpectWhatTheSystemSays() {
  const hak_stats stats = Stats();
  const auto ours = static_cast<double>(stats.resident_bytes);
  const auto theirs = static_cast<double>(hakmem::Rollup("Anonymous"));
  EXPECT_NEAR(ours, theirs, theirs / 20)
      << "slabs " << stats.slab_resident_bytes << ", large "
      << stats.large_resident_bytes << ", direct "
      << stats.direct_resident_bytes << ", free " << stats.free_resident_bytes
      << ", tables " << stats.table_resident_bytes;
}

std::vector<void*> Allocate(size_t bytes, size_t size) {
  std::vector<void*> blocks(bytes / size);
  for (void*& block : blocks) {
    block = malloc(size);
    std::memset(block, 1, size);
  }
  return blocks;
}

void Free(std::vector<void*>& blocks) {
  for (void* const block : blocks) free(block);
  blocks.clear();
}

TEST(FiguresTest, AddUpAfterEveryKindOfCall) {
  ExpectSums(Stats());
  std::vector<void*> small = Allocate(20 * kMiB, 100);
  ExpectSums(Stats());
  std::vector<void*> medium = Allocate(40 * kMiB, 5000);
  std::vector<void*> large = Allocate(40 * kMiB, 2 * kMiB);
  const hak_stats full = Stats();
  ExpectSums(full);
  EXPECT_GE(full.live_bytes, 99 * kMiB);
  std::thread([&medium] {
    Free(medium);
    ExpectSums(Stats());
  }).join();
  ExpectSums(Stats());
  Free(large);
  ExpectSums(Stats());
  Free(small);
  const hak_stats after = Stats();
  ExpectSums(after);
  EXPECT_LE(after.live_bytes + 99 * kMiB, full.live_bytes);
}

TEST(FiguresTest, LiveIsWhatTheProgramHasToTheByte) {
  const uint64_t before = Stats().live_bytes;
  void* blocks[1000];
  for (void*& block : blocks) block = malloc(100);
  EXPECT_EQ(Stats().live_bytes - before, 1000 * 112u);
  for (void* const block : blocks) free(block);
  EXPECT_EQ(Stats().live_bytes, before);
}

// A thread that ends may leave its free blocks to the next one.
TEST(FiguresTest, LiveIsWithoutWhatAThreadLeftBehind) {
  std::vector<void*> blocks = Allocate(kMiB, 300);
  hak_release_memory(0);
  const uint64_t before = Stats().live_bytes;
  std::thread([] {
    std::vector<void*> own = Allocate(kMiB, 300);
    Free(own);
  }).join();
  // The thread's own first block may stay, and what the C library keeps.
  EXPECT_LE(Stats().live_bytes, before + 4096);
  Free(blocks);
}

TEST(FiguresTest, ResidentAgreesWithTheSystem) {
  std::vector<void*> small = Allocate(100 * kMiB, 700);
  std::vector<void*> large = Allocate(100 * kMiB, 3 * kMiB);
  // Not touched, so not there.
  void* const untouched = malloc(500 * kMiB);
  ExpectWhatTheSystemSays();
  for (size_t i = 0; i < small.size(); i += 2) {
    free(small[i]);
    small[i] = nullptr;
  }
  ExpectWhatTheSystemSays();
  Free(large);
  ExpectWhatTheSystemSays();
  Free(small);
  free(untouched);
}

// The records of sites, and the tables that threads have of theirs.
TEST(FiguresTest, TablesOfSitesAreAmongThem) {
  constexpr uintptr_t kSites = 40000;
  constexpr size_t kThreads = 8;
  hak_release_memory(0);  // what ended threads left would serve some of these
  const hak_stats before = Stats();
  ExpectSums(before);
  std::vector<void*> blocks;
  for (uintptr_t site = 1; site <= kSites; ++site) {
    blocks.push_back(hak_alloc_at(500, site));
    std::memset(blocks.back(), 1, 500);
  }
  const hak_stats with_sites = Stats();
  ExpectSums(with_sites);
  // A record each, and a cell.
  EXPECT_GE(with_sites.metadata_bytes, before.metadata_bytes + kSites * 320);
  EXPECT_GE(with_sites.table_resident_bytes,
            before.table_resident_bytes + kSites * 320);
  ExpectWhatTheSystemSays();

  std::barrier<> barrier(kThreads + 1);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&barrier] {
      free(hak_alloc_at(100, 1));
      barrier.arrive_and_wait();
      barrier.arrive_and_wait();
    });
  }
  barrier.arrive_and_wait();
  const hak_stats with_threads = Stats();
  ExpectSums(with_threads);
  constexpr size_t kLeastTable = 4096;
  EXPECT_GE(with_threads.metadata_bytes,
            with_sites.metadata_bytes + kThreads * kLeastTable);
  EXPECT_GE(with_threads.table_resident_bytes,
            with_sites.table_resident_bytes + kThreads * kLeastTable);
  barrier.arrive_and_wait();
  for (std::thread& thread : threads) thread.join();
  hak_release_memory(0);  // also what they left to the next threads
  EXPECT_LT(Stats().table_bytes + kThreads * kLeastTable / 2,
            with_threads.table_bytes);
  Free(blocks);
}

TEST(ReleaseTest, AtLeastSoMuch) {
  hak_release_memory(0);
  std::vector<void*> blocks = Allocate(16 * kMiB, 3000);
  const hak_stats full = Stats();
  Free(blocks);
  hak_release_memory(0);
  EXPECT_EQ(hak_release_memory(kMiB), 0u) << "nothing was left";
  EXPECT_EQ(Stats().free_resident_bytes, 0u);
  EXPECT_LT(Stats().resident_bytes + 15 * kMiB, full.resident_bytes);
  // Some of what is there, and not all of it.
  void* const large = malloc(16 * kMiB);
  std::memset(large, 1, 16 * kMiB);
  free(large);
  const uint64_t kept = Stats().free_resident_bytes;
  ASSERT_GT(kept, kMiB / 2);
  const size_t got = hak_release_memory(kMiB / 4);
  EXPECT_GE(got, kMiB / 4);
  EXPECT_LT(got, kept);
}

// Waits until `done()`, at most ten seconds: for a thread that works by the
// clock there is nothing else to wait for.
template <typename Fn>
bool Within10Seconds(Fn done) {
  for (int i = 0; i < 1000; ++i) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

int Threads() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Threads:")) return std::atoi(line.c_str() + 8);
  }
  return 0;
}

// Leaves free runs behind, and no call that would return them.
void LeaveSomething() {
  std::vector<void*> blocks = Allocate(8 * kMiB, 3000);
  Free(blocks);
  void* const large = malloc(kMiB + kMiB / 2);
  std::memset(large, 1, kMiB);
  free(large);
}

TEST(BackgroundTest, StartsOnceStopsAndStartsAgain) {
  const int before = Threads();
  hak_background_stop();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(hak_background_start(), 0);
    EXPECT_EQ(hak_background_start(), 0);
    EXPECT_EQ(Threads(), before + 1);
    hak_background_stop();
    EXPECT_TRUE(Within10Seconds([before] { return Threads() == before; }));
  }
}

TEST(BackgroundTest, ManyMayStartAndStopItAtOnce) {
  const int before = Threads();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([i] {
      for (int round = 0; round < 50; ++round) {
        if (i % 2 == 0) {
          EXPECT_EQ(hak_background_start(), 0);
        } else {
          hak_background_stop();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  hak_background_stop();
  EXPECT_TRUE(Within10Seconds([before] { return Threads() == before; }));
}

TEST(BackgroundTest, ReturnsMemoryWhileNobodyCalls) {
  hak_release_memory(0);
  LeaveSomething();
  const hak_stats before = Stats();
  ASSERT_GT(before.free_resident_bytes, kMiB / 2);
  ASSERT_EQ(hak_background_start(), 0);
  // What ended threads of other tests have left comes to the depots late.
  EXPECT_TRUE(Within10Seconds([] {
    const hak_stats stats = Stats();
    return stats.free_resident_bytes < kMiB / 8 && stats.depot_bytes == 0;
  })) << Stats().free_resident_bytes
      << " free, in depots " << Stats().depot_bytes;
  hak_background_stop();
}

TEST(BackgroundTest, TheChildOfAForkHasOneIfTheParentHad) {
  for (const bool running : {true, false}) {
    if (running) {
      ASSERT_EQ(hak_background_start(), 0);
    }
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      LeaveSomething();
      const bool right = running
                             ? Threads() == 2 && Within10Seconds([] {
                                 return Stats().free_resident_bytes < kMiB / 8;
                               })
                             : Threads() == 1;
      // By way of exit(), which does not wait for it.
      std::exit(right ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << running;
    hak_background_stop();
  }
}

TEST(BackgroundTest, WorksBesideThreadsThatAllocate) {
  ASSERT_EQ(hak_background_start(), 0);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i, &wrong] {
      for (int round = 0; round < 40; ++round) {
        std::vector<unsigned char*> blocks(2000);
        for (unsigned char*& block : blocks) {
          block = static_cast<unsigned char*>(malloc(2000));
          std::memset(block, i + 1, 2000);
        }
        for (unsigned char* const block : blocks) {
          if (block[0] != i + 1 || block[1999] != i + 1) ++wrong;
          free(block);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  hak_background_stop();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
