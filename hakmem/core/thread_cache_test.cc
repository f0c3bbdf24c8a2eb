#include "hakmem/core/thread_cache.h"

#include <pthread.h>
#include <stdlib.h>

#include <cstdint>
#include <functional>
#include <latch>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "gtest/gtest.h"
#include "hakmem/core/core.h"
#include "hakmem/core/tiny_test_pool.h"

namespace hakmem {
namespace {

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || \
    defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_MEMORY_SANITIZER)
// calloc() is the sanitizer's.
constexpr bool kCanHook = false;
#else
constexpr bool kCanHook = true;
#endif

// What the next calloc() of this thread does first.
thread_local const std::function<void()>* hook = nullptr;

// Bytes of slabs that are left once all that waits for reuse has gone.
size_t SlabBytes() {
  thread_cache.FlushBins();
  return SlabBytesAfterRelease();
}

void OnThread(const std::function<void()>& fn) { std::thread(fn).join(); }

// Allocates this many blocks, and frees them then.
void AllocateAndFree(int count) {
  std::vector<void*> blocks;
  for (int i = 0; i < count; ++i) blocks.push_back(Allocate());
  for (void* const block : blocks) Free(block);
}

// The key that tells when a thread ends is made at the first use of a cache in
// this program, here after so many others that setting it allocates.
class ThreadCacheTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    for (int i = 0; i < 40; ++i) {
      pthread_key_t key;
      ASSERT_EQ(pthread_key_create(&key, nullptr), 0);
    }
  }
  void TearDown() override { EXPECT_EQ(SlabBytes(), 0u) << "blocks were lost"; }
};

TEST_F(ThreadCacheTest, BeginsEmptyAndFullInEveryClass) {
  OnThread([] {
    int block = 0;
    for (SizeClass c = 0; c < kNumClasses; ++c) {
      EXPECT_EQ(thread_cache.Pop(c), nullptr);
      EXPECT_FALSE(thread_cache.Push(c, &block));
    }
  });
}

TEST_F(ThreadCacheTest, ClassZeroStaysEmptyAndFull) {
  OnThread([] {
    AllocateAndFree(100);
    int block = 0;
    EXPECT_EQ(thread_cache.Pop(kNoClass), nullptr);
    EXPECT_FALSE(thread_cache.Push(kNoClass, &block));
  });
}

TEST_F(ThreadCacheTest, SetUpMayAllocate) {
  if (!kCanHook) GTEST_SKIP() << "a sanitizer's calloc takes no hook";
  static void* inner = nullptr;
  OnThread([] {
    const std::function<void()> allocate = [] { inner = Allocate(); };
    hook = &allocate;
    void* const outer = Allocate();
    ASSERT_EQ(hook, nullptr) << "the set-up did not allocate";
    ASSERT_NE(outer, nullptr);
    ASSERT_NE(inner, nullptr);
    EXPECT_NE(inner, outer);
    Free(outer);
  });
  Free(inner);
}

// What a program frees and is to want back goes from its magazines to depots,
// beyond what caches may have otherwise.
TEST_F(ThreadCacheTest, DepotsKeepWhatThePeakWantsBack) {
  OnThread([] {
    const auto flushes = [](size_t regretted, size_t mib) {
      arena.regretted() = regretted;
      const CacheCounters& counters = thread_cache.counters(kGeometry.index);
      const uint64_t before = counters.flushes.load(std::memory_order_relaxed);
      std::vector<void*> blocks((mib << 20) / ClassSize(kClass));
      for (void*& block : blocks) block = Allocate();
      for (void* const block : blocks) Free(block);
      cached_pool.DrainDepots();
      return counters.flushes.load(std::memory_order_relaxed) - before;
    };
    EXPECT_GT(flushes(0, 20), 1000u) << "of 4096 bytes each";
    EXPECT_LT(flushes(size_t{1} << 30, 16), 200u);
    arena.regretted() = 0;
  });
}

// A bin that is as large as it may be does not have to see its swaps for long.
// When it is given up and begins small again it does.
TEST_F(ThreadCacheTest, ABinThatBeginsAnewGrowsBySwapsAgain) {
  OnThread([] {
    const auto many = [](size_t count, const auto& between) {
      std::vector<void*> blocks(count);
      for (void*& block : blocks) block = Allocate();
      between();
      for (void* const block : blocks) Free(block);
    };
    const ThreadCache::Bin& bin = thread_cache.bin(kClass);
    for (size_t round = 0; round < 1000; ++round) many(round % 70, [] {});
    ASSERT_GT(bin.swaps_left, 100u);
    thread_cache.FlushBins();
    cached_pool.DrainDepots();
    const uint32_t first = kGeometry.first_capacity;
    many(first + 1, [] {});
    ASSERT_EQ(bin.capacity, first);
    // One block is left in the current magazine, the other is full: of two that
    // are taken and given back the second comes by a swap, either way.
    const uint32_t misses = bin.misses;
    many(first - 1, [&] {
      for (int i = 0; i < 20 && bin.capacity == first; ++i) many(2, [] {});
    });
    EXPECT_EQ(bin.misses, misses);
    EXPECT_GT(bin.capacity, first);
  });
}

TEST_F(ThreadCacheTest, AnEndingThreadGivesItsBlocksBack) {
  static std::set<void*> blocks;
  OnThread([] {
    for (int i = 0; i < 1000; ++i)
      EXPECT_TRUE(blocks.insert(Allocate()).second);
  });
  for (void* const block : blocks) Free(block);
}

uint64_t Refills() {
  CacheCounters counters;
  ThreadCache::SumCounters(0, counters);
  return counters.refills;
}

// For a cache that is trimmed by the test alone: so long no test takes.
int64_t Later() { return os::CoarseMilliseconds() + 1'000'000; }

void UseAnotherClass() {
  constexpr SizeClass kOther = kClass + 1;
  cached_pool.Free(thread_cache, kOther,
                   cached_pool.Allocate(thread_cache, kOther));
}

// Allocates this many blocks on a thread that ends, and frees them there.
std::set<void*> UseOnThread(int count) {
  std::set<void*> blocks;
  OnThread([&blocks, count] {
    for (int i = 0; i < count; ++i) {
      EXPECT_TRUE(blocks.insert(Allocate()).second);
    }
    for (void* const block : blocks) Free(block);
  });
  return blocks;
}

TEST_F(ThreadCacheTest, ANewThreadHasWhatAnEndedOneLeft) {
  const std::set<void*> left = UseOnThread(100);
  const uint64_t refills = Refills();
  const std::set<void*> found = UseOnThread(100);
  EXPECT_EQ(found, left);
  EXPECT_EQ(Refills(), refills);
}

// What a thread takes over is not given up at once, whatever it does first. It
// goes when the thread before would have given it up: where each lives for a
// moment nobody else would.
TEST_F(ThreadCacheTest, BinsThatAreTakenOverAreTrimmedInTheirTime) {
  constexpr int64_t kPeriod = 1000;
  const int64_t later = Later();
  OnThread([later] {
    UseAnotherClass();
    EXPECT_TRUE(thread_cache.TrimIsDue(kPeriod, later));
    AllocateAndFree(100);
  });
  OnThread([later] {
    UseAnotherClass();
    EXPECT_FALSE(thread_cache.TrimIsDue(kPeriod, later + kPeriod - 1));
    const uint64_t refills = Refills();
    AllocateAndFree(100);
    EXPECT_EQ(Refills(), refills) << "some went";
    EXPECT_TRUE(thread_cache.TrimIsDue(kPeriod, later + kPeriod));
  });
}

// It stays if somebody has drawn on it since it was last trimmed.
TEST_F(ThreadCacheTest, BinsAreTrimmedByWhatAllDidWhoHadThem) {
  const auto trim = [] {
    UseAnotherClass();
    thread_cache.TrimBins();
  };
  OnThread([] {
    UseAnotherClass();
    EXPECT_TRUE(thread_cache.TrimIsDue(1, Later()));
    AllocateAndFree(100);
  });
  OnThread(trim);
  const uint64_t refills = Refills();
  OnThread([] {
    AllocateAndFree(100);
    thread_cache.TrimBins();
  });
  EXPECT_EQ(Refills(), refills) << "it has gone";
  for (int i = 0; i < 2; ++i) OnThread(trim);
  OnThread([] {
    UseAnotherClass();
    void* const block = thread_cache.Pop(kClass);
    EXPECT_EQ(block, nullptr) << "it is still there";
    if (block != nullptr) Free(block);
  });
}

// A thread whose first call is a free finds room in what another left.
TEST_F(ThreadCacheTest, TheFirstCallOfTheNewThreadMayBeAFree) {
  UseOnThread(3);
  void* const block = Allocate();
  OnThread([block] {
    Free(block);
    EXPECT_EQ(thread_cache.Pop(kClass), block);
    Free(block);
  });
}

TEST_F(ThreadCacheTest, WhatNobodyTakesOverGoesBack) {
  UseOnThread(100);
  EXPECT_GT(cache_budget.used(), 0);
  ThreadCache::FlushParked(ThreadCache::Parked::kStale);
  EXPECT_GT(cache_budget.used(), 0) << "it has just been left";
  ThreadCache::FlushParked(ThreadCache::Parked::kStale);
  cached_pool.DrainDepots();
  EXPECT_EQ(cache_budget.used(), 0);
}

// Of many threads that end at once, most give their blocks back.
TEST_F(ThreadCacheTest, OnlySomeAreLeft) {
  constexpr int kThreads = 12;
  std::latch all_have_bins(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&all_have_bins] {
      Free(Allocate());
      all_have_bins.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  cached_pool.DrainDepots();
  const auto one =
      static_cast<int64_t>(kGeometry.first_capacity * ClassSize(kClass));
  EXPECT_GE(cache_budget.used(), one);
  EXPECT_LE(cache_budget.used(), 4 * one);
}

// A thread counts for the limit while it wants more than its first blocks.
TEST_F(ThreadCacheTest, AThreadSharesTheLimitFromWhenItsBinsGrow) {
  ThreadCache::FlushParked(ThreadCache::Parked::kAll);
  AllocateAndFree(
      1000);  // this thread has grown, or will not before the others do
  const int64_t limit = cache_budget.limit();
  OnThread([limit] {
    AllocateAndFree(10);
    EXPECT_EQ(cache_budget.limit(), limit);
    AllocateAndFree(1000);
    EXPECT_GT(cache_budget.limit(), limit);
  });
  EXPECT_EQ(cache_budget.limit(), limit);
}

// Threads without room for a bin hand blocks to each other by the depot.
TEST_F(ThreadCacheTest, WithoutRoomBlocksGoRoundByTheDepot) {
  constexpr int kThreads = 40;
  constexpr int kBlocks = 30;
  for (int i = 0; i < kThreads; ++i) {
    cache_budget.AddThread();
    cache_budget.AddSharer();
  }
  OnThread([] {
    Free(Allocate());  // brings the bins that another thread left
    thread_cache.FlushBins();
    cached_pool.DrainDepots();
    const int64_t before = cache_budget.used();
    // No room for threads, but for depots.
    while (cache_budget.TakeFirst(1000)) continue;
    thread_cache.forced() += ThreadCache::kMostForced;
    const int64_t taken = cache_budget.used() - before;
    const auto of_depot = [] { return cached_pool.DepotBytes(); };
    std::set<void*> blocks;
    for (int i = 0; i < kBlocks; ++i) {
      EXPECT_TRUE(blocks.insert(Allocate()).second) << "handed out twice";
    }
    EXPECT_EQ(thread_cache.bin(kClass).capacity, 0u);
    const size_t rest = of_depot();
    EXPECT_LT(rest, kGeometry.first_capacity * ClassSize(kClass));
    for (void* const block : blocks) Free(block);
    EXPECT_EQ(of_depot(), rest + kBlocks * ClassSize(kClass));
    EXPECT_EQ(cache_budget.used() - before - taken,
              static_cast<int64_t>(of_depot()));
    for (int i = 0; i < kBlocks; ++i) {
      EXPECT_EQ(blocks.count(Allocate()), 1u) << "from the depot";
    }
    for (void* const block : blocks) Free(block);
    // Nor for depots: blocks go to the slabs, and what waits in depots follows.
    cache_budget.Force(100 << 20);
    void* const block = Allocate();
    Free(block);
    EXPECT_LT(of_depot(), rest + kBlocks * ClassSize(kClass));
    cache_budget.Return((100 << 20) + static_cast<size_t>(taken));
    thread_cache.forced() -= ThreadCache::kMostForced;
    cached_pool.DrainDepots();
    EXPECT_EQ(cache_budget.used(), before);
  });
  for (int i = 0; i < kThreads; ++i) {
    cache_budget.RemoveThread();
    cache_budget.RemoveSharer();
  }
}

// Nobody comes for what such threads have left there: it goes, too, in a pool
// in which no thread ever had room.
TEST_F(ThreadCacheTest, WhatWaitsInDepotsGoesAlsoWhereNobodyHadRoom) {
  static constinit LockedPool locked({.first_class = kLastTinyClass + 1,
                                      .last_class = kLastL2Class,
                                      .index = 1,
                                      .first_capacity = 6,
                                      .magazine_bytes = 65536});
  static constinit CachedPool pool(locked);
  constexpr int kThreads = 40;
  for (int i = 0; i < kThreads; ++i) {
    cache_budget.AddThread();
    cache_budget.AddSharer();
  }
  OnThread([] {
    void* const block = locked.Allocate(kLastL2Class);
    const int64_t before = cache_budget.used();
    while (cache_budget.TakeFirst(1000)) continue;
    const int64_t taken = cache_budget.used() - before;
    thread_cache.forced() += ThreadCache::kMostForced;
    pool.Free(thread_cache, kLastL2Class, block);
    EXPECT_EQ(pool.DepotBytes(), ClassSize(kLastL2Class));
    // The first look takes note, and the second finds it there still.
    const int64_t now = os::CoarseMilliseconds() + 1000;
    CachedPool::TidyWhatIsDue(now);
    CachedPool::TidyWhatIsDue(now + 1000);
    EXPECT_EQ(pool.DepotBytes(), 0u);
    thread_cache.forced() -= ThreadCache::kMostForced;
    cache_budget.Return(static_cast<size_t>(taken));
    EXPECT_EQ(cache_budget.used(), before);
    locked.ReleaseEmptySlabs();
  });
  for (int i = 0; i < kThreads; ++i) {
    cache_budget.RemoveThread();
    cache_budget.RemoveSharer();
  }
}

// A destructor of a key that was made before the cache's runs before it, one
// made later runs after it. Both may use the heap.
TEST_F(ThreadCacheTest, DestructorsOfTheThreadMayUseTheHeap) {
  static int calls = 0;
  const auto use_heap = [](void*) {
    void* const a = Allocate();
    void* const b = Allocate();
    ASSERT_NE(a, nullptr);
    ASSERT_NE(b, a);
    Free(a);
    Free(b);
    ++calls;
  };
  pthread_key_t later;
  ASSERT_EQ(pthread_key_create(&later, use_heap), 0);
  OnThread([later] {
    Free(Allocate());
    ASSERT_EQ(pthread_setspecific(later, &calls), 0);
  });
  EXPECT_EQ(calls, 1);
  ASSERT_EQ(pthread_key_delete(later), 0);
}

TEST_F(ThreadCacheTest, ManyShortThreadsLeaveNothingBehind) {
  for (int i = 0; i < 200; ++i) {
    OnThread([] {
      void* blocks[40];
      for (void*& block : blocks) block = Allocate();
      for (void* const block : blocks) Free(block);
    });
  }
  EXPECT_EQ(SlabBytes(), 0u);
  // What is left of the budget's use is this thread's, which has no bins now.
  EXPECT_EQ(cache_budget.used(), 0);
}

TEST_F(ThreadCacheTest, CountersOutliveTheirThread) {
  CacheCounters before;
  ThreadCache::SumCounters(0, before);
  static std::vector<void*> blocks;
  OnThread([] {
    for (int i = 0; i < 50; ++i) blocks.push_back(Allocate());
    CacheCounters during;
    ThreadCache::SumCounters(0, during);
    EXPECT_GE(during.blocks_loaded.load(), 50u);
  });
  CacheCounters after;
  ThreadCache::SumCounters(0, after);
  EXPECT_GE(after.blocks_loaded - before.blocks_loaded, 50u);
  EXPECT_GT(after.alloc_misses, before.alloc_misses);
  // Loaded and not unloaded is what the program holds.
  EXPECT_EQ(after.blocks_loaded - after.blocks_unloaded -
                (before.blocks_loaded - before.blocks_unloaded),
            50u);
  for (void* const block : blocks) Free(block);
}

}  // namespace
}  // namespace hakmem

extern "C" {

void* __libc_calloc(size_t count, size_t size);

#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER) &&  \
    !defined(ABSL_HAVE_MEMORY_SANITIZER)
void* calloc(size_t count, size_t size) {
  if (hakmem::hook != nullptr) {
    const auto* const run = hakmem::hook;
    hakmem::hook = nullptr;
    (*run)();
  }
  return __libc_calloc(count, size);
}
#endif

}  // extern "C"
