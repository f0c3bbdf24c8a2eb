#include "hakmem/core/sample_rates.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

// The clock of these tests, which moves in steps as the system's does.
double now_milliseconds;
int64_t Clock() { return static_cast<int64_t>(now_milliseconds) / 4 * 4; }

TEST(SampleRatesTest, ClassesOfL25ShareOne) {
  EXPECT_NE(SampleRates::RateOf(1), SampleRates::RateOf(2));
  EXPECT_NE(SampleRates::RateOf(kLastTinyClass),
            SampleRates::RateOf(kLastTinyClass + 1));
  EXPECT_NE(SampleRates::RateOf(kLastTinyClass + 1),
            SampleRates::RateOf(kLastL2Class));
  EXPECT_NE(SampleRates::RateOf(kLastL2Class),
            SampleRates::RateOf(kLastL2Class + 1));
  EXPECT_EQ(SampleRates::RateOf(kLastL2Class + 1),
            SampleRates::RateOf(kLastL25Class));
  for (SizeClass c = 1; c < kNumClasses; ++c) {
    EXPECT_NE(SampleRates::RateOf(kNoClass), SampleRates::RateOf(c));
  }
}

// In steps that are as short as the clock's, or shorter.
void CountDue(SampleRates* rates, uint32_t rate, int a_second,
              double milliseconds) {
  const double end = now_milliseconds + milliseconds;
  while (now_milliseconds < end) {
    rates->CountDue(rate, 0);
    now_milliseconds += 1000. / a_second;
  }
}

TEST(SampleRatesTest, DistancesGrowWhereTooManyAreDueOfAClass) {
  SampleRates rates(&Clock);
  CountDue(&rates, 5, 1800, 10000);
  EXPECT_EQ(rates.doublings(5), 0);
  CountDue(&rates, 6, 2500, 10000);
  EXPECT_GE(rates.doublings(6), 1);
  EXPECT_EQ(rates.doublings(5), 0);
}

TEST(SampleRatesTest, DistancesGrowWhereTooManyAreDueOfAll) {
  SampleRates rates(&Clock);
  for (int i = 0; i < 32000; ++i) {
    rates.CountDue(static_cast<uint32_t>(1 + i % 40), 0);
    now_milliseconds += 1. / 28;
  }
  EXPECT_EQ(rates.doublings(1), 0);
  for (int i = 0; i < 40000; ++i) {
    rates.CountDue(static_cast<uint32_t>(1 + i % 40), 0);
    now_milliseconds += 1. / 40;
  }
  EXPECT_GE(rates.doublings(1), 1);
}

TEST(SampleRatesTest, FirstDistancesAreAsTheyAreToBe) {
  SampleRates rates(&Clock);
  for (int i = 0; i < 2047; ++i) rates.CountDue(5, 0);
  EXPECT_EQ(rates.doublings(5), 0);
  for (int i = 0; i < 128; ++i) rates.CountDue(5, 0);
  EXPECT_GE(rates.doublings(5), 1);
}

constexpr uintptr_t kCaller = 0x401136;
constexpr uintptr_t kOther = 0x401150;

// While nothing is freed, nothing is too much.
TEST(SampleRatesTest, ThinsWhatIsFreedAgainAndAgain) {
  SampleRates rates(&Clock);
  for (int i = 0; i < 4000; ++i) {
    EXPECT_EQ(rates.DoublingsOfCaller(kCaller, 5), 0);
    rates.CountDue(5, 0);
    now_milliseconds += 1;
  }
  for (int i = 0; i < 4000; ++i) {
    rates.CountFreed(kCaller, 5);
    now_milliseconds += 0.25;
  }
  EXPECT_GE(rates.DoublingsOfCaller(kCaller, 5), 3);
  EXPECT_EQ(rates.DoublingsOfCaller(kCaller, 6), 0);
  EXPECT_EQ(rates.DoublingsOfCaller(kOther, 5), 0);
  EXPECT_EQ(rates.doublings(5), 0);
}

TEST(SampleRatesTest, SamplesOfTheFirstClassAreOfTheSecond) {
  SampleRates rates(&Clock);
  for (int i = 0; i < 1000; ++i) rates.CountFreed(kCaller, PlainOf(TwinOf(1)));
  EXPECT_GE(rates.DoublingsOfCaller(kCaller, 1), 3);
  EXPECT_EQ(rates.DoublingsOfCaller(kCaller, kNoClass), 0);
}

TEST(SampleRatesTest, LeavesThemAgainWhereNoneIsFreed) {
  SampleRates rates(&Clock);
  for (int i = 0; i < 1000; ++i) rates.CountFreed(kCaller, 5);
  const int doublings = rates.DoublingsOfCaller(kCaller, 5);
  ASSERT_GE(doublings, 3);
  now_milliseconds += 400;
  EXPECT_EQ(rates.DoublingsOfCaller(kCaller, 5), doublings);
  now_milliseconds += 200;
  EXPECT_EQ(rates.DoublingsOfCaller(kCaller, 5), doublings - 1);
  for (int i = 0; i < 20; ++i) {
    now_milliseconds += 1000;
    rates.DoublingsOfCaller(kCaller, 5);
  }
  EXPECT_EQ(rates.DoublingsOfCaller(kCaller, 5), 0);
}

// For so long, in steps in which a sample or so is taken.
void Allocate(SampleRates* rates, double milliseconds,
              double blocks_a_millisecond) {
  constexpr double kStep = 2;
  const double end = now_milliseconds + milliseconds;
  while (now_milliseconds < end) {
    rates->CountDue(1, static_cast<uint64_t>(blocks_a_millisecond * kStep));
    now_milliseconds += kStep;
  }
}

TEST(SampleRatesTest, IsBusyWhileThereAreVeryManyBlocks) {
  SampleRates rates(&Clock);
  EXPECT_FALSE(rates.is_busy());
  // What was before the first block is no time of its own.
  now_milliseconds += 10000;
  Allocate(&rates, 6, 100000);
  EXPECT_FALSE(rates.is_busy());
  Allocate(&rates, 8, 100000);
  EXPECT_TRUE(rates.is_busy());
  // Half as many have to be left, lest it change all the time.
  Allocate(&rates, 100, 3500);
  EXPECT_TRUE(rates.is_busy());
  Allocate(&rates, 100, 2000);
  EXPECT_FALSE(rates.is_busy());
  Allocate(&rates, 100, 3500);
  EXPECT_FALSE(rates.is_busy());
  Allocate(&rates, 100, 8000);
  EXPECT_TRUE(rates.is_busy());
}

}  // namespace
}  // namespace hakmem
