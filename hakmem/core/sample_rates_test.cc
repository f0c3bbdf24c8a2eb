#include "hakmem/core/sample_rates.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

// The clock of these tests, which moves in steps as the system's does.
double now_milliseconds;
int64_t Clock() { return static_cast<int64_t>(now_milliseconds) / 4 * 4; }

// A program of which samples of each of some rates would be taken so often a
// second, were no rate to change.
class Program {
 public:
  Program(std::vector<uint32_t> indices, double per_second)
      : per_second_(per_second) {
    for (const uint32_t index : indices) {
      rates_.push_back({index, now_milliseconds, 0});
    }
  }

  // Lets it run; afterwards samples() are those that were taken meanwhile.
  void Run(SampleRates* rates, double milliseconds) {
    for (Rate& rate : rates_) rate.samples = 0;
    const double end = now_milliseconds + milliseconds;
    for (;;) {
      Rate* next = &rates_[0];
      for (Rate& rate : rates_) {
        if (rate.due < next->due) next = &rate;
      }
      if (next->due >= end) break;
      now_milliseconds = next->due;
      rates->Count(next->index);
      ++next->samples;
      next->due += 1000 / per_second_ * (1 << rates->doublings(next->index));
    }
    now_milliseconds = end;
  }

  void set_per_second(double per_second) { per_second_ = per_second; }

  int samples(size_t i) const { return rates_[i].samples; }
  int all_samples() const {
    int sum = 0;
    for (const Rate& rate : rates_) sum += rate.samples;
    return sum;
  }

 private:
  struct Rate {
    uint32_t index;
    double due;
    int samples;
  };

  double per_second_;
  std::vector<Rate> rates_;
};

std::vector<uint32_t> TinyRates() {
  std::vector<uint32_t> rates;
  for (SizeClass c = 1; c <= kLastTinyClass; ++c) rates.push_back(c);
  return rates;
}

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

TEST(SampleRatesTest, LeavesWhatIsNotTooMuch) {
  SampleRates rates(&Clock);
  Program program({5}, 200);
  program.Run(&rates, 20000);
  EXPECT_EQ(program.all_samples(), 4000);
}

TEST(SampleRatesTest, TakesSome250OfOneASecond) {
  SampleRates rates(&Clock);
  Program program({5}, 100000);
  program.Run(&rates, 1000);
  // Those of the start are among them.
  EXPECT_LT(program.all_samples(), 1200);
  program.Run(&rates, 1000);
  EXPECT_LE(program.all_samples(), 250);
  EXPECT_GE(program.all_samples(), 31);
}

TEST(SampleRatesTest, TakesSome2000OfAllASecond) {
  SampleRates rates(&Clock);
  Program program(TinyRates(), 6000);
  program.Run(&rates, 100);
  EXPECT_LT(program.all_samples(), 1500);
  program.Run(&rates, 4000);
  program.Run(&rates, 1000);
  EXPECT_LE(program.all_samples(), 3000);
  EXPECT_GE(program.all_samples(), 600);
}

// A rate is looked at with every 16th sample.
void CountMany(SampleRates* rates, uint32_t rate, int samples) {
  for (int i = 0; i < samples; ++i) rates->Count(rate);
}

// So many samples change nothing, and those up to the next look do.
void ExpectFirstChangeAfter(SampleRates* rates, uint32_t rate, int samples) {
  CountMany(rates, rate, samples);
  EXPECT_EQ(rates->doublings(rate), 0);
  CountMany(rates, rate, 16);
  EXPECT_GE(rates->doublings(rate), 1);
}

// Also of a size that comes later, where there are not many of all.
TEST(SampleRatesTest, TakesTheFirstOnesAsOftenAsItIsTo) {
  SampleRates rates(&Clock);
  ExpectFirstChangeAfter(&rates, 5, 511);
  EXPECT_LE(rates.doublings(5), 3);
  now_milliseconds += 10000;
  ExpectFirstChangeAfter(&rates, 6, 127);
}

TEST(SampleRatesTest, TakesFewerFirstOnesWhereThereAreManyOfAll) {
  SampleRates rates(&Clock);
  CountMany(&rates, 5, 512);
  ExpectFirstChangeAfter(&rates, 6, 31);
}

TEST(SampleRatesTest, TakesMoreAgainWhereThereAreFew) {
  SampleRates rates(&Clock);
  Program program({9}, 100000);
  program.Run(&rates, 2000);
  EXPECT_GE(rates.doublings(9), 8);
  program.set_per_second(1000);
  program.Run(&rates, 20000);
  program.Run(&rates, 1000);
  EXPECT_LE(program.all_samples(), 250);
  EXPECT_GE(program.all_samples(), 31);
  program.set_per_second(25);
  program.Run(&rates, 30000);
  EXPECT_EQ(rates.doublings(9), 0);
}

// For so long, in steps in which a sample or so is taken.
void Allocate(SampleRates* rates, double milliseconds,
              double blocks_a_millisecond) {
  constexpr double kStep = 2;
  const double end = now_milliseconds + milliseconds;
  while (now_milliseconds < end) {
    rates->CountBlocks(static_cast<uint64_t>(blocks_a_millisecond * kStep));
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
