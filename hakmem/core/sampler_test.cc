#include "hakmem/core/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

constexpr uint64_t kInterval = 4096;

// For Take().
SizeClass SizeClassOf(uint64_t bytes) {
  const bool has_class = bytes > kMaxL2Size && bytes <= kMaxPooledSize;
  return has_class ? SizeToClass(bytes) : kNoClass;
}

// Within five standard deviations of what is expected of `n` blocks.
void ExpectShare(uint64_t samples, uint64_t n, uint64_t bytes) {
  const double p = -std::expm1(-static_cast<double>(bytes) / kInterval);
  const double mean = static_cast<double>(n) * p;
  EXPECT_NEAR(static_cast<double>(samples), mean,
              5 * std::sqrt(mean * (1 - p)) + 1)
      << bytes;
}

// Counts blocks of a class to the next sample, which is one of them.
uint64_t BlocksToSample(Sampler* sampler, SizeClass size_class) {
  uint64_t blocks = 1;
  while (sampler->PassBlock(size_class)) ++blocks;
  return blocks;
}

TEST(SamplerTest, SamplesBlocksByTheirSize) {
  Sampler sampler;
  sampler.Start(kInterval, nullptr, 1);
  for (const uint64_t bytes : {1280, 4096, 40960, 1 << 20, 1 << 21}) {
    constexpr uint64_t kBlocks = 200000;
    uint64_t samples = 0;
    for (uint64_t i = 0; i < kBlocks; ++i) {
      samples += sampler.Take(SizeClassOf(bytes), bytes) != 0 ? 1 : 0;
    }
    ExpectShare(samples, kBlocks, bytes);
  }
}

// Whether blocks of one size come alone or among others.
TEST(SamplerTest, IsNotMovedByWhatElseIsAllocated) {
  Sampler sampler;
  sampler.Start(kInterval, nullptr, 2);
  constexpr uint64_t kRounds = 200000;
  uint64_t small = 0;
  uint64_t large = 0;
  for (uint64_t i = 0; i < kRounds; ++i) {
    small += sampler.Take(kNoClass, 64) != 0 ? 1 : 0;
    large += sampler.Take(kNoClass, 8192) != 0 ? 1 : 0;
  }
  ExpectShare(small, kRounds, 64);
  ExpectShare(large, kRounds, 8192);
}

TEST(SamplerTest, CountsBlocksOfAClassDown) {
  Sampler sampler;
  sampler.Start(kInterval, nullptr, 3);
  for (const SizeClass c : {SizeClass{1}, SizeClass{5}, kLastTinyClass,
                            SizeToClass(2048), Sampler::kLastCounted}) {
    constexpr uint64_t kSamples = 20000;
    uint64_t blocks = 0;
    for (uint64_t i = 0; i < kSamples; ++i) {
      EXPECT_FALSE(sampler.IsDue(c));
      blocks += BlocksToSample(&sampler, c);
      EXPECT_TRUE(sampler.IsDue(c));
      // It is the same sample until it is taken.
      EXPECT_FALSE(sampler.PassBlock(c));
      EXPECT_EQ(sampler.TakeBlock(c), kInterval);
    }
    ExpectShare(kSamples, blocks, ClassSize(c));
  }
}

// What malloc() has in a register, a door or not, leads to its class's
// countdown or to none.
TEST(SamplerTest, CountsByDoorsAndNothingElse) {
  Sampler sampler;
  Sampler by_class;
  for (size_t bin = 0; bin <= kLastTinyClass; ++bin) {
    EXPECT_FALSE(sampler.PassByDoor(bin));
  }
  sampler.Start(kInterval, nullptr, 13);
  by_class.Start(kInterval, nullptr, 13);
  int unsure = 0;
  for (int round = 0; round < 10000; ++round) {
    for (size_t bin = 0; bin <= kLastTinyClass; ++bin) {
      ASSERT_FALSE(sampler.PassByDoor(bin));
    }
    for (SizeClass c = 1; c <= Sampler::kLastCounted; ++c) {
      const bool passes = by_class.PassBlock(c);
      const bool passes_at_once = c <= kLastTinyClass
                                      ? sampler.PassByDoor(c + kDoorDistance)
                                      : sampler.PassL2Block(c);
      ASSERT_EQ(sampler.IsDue(c), !passes);
      if (passes) {
        // The first of each may need to be asked for twice.
        if (!passes_at_once) ++unsure;
        continue;
      }
      ASSERT_FALSE(passes_at_once);
      sampler.TakeBlock(c);
      by_class.TakeBlock(c);
    }
  }
  EXPECT_GT(unsure, 0);
  EXPECT_LE(unsure, static_cast<int>(Sampler::kLastCounted));
}

// The way of L25, but for its first block, which it leaves to Take().
TEST(SamplerTest, CountsL25AsTheOthers) {
  constexpr SizeClass kClass = kLastL2Class + 3;
  Sampler sampler;
  Sampler by_size;
  sampler.Start(kMaxPooledSize, nullptr, 14);
  by_size.Start(kMaxPooledSize, nullptr, 14);
  EXPECT_FALSE(sampler.PassL25Block(kClass));
  EXPECT_EQ(sampler.Take(kClass, ClassSize(kClass)),
            by_size.Take(kClass, ClassSize(kClass)));
  int samples = 0;
  for (int i = 0; i < 10000; ++i) {
    const bool passes = by_size.Passes(kClass, ClassSize(kClass));
    ASSERT_EQ(sampler.PassL25Block(kClass), passes);
    if (passes) continue;
    ++samples;
    ASSERT_NE(sampler.Take(kClass, ClassSize(kClass)), 0u);
    ASSERT_NE(by_size.Take(kClass, ClassSize(kClass)), 0u);
  }
  EXPECT_GT(samples, 100);
}

// Asking first and taking then makes the same samples.
TEST(SamplerTest, PassesWhatItWouldNotTake) {
  Sampler taking;
  Sampler asked;
  taking.Start(kInterval, nullptr, 9);
  asked.Start(kInterval, nullptr, 9);
  int samples = 0;
  for (int i = 0; i < 10000; ++i) {
    const uint64_t bytes = i % 3 == 0 ? 1280 : 40960;
    const SizeClass size_class = SizeClassOf(bytes);
    const bool is_sample = taking.Take(size_class, bytes) != 0;
    ASSERT_EQ(asked.Passes(size_class, bytes), !is_sample);
    if (!is_sample) continue;
    ++samples;
    EXPECT_FALSE(asked.Passes(size_class, bytes));
    EXPECT_EQ(asked.Take(size_class, bytes), kInterval);
  }
  EXPECT_GT(samples, 1000);
}

// The distances' variance is the square of their mean.
TEST(SamplerTest, DistancesAreExponential) {
  Sampler sampler;
  sampler.Start(kInterval, nullptr, 4);
  double sum = 0;
  double squares = 0;
  constexpr int kSamples = 100000;
  for (int i = 0; i < kSamples; ++i) {
    const auto distance = static_cast<double>(BlocksToSample(&sampler, 1)) * 8;
    sum += distance;
    squares += distance * distance;
    sampler.TakeBlock(1);
  }
  const double mean = sum / kSamples;
  EXPECT_NEAR(mean / kInterval, 1, 0.02);
  EXPECT_NEAR((squares / kSamples - mean * mean) / (mean * mean), 1, 0.05);
}

TEST(SamplerTest, SeedsSayWhichBlocks) {
  Sampler a;
  Sampler b;
  Sampler c;
  a.Start(kInterval, nullptr, 5);
  b.Start(kInterval, nullptr, 5);
  c.Start(kInterval, nullptr, 6);
  int same = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t distance = BlocksToSample(&a, 3);
    EXPECT_EQ(distance, BlocksToSample(&b, 3));
    same += distance == BlocksToSample(&c, 3) ? 1 : 0;
    a.TakeBlock(3);
    b.TakeBlock(3);
    c.TakeBlock(3);
  }
  EXPECT_LT(same, 100);
}

// Whatever was allocated of a size before, its first blocks have the chance
// that all have.
TEST(SamplerTest, FirstBlocksAreSampledAsOthersAre) {
  constexpr SizeClass kClasses[] = {4, kLastTinyClass, kLastL2Class,
                                    kLastL25Class, kNoClass};
  constexpr uint64_t kSeeds = 20000;
  for (const SizeClass c : kClasses) {
    const uint64_t bytes = c == kNoClass ? 3 << 20 : ClassSize(c);
    // Half of the blocks are samples.
    const auto interval =
        static_cast<uint64_t>(static_cast<double>(bytes) / std::log(2));
    uint64_t samples = 0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      Sampler sampler;
      sampler.Start(interval, nullptr, seed);
      if (seed % 2 == 0) sampler.PassBlock(5);
      const bool passes = c != kNoClass && c <= Sampler::kLastCounted
                              ? sampler.PassBlock(c)
                              : sampler.Take(c, bytes) == 0;
      samples += passes ? 0 : 1;
    }
    EXPECT_NEAR(static_cast<double>(samples) / kSeeds, 0.5,
                2.5 / std::sqrt(kSeeds))
        << c;
  }
}

// Threads are numbered from 0 on.
TEST(SamplerTest, NeighbouringSeedsBeginFarApart) {
  double sum = 0;
  int alike = 0;  // above the median as the one before, or below it as well
  bool above_before = false;
  constexpr uint64_t kSeeds = 1000;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Sampler sampler;
    sampler.Start(kInterval, nullptr, seed);
    const double distance =
        static_cast<double>(BlocksToSample(&sampler, 1)) * 8 / kInterval;
    const bool above = distance > std::log(2);
    sum += distance;
    alike += above == above_before ? 1 : 0;
    above_before = above;
  }
  EXPECT_NEAR(sum / kSeeds, 1, 5 / std::sqrt(kSeeds));
  EXPECT_NEAR(static_cast<double>(alike) / kSeeds, 0.5,
              2.5 / std::sqrt(kSeeds));
}

// Time stands still, so there are too many of them at once.
int64_t Midnight() { return 0; }

// However fast samples come, and each with the interval that it was taken at.
TEST(SamplerTest, TakesFewerWhereThereAreManyAndSaysSo) {
  SampleRates rates(&Midnight);
  Sampler sampler;
  sampler.Start(kInterval, &rates, 7);
  uint64_t interval = kInterval;
  for (int i = 0; i < 4096; ++i) {
    const uint64_t taken_at = sampler.TakeBlock(SizeToClass(2048));
    EXPECT_GE(taken_at, interval);
    interval = taken_at;
  }
  EXPECT_GE(interval, 1024 * kInterval);
  // Other sizes are sampled as before.
  EXPECT_EQ(sampler.TakeBlock(3), kInterval);
}

// What is counted of many programs, of which each allocates as much, is what
// they have allocated: also where most of it comes when the distance has grown.
TEST(SamplerTest, IsUnbiasedWhileItAdapts) {
  constexpr uint64_t kBytes = 2048;
  constexpr SizeClass kClass = SizeToClass(kBytes);
  constexpr int kPrograms = 500;
  constexpr int kBlocks = 50000;
  double sum = 0;
  double squares = 0;
  uint64_t most = 0;
  for (int program = 0; program < kPrograms; ++program) {
    SampleRates rates(&Midnight);
    Sampler sampler;
    sampler.Start(kInterval, &rates, static_cast<uint64_t>(program));
    double estimate = 0;
    for (int i = 0; i < kBlocks; ++i) {
      if (sampler.PassBlock(kClass)) continue;
      const uint64_t taken_at = sampler.TakeBlock(kClass);
      most = std::max(most, taken_at);
      estimate += 1 / -std::expm1(-static_cast<double>(kBytes) /
                                  static_cast<double>(taken_at));
    }
    estimate /= kBlocks;
    sum += estimate;
    squares += estimate * estimate;
  }
  ASSERT_GE(most, 64 * kInterval);
  const double mean = sum / kPrograms;
  const double deviation = std::sqrt(squares / kPrograms - mean * mean);
  EXPECT_LT(deviation, 0.5);
  EXPECT_NEAR(mean, 1, 4 * deviation / std::sqrt(kPrograms));
}

TEST(SamplerTest, DoesNotAdaptUnlessItIsTo) {
  Sampler sampler;
  sampler.Start(kInterval, nullptr, 8);
  for (int i = 0; i < 20000; ++i) {
    EXPECT_EQ(sampler.TakeBlock(3), kInterval);
    EXPECT_EQ(sampler.Thin(0x401136, 3, kInterval), kInterval);
  }
}

// So that they are as far apart as the caller's are to be, each of them written
// as how many it stands for.
TEST(SamplerTest, ThinsWhatIsDue) {
  constexpr uintptr_t kCaller = 0x401136;
  SampleRates rates(&Midnight);
  Sampler sampler;
  sampler.Start(kInterval, &rates, 9);
  const uint64_t due = SampledAt(kInterval / 8, 3);
  EXPECT_EQ(sampler.Thin(kCaller, 3, due), due);
  while (rates.DoublingsOfCaller(kCaller, 3) < 4) rates.CountFreed(kCaller, 3);
  const int doublings = rates.DoublingsOfCaller(kCaller, 3);
  ASSERT_LE(doublings, 6);
  // The class's have doubled as often, or so often less.
  for (int less = 0; less <= doublings; ++less) {
    const uint64_t interval = (kInterval << (doublings - less)) / 8;
    constexpr int kDue = 100000;
    int taken = 0;
    for (int i = 0; i < kDue; ++i) {
      const uint64_t sampled_at =
          sampler.Thin(kCaller, 3, SampledAt(interval, 3));
      if (sampled_at == 0) continue;
      EXPECT_EQ(sampled_at, SampledAt(interval, 3 + less));
      ++taken;
    }
    const double mean = std::ldexp(kDue, -less);
    EXPECT_NEAR(taken, mean, less == 0 ? 0 : 5 * std::sqrt(mean));
  }
  const uint64_t further = SampledAt(kInterval << doublings, 0);
  EXPECT_EQ(sampler.Thin(kCaller, 3, further), further);
  EXPECT_EQ(sampler.Thin(kCaller, 4, due), due);
}

}  // namespace
}  // namespace hakmem
