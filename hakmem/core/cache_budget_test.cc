#include "hakmem/core/cache_budget.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/cgroup.h"
#include "hakmem/core/large.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/os.h"
#include "hakmem/core/size_class.h"

namespace hakmem {
namespace {

constexpr int64_t kMiB = 1 << 20;

// Before anything reads the options.
[[maybe_unused]] const int options = setenv("HAKMEM_CACHE_BYTES", "20M", 1) |
                                     // Longer than any test takes.
                                     setenv("HAKMEM_DECAY_MS", "3600000", 1);

class CacheBudgetTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(arena.EnsureReady()); }
};

TEST_F(CacheBudgetTest, TheLimitFollowsWhatIsLiveUpToTheOption) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  const int64_t floor = budget.limit();
  EXPECT_GT(floor, 0);
  EXPECT_LT(floor, 20 * kMiB);
  budget.AddThread();
  EXPECT_EQ(budget.limit(), floor) << "one thread, known of or not";
  void* const some = AllocateLarge(16 * kMiB, 16, nullptr);
  EXPECT_GT(budget.limit(), floor);
  EXPECT_LT(budget.limit(), 20 * kMiB);
  void* const much = AllocateLarge(2048 * kMiB, 16, nullptr);
  EXPECT_EQ(budget.limit(), 20 * kMiB);
  FreeLarge(much);
  FreeLarge(some);
  EXPECT_EQ(budget.limit(), floor);
}

TEST_F(CacheBudgetTest, ThreadsThatWantLittleDoNotRaiseTheLimit) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  const int64_t alone = budget.limit();
  budget.AddThread();
  budget.AddThread();
  budget.AddSharer();
  EXPECT_EQ(budget.limit(), alone);
  budget.AddSharer();
  EXPECT_GT(budget.limit(), alone);
  budget.RemoveSharer();
  EXPECT_EQ(budget.limit(), alone);
}

TEST_F(CacheBudgetTest, AFewThreadsMayGoOverItWithTheirFirstBlocks) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  for (int i = 0; i < 16; ++i) budget.AddThread();
  EXPECT_TRUE(budget.TakeForDepot(static_cast<size_t>(budget.limit())));
  EXPECT_TRUE(budget.TakeFirst(100));
  EXPECT_TRUE(budget.TakeFirst(2 * kMaxPooledSize));
  EXPECT_FALSE(budget.TakeFirst(static_cast<size_t>(budget.limit()) * 8));
  // What HAKMEM_CACHE_BYTES says, as often, is the most.
  void* const much = AllocateLarge(2048 * kMiB, 16, nullptr);
  ASSERT_EQ(budget.limit(), 20 * kMiB);
  const auto rest = static_cast<size_t>(4 * 20 * kMiB - budget.used());
  EXPECT_FALSE(budget.TakeFirst(rest + 1));
  EXPECT_TRUE(budget.TakeFirst(rest));
  FreeLarge(much);
}

// Each of many has room for some, as few have that share the limit, and leaves
// a quarter to the depots.
TEST_F(CacheBudgetTest, ManyThreadsMayTakeThreeQuartersOfWhatTheyWouldShare) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  const auto take_all = [&budget] {
    while (budget.TakeFirst(1000)) continue;
    return budget.used();
  };
  if (arena.processors() > 4) GTEST_SKIP() << "reads figures of four at most";
  for (int i = 0; i < 17; ++i) budget.AddThread();
  const int64_t of_17 = take_all();
  for (int i = 17; i < 64; ++i) budget.AddThread();
  const int64_t of_64 = take_all();
  for (int i = 64; i < 1000; ++i) budget.AddThread();
  const int64_t of_1000 = take_all();
  EXPECT_GT(of_17, 17 * (128 << 10));
  EXPECT_GT(of_64, of_17 + 47 * (64 << 10));
  EXPECT_LT(of_64, 20 * kMiB / 4 * 3);
  EXPECT_EQ(of_1000, of_64) << "they may all be idle";
  for (int i = 0; i < 1000; ++i) budget.AddSharer();
  EXPECT_FALSE(budget.TakeForThread(1000));
  EXPECT_TRUE(budget.TakeForDepot(static_cast<size_t>(of_64 / 4)));
}

TEST_F(CacheBudgetTest, AThreadAddsMoreWhileEachHasAProcessor) {
  constexpr size_t kOfFew = 2 * kMiB;
  constexpr size_t kOfMany = 128 << 10;
  for (const uint32_t processors : {1u, 2u, 4u}) {
    EXPECT_EQ(CacheBudget::Floor(2, processors), 2 * kOfFew);
    EXPECT_EQ(CacheBudget::Floor(4, processors), 4 * kOfFew);
    EXPECT_EQ(CacheBudget::Floor(16, processors), 4 * kOfFew + 12 * kOfMany);
  }
  EXPECT_EQ(CacheBudget::Floor(4, 16), 4 * kOfFew);
  EXPECT_EQ(CacheBudget::Floor(16, 16), 16 * kOfFew);
  EXPECT_EQ(CacheBudget::Floor(20, 16), 16 * kOfFew + 4 * kOfMany);
  EXPECT_EQ(CacheBudget::Floor(100, 16), 16 * kOfFew + 48 * kOfMany);
  EXPECT_EQ(CacheBudget::Floor(200, 96), 96 * kOfFew);
}

TEST_F(CacheBudgetTest, ThreadsSpinWhileEachHasAProcessor) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  const uint32_t processors = arena.processors();
  budget.AddThread();
  EXPECT_FALSE(Mutex::spins()) << "nobody to wait for";
  budget.AddThread();
  EXPECT_EQ(Mutex::spins(), processors > 1);
  for (uint32_t n = 2; n < 2 * processors; ++n) budget.AddThread();
  EXPECT_FALSE(Mutex::spins() && processors > 1);
  for (uint32_t n = 2 * processors; n > processors; --n) budget.RemoveThread();
  EXPECT_EQ(Mutex::spins(), processors > 1);
  Mutex::SetSpins(false);
}

TEST_F(CacheBudgetTest, ProcessorsAreThoseThatTheThreadMayUse) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  EXPECT_EQ(os::UsableProcessors({}), static_cast<uint32_t>(CPU_COUNT(&set)));
  EXPECT_EQ(os::UsableProcessors({.processors = 1}), 1u);
  const cpu_set_t all = set;
  int first = 0;
  while (!CPU_ISSET(first, &set)) ++first;
  CPU_ZERO(&set);
  CPU_SET(first, &set);
  ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
  EXPECT_EQ(os::UsableProcessors({}), 1u);
  EXPECT_EQ(os::UsableProcessors({.processors = 2}), 1u);
  ASSERT_EQ(sched_setaffinity(0, sizeof(all), &all), 0);
}

// What is live raises the limit of many threads too, but not what they cache.
TEST_F(CacheBudgetTest, OfManyThreadsWhatTheyHaveCachedIsNotLive) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  if (arena.processors() > 4) GTEST_SKIP() << "reads figures of four at most";
  for (int i = 0; i < 17; ++i) budget.AddSharer();
  const int64_t floor = budget.limit();
  void* const some = AllocateLarge(16 * kMiB, 16, nullptr);
  const int64_t with_live = budget.limit();
  EXPECT_GE(with_live, floor + 4 * kMiB);
  budget.Force(4 * kMiB);
  EXPECT_EQ(budget.limit(), with_live - 2 * kMiB);
  budget.Force(100 * kMiB);
  EXPECT_EQ(budget.limit(), floor);
  FreeLarge(some);
}

// Of a pool that says so.
TEST_F(CacheBudgetTest, DepotsMayHaveMoreOfWhatIsLive) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  if (arena.processors() > 4) GTEST_SKIP() << "reads figures of four at most";
  for (int i = 0; i < 4; ++i) budget.AddSharer();
  const int64_t floor = budget.limit();
  EXPECT_EQ(budget.limit(8), floor);
  void* const some = AllocateLarge(16 * kMiB, 16, nullptr);
  const int64_t limit = budget.limit();
  EXPECT_GE(limit, floor + 4 * kMiB);
  EXPECT_EQ(budget.limit(8) - floor, 2 * (limit - floor));
  EXPECT_TRUE(budget.TakeForThread(static_cast<size_t>(limit / 4 * 3)));
  EXPECT_FALSE(budget.TakeForThread(1));
  EXPECT_TRUE(budget.TakeForDepot(static_cast<size_t>(limit / 4)));
  EXPECT_FALSE(budget.TakeForDepot(1));
  EXPECT_FALSE(budget.TakeForDepot(static_cast<size_t>(limit - floor) + 1, 8));
  EXPECT_TRUE(budget.TakeForPeak(static_cast<size_t>(limit - floor), 1, 8));
  EXPECT_FALSE(budget.TakeForDepot(1, 8));
  FreeLarge(some);
}

TEST_F(CacheBudgetTest, DepotsGetAllOfItThreadsThreeQuarters) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  const int64_t limit = budget.limit();
  const int64_t threads = limit / 4 * 3;
  EXPECT_TRUE(budget.TakeForThread(static_cast<size_t>(threads)));
  EXPECT_FALSE(budget.TakeForThread(1));
  EXPECT_FALSE(budget.TakeForDepot(static_cast<size_t>(limit - threads) + 1));
  EXPECT_EQ(budget.used(), threads) << "a refusal takes nothing";
  EXPECT_TRUE(budget.TakeForDepot(static_cast<size_t>(limit - threads)));
  EXPECT_FALSE(budget.TakeForDepot(1));
  budget.Force(100);
  EXPECT_EQ(budget.used(), limit + 100);
  budget.Return(static_cast<size_t>(limit - threads) + 101);
  EXPECT_TRUE(budget.TakeForThread(1));
  EXPECT_FALSE(budget.TakeForThread(1));
  budget.Return(static_cast<size_t>(threads));
  EXPECT_EQ(budget.used(), 0);
}

TEST_F(CacheBudgetTest, DepotsMayHaveWhatThePeakWantsBack) {
  std::atomic<int64_t> used{0};
  CacheBudget budget(used);
  int64_t all = 0;
  // What the program has beside what is cached.
  const auto set_program = [&](int64_t bytes) {
    const int64_t now = bytes + budget.used();
    arena.demand().Add(0, now - all);
    all = now;
  };
  ASSERT_TRUE(budget.TakeForDepot(static_cast<size_t>(budget.limit())));
  arena.regretted() = 6 * kMiB;
  set_program(12 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(1)) << "at the peak";
  set_program(8 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(4 * kMiB + 1));
  EXPECT_FALSE(budget.TakeForDepot(1));
  EXPECT_TRUE(budget.TakeForPeak(4 * kMiB));
  EXPECT_FALSE(budget.TakeForThread(1));
  EXPECT_TRUE(budget.TakeFirst(static_cast<size_t>(budget.limit())))
      << "as if that were not there";
  budget.Return(static_cast<size_t>(budget.limit()));
  set_program(8 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(1));
  set_program(2 * kMiB);
  EXPECT_TRUE(budget.TakeForPeak(2 * kMiB));
  set_program(2 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(1)) << "no more than was wanted back";
  budget.Return(6 * kMiB);
  set_program(11 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(kMiB + 1)) << "on the way to the next one";
  EXPECT_TRUE(budget.TakeForPeak(kMiB));
  budget.Return(kMiB);
  // Up to half of it.
  set_program(6 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(1, 2));
  set_program(5 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(kMiB + 1, 2));
  EXPECT_TRUE(budget.TakeForPeak(kMiB, 2));
  budget.Return(kMiB);
  set_program(2 * kMiB);
  arena.regretted() = 0;
  EXPECT_FALSE(budget.TakeForPeak(1));
  // Never above the option.
  arena.regretted() = 1024 * kMiB;
  set_program(512 * kMiB);
  EXPECT_FALSE(budget.TakeForPeak(1));
  set_program(0);
  const auto rest = static_cast<size_t>(20 * kMiB - budget.used());
  EXPECT_FALSE(budget.TakeForPeak(rest + 1));
  EXPECT_TRUE(budget.TakeForPeak(rest));
  arena.regretted() = 0;
  arena.demand().Add(0, -all);
}

TEST_F(CacheBudgetTest, ThreadsTogetherKeepTheLimit) {
  static constinit std::atomic<int64_t> used{0};
  static constinit CacheBudget budget(used);
  HelgrindIgnore(&used, sizeof(used));
  HelgrindIgnore(&budget, sizeof(budget));
  const auto part = static_cast<uint32_t>(budget.limit() / 4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t, part] {
      std::mt19937 random(static_cast<uint32_t>(t));
      int64_t mine = 0;
      for (int round = 0; round < 5000; ++round) {
        const size_t bytes = 1 + random() % part;
        if (budget.TakeForThread(bytes)) mine += static_cast<int64_t>(bytes);
        ASSERT_LE(mine, budget.limit());
        if (random() % 3 == 0) {
          budget.Return(static_cast<size_t>(mine));
          mine = 0;
        }
      }
      budget.Return(static_cast<size_t>(mine));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget.used(), 0);
}

}  // namespace
}  // namespace hakmem
