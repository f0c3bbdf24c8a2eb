#include "hakmem/core/retention.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

constexpr int64_t kSecond = 1000;
constexpr int64_t kPeriod = 100;
constexpr size_t kSpan = 1000;

TEST(RetentionTest, WhatWasTakenBackMayStayTheNextTime) {
  Retention retention;
  EXPECT_EQ(retention.Bound(10, 5 * kSecond), 10u);
  retention.Purged(0);
  retention.Regret(160, 0, 10000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(10, 5 * kSecond), 170u) << "a sixteenth more";
  EXPECT_EQ(retention.Bound(1000, 5 * kSecond), 1000u);
  retention.Regret(160, 0, 10000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(10, 5 * kSecond), 340u);
  retention.Regret(40000, 0, 1000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(10, 5 * kSecond), 1000u) << "more than there is";
}

TEST(RetentionTest, WhatWasKeptCountsAndWhatIsLeftDoesNot) {
  Retention retention;
  retention.Purged(100);
  retention.Regret(80, 20, 10000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(0, 5 * kSecond), 170u);
  // There was enough that had not been purged.
  retention.Purged(500);
  retention.Regret(80, 480, 10000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(0, 5 * kSecond), 170u);
}

TEST(RetentionTest, TheDeepestTroughCountsNotTheNumberOfThem) {
  Retention retention;
  for (int i = 0; i < 10; ++i) {
    retention.Purged(0);
    retention.Regret(32, 0, 1000, 5 * kSecond);
    retention.Regret(32, 0, 1000, 5 * kSecond);
  }
  EXPECT_EQ(retention.Bound(0, 5 * kSecond), 68u);
}

TEST(RetentionTest, RegretHalvesWithEverySecond) {
  Retention retention;
  retention.Regret(960, 0, 4096, 7 * kSecond);
  retention.Purged(0);
  EXPECT_EQ(retention.Bound(0, 7 * kSecond + 999), 1020u);
  EXPECT_EQ(retention.Bound(0, 8 * kSecond), 510u);
  EXPECT_EQ(retention.Bound(0, 11 * kSecond), 63u);
  EXPECT_EQ(retention.Bound(0, 1000 * kSecond), 0u);
}

TEST(RetentionTest, SurplusIsWhatWasThereAllTheTime) {
  Retention retention;
  EXPECT_EQ(retention.Surplus(50, 0, kSpan, kPeriod, 1000), 0u)
      << "before the first window";
  retention.Taken(20, 30);
  retention.Taken(10, 20);
  retention.Taken(20, 40);
  EXPECT_EQ(retention.Surplus(60, 0, kSpan, kPeriod, 1050), 0u) << "too early";
  EXPECT_EQ(retention.Surplus(60, 0, kSpan, kPeriod, 1100), 20u);
  // Nobody took anything in this window.
  EXPECT_EQ(retention.Surplus(60, 0, kSpan, kPeriod, 1300), 60u);
  retention.Taken(60, 0);
  EXPECT_EQ(retention.Surplus(60, 0, kSpan, kPeriod, 1400), 0u);
}

TEST(RetentionTest, SurplusIsNoMoreThanThereIs) {
  Retention retention;
  retention.Surplus(100, 0, kSpan, kPeriod, 1000);
  EXPECT_EQ(retention.Surplus(70, 0, kSpan, kPeriod, 2000), 70u);
}

TEST(RetentionTest, WhatIsRegrettedOutlastsIdleTime) {
  Retention retention;
  retention.Surplus(0, 0, kSpan, kPeriod, 7 * kSecond);
  retention.Regret(80, 0, 80, 7 * kSecond);
  retention.Surplus(100, 0, kSpan, kPeriod, 7 * kSecond + 100);
  EXPECT_EQ(retention.Surplus(100, 0, kSpan, kPeriod, 7 * kSecond + 200), 20u);
  EXPECT_EQ(retention.Surplus(80, 0, kSpan, kPeriod, 8 * kSecond), 40u);
}

TEST(RetentionTest, WorkEndsWhatIsRegrettedAndNotUsed) {
  Retention retention;
  retention.Surplus(0, 0, kSpan, kPeriod, 1000);
  retention.Regret(80, 0, 80, 1000);
  // The rest of a window that began before any of this was free; it was not
  // used either.
  EXPECT_EQ(retention.Surplus(100, kSpan + 1, kSpan, kPeriod, 1010), 0u);
  EXPECT_EQ(retention.Surplus(100, 2 * kSpan + 1, kSpan, kPeriod, 1020), 0u)
      << "the window is not over";
  // 30 of the 100 were used, so that is what is worth keeping.
  retention.Taken(30, 70);
  EXPECT_EQ(retention.Surplus(100, 2 * kSpan + 2, kSpan, kPeriod, 1030), 70u);
  EXPECT_EQ(retention.Bound(0, 1030), 30u);
  retention.Purged(30);
  EXPECT_EQ(retention.Surplus(30, 3 * kSpan + 3, kSpan, kPeriod, 1040), 30u);
  EXPECT_EQ(retention.Bound(0, 1040), 15u);
}

TEST(RetentionTest, WorkKeepsWhatIsUsed) {
  Retention retention;
  retention.Surplus(0, 0, kSpan, kPeriod, 1000);
  retention.Regret(80, 0, 80, 1000);
  size_t work = 0;
  for (int round = 0; round < 5; ++round) {
    retention.Taken(80, 0);
    work += kSpan + 1;
    EXPECT_EQ(retention.Surplus(80, work, kSpan, kPeriod, 1001), 0u);
    EXPECT_EQ(retention.Bound(0, 1001), 80u);
  }
}

}  // namespace
}  // namespace hakmem
