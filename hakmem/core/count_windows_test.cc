#include "hakmem/core/count_windows.h"

#include <atomic>
#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/core.h"
#include "hakmem/core/sampling.h"

namespace hakmem {
namespace {

constexpr int kWindows = 1 << CountWindows::kShareShift;

TEST(CountWindowsTest, CountsInOneOfEach) {
  CountWindows windows;
  EXPECT_TRUE(windows.counts());
  EXPECT_FALSE(windows.divides());
  std::mt19937_64 random(1);
  std::set<int> where;
  for (int i = 0; i < 500; ++i) {
    int counted = 0;
    for (int j = 0; j < kWindows; ++j) {
      windows.Next(random(), true);
      ASSERT_TRUE(windows.divides());
      ASSERT_EQ(windows.share_shift(), CountWindows::kShareShift);
      if (!windows.counts()) continue;
      ++counted;
      where.insert(j);
    }
    ASSERT_EQ(counted, 1);
  }
  EXPECT_EQ(where.size(), size_t{kWindows});
}

// Who left when one of them was counted in, and came back then, would have
// counted more.
TEST(CountWindowsTest, GoesBackToAllWhenEightAreThrough) {
  CountWindows windows;
  for (int i = 0; i < kWindows; ++i) {
    windows.Next(5, i == 0);
    EXPECT_TRUE(windows.divides());
    EXPECT_EQ(windows.counts(), i == 5);
  }
  windows.Next(5, false);
  EXPECT_FALSE(windows.divides());
  EXPECT_TRUE(windows.counts());
  EXPECT_EQ(windows.share_shift(), 0);
  windows.Next(0, true);
  EXPECT_TRUE(windows.divides());
  windows.Leave();
  EXPECT_FALSE(windows.divides());
  EXPECT_TRUE(windows.counts());
}

std::atomic<int64_t> now{0};
int64_t Clock() { return now; }

// Rates of a busy program.
class BusyRates : public SampleRates {
 public:
  BusyRates() : SampleRates(&Clock) {
    CountDue(1, 1);
    now += 20;
    CountDue(1, 1000000);
    EXPECT_TRUE(is_busy());
  }
};

double WeightOf(uint64_t sampled_at, SizeClass size_class) {
  return static_cast<double>(uint64_t{1} << ShareShiftOf(sampled_at)) /
         SampleProbability(static_cast<double>(ClassSize(size_class)),
                           static_cast<double>(IntervalOf(sampled_at)));
}

// A program of two phases by turns, of which each allocates of its own class,
// and whose windows end when they may.
TEST(CountWindowsTest, FiguresAreUnbiased) {
  constexpr uint64_t kInterval = 1 << 19;
  constexpr SizeClass kClasses[] = {2, kLastL2Class - 8};
  constexpr int kPrograms = 400;
  constexpr int kPhases = 40;
  double sum[2] = {};
  double squares[2] = {};
  uint64_t samples = 0;
  for (uint64_t program = 0; program < kPrograms; ++program) {
    std::mt19937_64 random(program);
    BusyRates rates;
    Sampler sampler;
    sampler.Start(kInterval, &rates, program, program % 2 == 0);
    // Some begin as the others go on.
    if (program % 2 != 0) sampler.NextWindow(true);
    ASSERT_TRUE(sampler.divides());
    double estimate[2] = {};
    double real[2] = {};
    uint64_t left_of_window = random() % 3000;
    for (int phase = 0; phase < kPhases; ++phase) {
      const int which = phase % 2;
      const SizeClass size_class = kClasses[which];
      const uint64_t blocks = random() % (which == 0 ? 100000 : 5000);
      real[which] += static_cast<double>(blocks);
      for (uint64_t i = 0; i < blocks; ++i) {
        if (left_of_window-- == 0) {
          sampler.NextWindow(true);
          // Some end early.
          left_of_window = random() % 4 == 0 ? random() % 10 : random() % 3000;
        }
        if (sampler.PassBlock(size_class)) continue;
        ASSERT_TRUE(sampler.counts());
        const uint64_t taken = sampler.TakeBlock(size_class);
        ASSERT_EQ(ShareShiftOf(taken), CountWindows::kShareShift);
        estimate[which] += WeightOf(taken, size_class);
        ++samples;
      }
    }
    for (int i = 0; i < 2; ++i) {
      const double part = estimate[i] / real[i];
      sum[i] += part;
      squares[i] += part * part;
    }
  }
  EXPECT_GT(samples, 20000u);
  for (int i = 0; i < 2; ++i) {
    const double mean = sum[i] / kPrograms;
    const double deviation = std::sqrt(squares[i] / kPrograms - mean * mean);
    EXPECT_LT(deviation, 0.5);
    EXPECT_NEAR(mean, 1, 4 * deviation / std::sqrt(kPrograms)) << i;
  }
}

// Of blocks above 32 KiB there are few, each is much, and they always count.
TEST(CountWindowsTest, LargerBlocksCountAlways) {
  for (const SizeClass c : {kLastL2Class + 4, kNoClass}) {
    BusyRates rates;
    Sampler sampler;
    sampler.Start(128 << 10, &rates, 3, true);
    ASSERT_TRUE(sampler.divides());
    int samples = 0;
    for (int i = 0; i < 1000; ++i) {
      sampler.NextWindow(true);
      const uint64_t taken = sampler.Take(c, 64 << 10);
      if (taken == 0) continue;
      ++samples;
      EXPECT_EQ(ShareShiftOf(taken), 0);
    }
    EXPECT_GT(samples, 300);
    EXPECT_LT(samples, 500);
  }
}

TEST(CountWindowsTest, AllCountsAgainWhereNobodyEndsWindows) {
  BusyRates rates;
  Sampler sampler;
  sampler.Start(4096, &rates, 3, false);
  EXPECT_FALSE(sampler.divides());
  EXPECT_TRUE(sampler.WantsWindows());
  sampler.NextWindow(true);
  EXPECT_TRUE(sampler.divides());
  EXPECT_FALSE(sampler.WantsWindows());
  sampler.NextWindow(false);
  EXPECT_FALSE(sampler.divides());
  EXPECT_TRUE(sampler.counts());
  EXPECT_EQ(ShareShiftOf(sampler.TakeBlock(3)), 0);
}

// The rest is about this thread's cache, and each test leaves it as it was.
class WindowsOfThreadTest : public testing::Test {
 protected:
  WindowsOfThreadTest()
      : thread_([](OwnThread& self) {
          while (self.IsToRun()) {
            if (ThreadCache::EndWindows() == 0) {
              self.Sleep(-1, &ThreadCache::HasOpenWindows);
            }
          }
        }) {}
  ~WindowsOfThreadTest() override { ThreadCache::SetWindowThread(nullptr); }

  // This thread takes samples, in windows.
  void Begin() {
    ASSERT_TRUE(thread_cache.MayKeep());
    thread_cache.sampler().Start(1 << 19, &rates_, 1, ThreadCache::MayDivide());
    thread_cache.SetMark(ThreadCache::kBySample);
  }
  static void End() {
    thread_cache.sampler().Start(1 << 19, nullptr, 1);
    thread_cache.SetMark(ThreadCache::kNotMarked);
    EXPECT_EQ(thread_cache.SmallBin(16), kClass);
    EXPECT_EQ(thread_cache.l2_way(), L2Way::kPlain);
  }

  using L2Way = ThreadCache::L2Way;
  static constexpr SizeClass kClass = SizeToClass(16);

  BusyRates rates_;
  OwnThread thread_;  // ends windows as soon as it can
};

TEST_F(WindowsOfThreadTest, ThePlainTableStandsForAWindowThatDoesNotCount) {
  ThreadCache::SetWindowThread(&thread_);
  Begin();
  EXPECT_TRUE(thread_cache.WindowHasEnded(16));
  for (int i = 0; i < 4; ++i) {
    int counted = 0;
    for (int j = 0; j < kWindows; ++j) {
      thread_cache.NextWindow();
      EXPECT_FALSE(thread_cache.WindowHasEnded(16));
      const bool counts = thread_cache.sampler().counts();
      counted += counts ? 1 : 0;
      EXPECT_EQ(thread_cache.l2_way(),
                counts ? L2Way::kCounted : L2Way::kPlain);
      for (const size_t size : {size_t{0}, size_t{16}, kMaxTinySize}) {
        const SizeClass plain = SmallSizeToClass(size);
        EXPECT_EQ(thread_cache.SmallBin(size),
                  counts ? plain + kDoorDistance : plain);
      }
      EXPECT_TRUE(ThreadCache::HasOpenWindows());
      EXPECT_EQ(ThreadCache::EndWindows(), 1u);
      EXPECT_FALSE(ThreadCache::HasOpenWindows());
      EXPECT_EQ(ThreadCache::EndWindows(), 0u);
      EXPECT_EQ(thread_cache.l2_way(), L2Way::kMarked);
      for (const size_t size : {size_t{0}, size_t{16}, kMaxTinySize}) {
        EXPECT_TRUE(thread_cache.WindowHasEnded(size));
      }
    }
    EXPECT_EQ(counted, 1);
  }
  End();
}

// That is what the bins may have been filled with: a mebibyte.
TEST_F(WindowsOfThreadTest, EndsAfterSoManyMisses) {
  constexpr SizeClass kTiny = kLastTinyClass;
  constexpr SizeClass kL2 = kLastL2Class;
  ThreadCache::SetWindowThread(&thread_);
  Begin();
  thread_cache.NextWindow();
  ASSERT_EQ(thread_cache.bin(kTiny).capacity, 0);
  ASSERT_EQ(thread_cache.bin(kL2).capacity, 0);
  const auto expect_misses = [](SizeClass size_class, int misses) {
    for (int i = 1; i < misses; ++i) {
      ASSERT_FALSE(thread_cache.CountMiss(size_class));
    }
    EXPECT_TRUE(thread_cache.CountMiss(size_class));
    thread_cache.NextWindow();
  };
  for (int i = 0; i < 3; ++i) {
    expect_misses(kTiny, 1024);
    expect_misses(kL2, 32);
    thread_cache.bin(kTiny).capacity = 64;
    expect_misses(kTiny, 16);
    thread_cache.bin(kTiny).capacity = 0;
  }
  // Neither what always counts nor what belongs to a site has to do with it.
  for (int i = 0; i < 2000; ++i) {
    ASSERT_FALSE(thread_cache.CountMiss(kL2 + 1));
  }
  thread_cache.SetMark(5);
  for (int i = 0; i < 2000; ++i) ASSERT_FALSE(thread_cache.CountMiss(kTiny));
  End();
  for (int i = 0; i < 2000; ++i) ASSERT_FALSE(thread_cache.CountMiss(kTiny));
}

// What a scope has left belongs to the next window.
TEST_F(WindowsOfThreadTest, EndsWithAMarkOfAnotherKind) {
  ThreadCache::SetWindowThread(&thread_);
  Begin();
  thread_cache.NextWindow();
  thread_cache.SetMark(5);
  EXPECT_EQ(thread_cache.SmallBin(16), kNoClass);
  EXPECT_EQ(thread_cache.l2_way(), L2Way::kMarked);
  thread_cache.SetMark(ThreadCache::kBySample);
  EXPECT_TRUE(thread_cache.WindowHasEnded(16));
  EXPECT_EQ(thread_cache.l2_way(), L2Way::kMarked);
  thread_cache.NextWindow();
  EXPECT_FALSE(thread_cache.WindowHasEnded(16));
  End();
}

TEST_F(WindowsOfThreadTest, CountsAllWhereNobodyEndsThem) {
  Begin();
  EXPECT_FALSE(ThreadCache::MayDivide());
  EXPECT_EQ(thread_cache.SmallBin(16), kClass + kDoorDistance);
  ThreadCache::SetWindowThread(&thread_);
  thread_cache.NextWindow();
  EXPECT_TRUE(thread_cache.sampler().divides());
  ThreadCache::SetWindowThread(nullptr);
  thread_cache.NextWindow();
  EXPECT_FALSE(thread_cache.sampler().divides());
  EXPECT_EQ(thread_cache.SmallBin(16), kClass + kDoorDistance);
  EXPECT_FALSE(ThreadCache::HasOpenWindows());
  End();
}

// Were an end lost, where the two meet, this would wait for ever.
TEST_F(WindowsOfThreadTest, ThreadsSeeAllOfTheirWindowsEnd) {
  ASSERT_EQ(thread_.Start(), 0);
  ThreadCache::SetWindowThread(&thread_);
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([this] {
      Begin();
      for (int i = 0; i < 5000; ++i) {
        thread_cache.NextWindow();
        while (!thread_cache.WindowHasEnded(16)) {
          // Some begin another meanwhile.
          if (i % 3 == 0) thread_cache.NextWindow();
          // As each of malloc()'s looks is, this is another one.
          std::atomic_signal_fence(std::memory_order_seq_cst);
        }
      }
      // No End(): the last of them may be in the middle of being ended.
    });
  }
  for (std::thread& thread : threads) thread.join();
  ThreadCache::SetWindowThread(nullptr);
  thread_.Stop();
}

}  // namespace
}  // namespace hakmem
