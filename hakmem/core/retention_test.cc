#include "hakmem/core/retention.h"

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

constexpr int64_t kSecond = 1000;
constexpr int64_t kPeriod = 100;
constexpr size_t kAny = SIZE_MAX;  // a swing beyond all bounds

TEST(RetentionTest, WhatWasTakenBackMayStayTheNextTime) {
  Retention retention;
  EXPECT_EQ(retention.Bound(10, kAny, 5 * kSecond), 10u);
  retention.Regret(100, 1000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(10, kAny, 5 * kSecond), 110u);
  retention.Regret(40, 1000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(10, kAny, 5 * kSecond), 150u);
  retention.Regret(4000, 1000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(10, kAny, 5 * kSecond), 1010u)
      << "more than there is";
}

TEST(RetentionTest, NoMoreStaysThanDemandSwings) {
  Retention retention;
  retention.Regret(100, 1000, 5 * kSecond);
  EXPECT_EQ(retention.Bound(10, 30, 5 * kSecond), 40u);
  EXPECT_EQ(retention.Bound(10, 0, 5 * kSecond), 10u);
  EXPECT_EQ(retention.Bound(10, 200, 5 * kSecond), 110u) << "not forgotten";
  EXPECT_EQ(retention.Bound(10, 64, 5 * kSecond), 76u) << "a 32nd more";
}

TEST(RetentionTest, RegretHalvesWithEverySecond) {
  Retention retention;
  retention.Regret(1024, 4096, 7 * kSecond);
  EXPECT_EQ(retention.Bound(0, kAny, 7 * kSecond + 999), 1024u);
  EXPECT_EQ(retention.Bound(0, kAny, 8 * kSecond), 512u);
  EXPECT_EQ(retention.Bound(0, kAny, 11 * kSecond), 64u);
  retention.Regret(1, 4096, 11 * kSecond);
  EXPECT_EQ(retention.Bound(0, kAny, 11 * kSecond), 65u);
  EXPECT_EQ(retention.Bound(0, kAny, 1000 * kSecond), 0u);
}

TEST(RetentionTest, SomeRememberTogether) {
  std::atomic<size_t> together{0};
  Retention granules(together, 16);
  Retention single(together, 1);
  Retention alone;
  granules.Regret(10, 1000, 5 * kSecond);
  single.Regret(40, 1000, 5 * kSecond);
  EXPECT_EQ(single.Bound(7, kAny, 5 * kSecond), 7 + 160 + 40u);
  EXPECT_EQ(granules.Bound(7, kAny, 5 * kSecond), 7 + 10 + 2u);
  EXPECT_EQ(granules.Bound(7, 3, 5 * kSecond), 10u);
  EXPECT_EQ(alone.Bound(7, kAny, 5 * kSecond), 7u);

  EXPECT_EQ(single.Bound(0, kAny, 6 * kSecond), 160 + 20u) << "its own part";
  EXPECT_EQ(granules.Bound(0, kAny, 6 * kSecond), 5 + 1u);
  granules.Reconsider(100, kPeriod, 6 * kSecond);
  granules.Reconsider(100, kPeriod, 6 * kSecond + kPeriod);
  EXPECT_EQ(single.Bound(0, kAny, 6 * kSecond), 20u) << "not needed";
  EXPECT_EQ(single.Bound(0, kAny, 100 * kSecond), 0u);
  EXPECT_EQ(together, 0u);
}

TEST(RetentionTest, WhatWasNotNeededIsForgottenSooner) {
  Retention retention;
  retention.Regret(100, 1000, 1000);
  retention.Reconsider(90, kPeriod, 1000);
  retention.Taken(30);
  retention.Taken(50);
  retention.Reconsider(90, kPeriod, 1000 + kPeriod / 4 - 1);
  EXPECT_EQ(retention.Bound(10, kAny, 1000), 110u) << "too early";
  retention.Reconsider(90, kPeriod, 1000 + kPeriod / 4);
  EXPECT_EQ(retention.Bound(10, kAny, 1000), 80u);
  retention.Taken(0);
  retention.Reconsider(90, kPeriod, 1000 + kPeriod / 2);
  EXPECT_EQ(retention.Bound(10, kAny, 1000), 80u) << "all was needed";
  retention.Reconsider(90, kPeriod, 1000 + kPeriod);
  EXPECT_EQ(retention.Bound(10, kAny, 1000), 10u)
      << "no less than the plain one";
}

TEST(RetentionTest, SurplusIsWhatWasThereAllTheTime) {
  Retention retention;
  EXPECT_EQ(retention.Surplus(50, kPeriod, 1000), 0u)
      << "nobody knows since when it was there";
  retention.Taken(30);
  retention.Taken(20);
  retention.Taken(40);
  EXPECT_EQ(retention.Surplus(60, kPeriod, 1050), 0u) << "too early";
  EXPECT_EQ(retention.Surplus(60, kPeriod, 1100), 20u);
  // Nobody took anything in this window.
  EXPECT_EQ(retention.Surplus(60, kPeriod, 1300), 60u);
  retention.Taken(0);
  EXPECT_EQ(retention.Surplus(60, kPeriod, 1400), 0u);
}

TEST(RetentionTest, SurplusIsNoMoreThanThereIs) {
  Retention retention;
  retention.Surplus(100, kPeriod, 1000);
  EXPECT_EQ(retention.Surplus(70, kPeriod, 2000), 70u);
}

}  // namespace
}  // namespace hakmem
