#include "hakmem/core/rate_limiter.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

// 250 a second of one, or 62 where there are more than 2000 of all.
constexpr RateLimiter::Limits kLimits = {.of_one = 16,
                                         .of_all = 128,
                                         .enough = 128,
                                         .enough_of_many = 32,
                                         .enough_of_all = 512};

// A program in which something has some sources, and would happen so often a
// second at each of them, were no rate to change.
class Program {
 public:
  Program(size_t sources, double per_second)
      : sources_(sources), per_second_(per_second) {
    for (Source& source : sources_) {
      source.rate = std::make_unique<RateLimiter::Rate>();
    }
  }

  // Lets it run; returns how many events there were meanwhile.
  int Run(double milliseconds) {
    int events = 0;
    const double end = now_ + milliseconds;
    for (;;) {
      Source& next = *std::min_element(
          sources_.begin(), sources_.end(),
          [](const Source& a, const Source& b) { return a.due < b.due; });
      if (next.due >= end) break;
      now_ = next.due;
      limiter_.Count(next.rate.get(), Clock());
      ++events;
      next.due += 1000 / per_second_ * (1 << next.rate->halvings());
    }
    now_ = end;
    return events;
  }

  void set_per_second(double per_second) { per_second_ = per_second; }
  int halvings(size_t source) const {
    return sources_[source].rate->halvings();
  }

 private:
  struct Source {
    std::unique_ptr<RateLimiter::Rate> rate;
    double due = 0;
  };

  // Moves in steps as the system's does.
  uint32_t Clock() const { return static_cast<uint32_t>(now_) / 4 * 4; }

  RateLimiter limiter_{kLimits};
  std::vector<Source> sources_;
  double per_second_;
  double now_ = 0;
};

TEST(RateLimiterTest, LeavesWhatIsNotTooMuch) {
  Program program(1, 200);
  EXPECT_EQ(program.Run(20000), 4000);
}

TEST(RateLimiterTest, LeavesSome250OfOneASecond) {
  Program program(1, 100000);
  // Those of the start are among them.
  EXPECT_LT(program.Run(1000), 1200);
  const int events = program.Run(1000);
  EXPECT_LE(events, 250);
  EXPECT_GE(events, 31);
}

TEST(RateLimiterTest, LeavesSome2000OfAllASecond) {
  Program program(21, 6000);
  EXPECT_LT(program.Run(100), 1500);
  program.Run(4000);
  const int events = program.Run(1000);
  EXPECT_LE(events, 3000);
  EXPECT_GE(events, 600);
}

TEST(RateLimiterTest, LeavesMoreAgainWhereThereAreFew) {
  Program program(1, 100000);
  program.Run(2000);
  EXPECT_GE(program.halvings(0), 8);
  program.set_per_second(1000);
  program.Run(20000);
  const int events = program.Run(1000);
  EXPECT_LE(events, 250);
  EXPECT_GE(events, 31);
  program.set_per_second(25);
  program.Run(30000);
  EXPECT_EQ(program.halvings(0), 0);
}

// A rate is looked at with every 16th event.
void CountMany(RateLimiter* limiter, RateLimiter::Rate* rate, int events,
               uint32_t now) {
  for (int i = 0; i < events; ++i) limiter->Count(rate, now);
}

// So many events change nothing, and those up to the next look do.
void ExpectFirstChangeAfter(RateLimiter* limiter, RateLimiter::Rate* rate,
                            int events, uint32_t now) {
  CountMany(limiter, rate, events, now);
  EXPECT_EQ(rate->halvings(), 0);
  CountMany(limiter, rate, 16, now);
  EXPECT_GE(rate->halvings(), 1);
}

// Also of a source that comes later, where there are not many of all.
TEST(RateLimiterTest, LeavesTheFirstOnes) {
  RateLimiter limiter(kLimits);
  RateLimiter::Rate first;
  RateLimiter::Rate later;
  ExpectFirstChangeAfter(&limiter, &first, 511, 0);
  EXPECT_LE(first.halvings(), 3);
  ExpectFirstChangeAfter(&limiter, &later, 127, 10000);
}

TEST(RateLimiterTest, LeavesFewerFirstOnesWhereThereAreManyOfAll) {
  RateLimiter limiter(kLimits);
  RateLimiter::Rate first;
  RateLimiter::Rate later;
  CountMany(&limiter, &first, 512, 0);
  ExpectFirstChangeAfter(&limiter, &later, 31, 0);
}

// Half a second for 16 of it is too little, two where there are many of all.
TEST(RateLimiterTest, RelaxesWhatIsNotCounted) {
  RateLimiter limiter(kLimits);
  RateLimiter::Rate rate;
  CountMany(&limiter, &rate, 1024, 0);
  const int halvings = rate.halvings();
  ASSERT_GE(halvings, 6);
  limiter.Relax(&rate, 512);
  EXPECT_EQ(rate.halvings(), halvings);
  limiter.Relax(&rate, 513);
  EXPECT_EQ(rate.halvings(), halvings - 1);
  limiter.Relax(&rate, 1025);
  EXPECT_EQ(rate.halvings(), halvings - 1);
  limiter.Relax(&rate, 3074);
  EXPECT_EQ(rate.halvings(), halvings - 3);
  RateLimiter::Rate many;
  CountMany(&limiter, &many, 256, 4000);
  limiter.Relax(&rate, 4000);
  EXPECT_EQ(rate.halvings(), halvings - 3);
  for (uint32_t now = 10000; now < 30000; now += 1000) {
    limiter.Relax(&rate, now);
  }
  EXPECT_EQ(rate.halvings(), 0);
}

}  // namespace
}  // namespace hakmem
