#include "hakmem/core/sampler.h"

#include <cmath>
#include <cstdint>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

constexpr uint64_t kInterval = 4096;

// Within five standard deviations of what is expected of `n` blocks.
void ExpectShare(uint64_t samples, uint64_t n, uint64_t bytes) {
  const double p = -std::expm1(-static_cast<double>(bytes) / kInterval);
  const double mean = static_cast<double>(n) * p;
  EXPECT_NEAR(static_cast<double>(samples), mean,
              5 * std::sqrt(mean * (1 - p)) + 1)
      << bytes;
}

TEST(SamplerTest, SamplesBlocksByTheirSize) {
  Sampler sampler;
  EXPECT_FALSE(sampler.started());
  sampler.Start(kInterval, 1);
  EXPECT_TRUE(sampler.started());
  for (const uint64_t bytes : {48, 1280, 4096, 20480, 1 << 20}) {
    constexpr uint64_t kBlocks = 200000;
    uint64_t samples = 0;
    for (uint64_t i = 0; i < kBlocks; ++i) {
      samples += sampler.Takes(bytes) ? 1 : 0;
    }
    ExpectShare(samples, kBlocks, bytes);
  }
}

// Whether blocks of one size come alone or among others.
TEST(SamplerTest, IsNotMovedByWhatElseIsAllocated) {
  Sampler sampler;
  sampler.Start(kInterval, 2);
  constexpr uint64_t kRounds = 200000;
  uint64_t small = 0;
  uint64_t large = 0;
  for (uint64_t i = 0; i < kRounds; ++i) {
    small += sampler.Takes(64) ? 1 : 0;
    large += sampler.Takes(8192) ? 1 : 0;
  }
  ExpectShare(small, kRounds, 64);
  ExpectShare(large, kRounds, 8192);
}

TEST(SamplerTest, CountsBlocksOfAClassDown) {
  Sampler sampler;
  sampler.Start(kInterval, 3);
  for (const SizeClass c : {SizeClass{1}, SizeClass{5}, kLastTinyClass}) {
    constexpr uint64_t kSamples = 20000;
    uint64_t blocks = 0;
    for (uint64_t i = 0; i < kSamples; ++i) {
      blocks += sampler.BlocksUntil(c) + 1;
      sampler.Pass(c, sampler.BlocksUntil(c));
      EXPECT_EQ(sampler.BlocksUntil(c), 0u);
      sampler.PassSample(c);
    }
    ExpectShare(kSamples, blocks, ClassSize(c));
  }
}

// The distances' variance is the square of their mean.
TEST(SamplerTest, DistancesAreExponential) {
  Sampler sampler;
  sampler.Start(1 << 20, 4);
  double sum = 0;
  double squares = 0;
  constexpr int kSamples = 100000;
  for (int i = 0; i < kSamples; ++i) {
    const auto distance = static_cast<double>(sampler.BlocksUntil(1)) * 8;
    sum += distance;
    squares += distance * distance;
    sampler.PassSample(1);
  }
  const double mean = sum / kSamples;
  EXPECT_NEAR(mean / (1 << 20), 1, 0.02);
  EXPECT_NEAR((squares / kSamples - mean * mean) / (mean * mean), 1, 0.05);
}

TEST(SamplerTest, SeedsSayWhichBlocks) {
  Sampler a;
  Sampler b;
  Sampler c;
  a.Start(kInterval, 5);
  b.Start(kInterval, 5);
  c.Start(kInterval, 6);
  int same = 0;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(a.BlocksUntil(3), b.BlocksUntil(3));
    same += a.BlocksUntil(3) == c.BlocksUntil(3) ? 1 : 0;
    a.PassSample(3);
    b.PassSample(3);
    c.PassSample(3);
  }
  EXPECT_LT(same, 100);
}

}  // namespace
}  // namespace hakmem
