#include "hakmem/core/demand.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

constexpr int64_t kPeriod = 100;

TEST(DemandTest, IsTheSumOfItsParts) {
  Demand demand;
  demand.Add(0, 1000);
  demand.Add(2, 500);
  demand.Add(Demand::kLarge, 70000);
  demand.Add(0, -300);
  EXPECT_EQ(demand.bytes(), 71200u);
}

TEST(DemandTest, KnowsThePeakOfThisPeriodAndTheLast) {
  Demand demand;
  demand.Add(0, 8000);
  demand.Note(kPeriod, 1000);
  demand.Add(0, -7000);
  EXPECT_EQ(demand.Swing(kPeriod, 1010), 7000u);
  demand.Add(1, 3000);
  EXPECT_EQ(demand.Swing(kPeriod, 1099), 4000u) << "in all parts together";
  EXPECT_EQ(demand.Swing(kPeriod, 1100), 4000u) << "the period before";
  EXPECT_EQ(demand.Swing(kPeriod, 1199), 4000u);
  EXPECT_EQ(demand.Swing(kPeriod, 1200), 0u) << "forgotten";
}

TEST(DemandTest, APeakBeforeAPauseIsForgotten) {
  Demand demand;
  demand.Add(0, 8000);
  demand.Note(kPeriod, 1000);
  demand.Add(0, -7000);
  EXPECT_EQ(demand.Swing(kPeriod, 1300), 0u);
}

TEST(DemandTest, WhatIsNotNotedIsNoPeak) {
  Demand demand;
  demand.Add(0, 1000);
  demand.Note(kPeriod, 1000);
  demand.Add(0, 7000);
  demand.Add(0, -7500);
  EXPECT_EQ(demand.Swing(kPeriod, 1000), 500u);
}

TEST(DemandTest, SmallUpsAndDownsAreSteady) {
  Demand demand;
  demand.Add(0, 16000);
  demand.Note(kPeriod, 1000);
  demand.Add(0, -999);
  EXPECT_EQ(demand.Swing(kPeriod, 1000), 0u) << "less than a sixteenth";
  demand.Add(0, -1);
  EXPECT_EQ(demand.Swing(kPeriod, 1000), 1000u);
  demand.Add(0, 400);
  EXPECT_EQ(demand.Swing(kPeriod, 1000), 600u)
      << "what counts is how far it went";
  EXPECT_EQ(demand.Swing(kPeriod, 1150), 600u);
  EXPECT_EQ(demand.Swing(kPeriod, 1250), 0u) << "the fall is forgotten";
}

TEST(RecentLevelsTest, SaysHowFarBelowThePeakItIs) {
  RecentLevels levels;
  levels.Note(16000, kPeriod, 1000);
  EXPECT_EQ(levels.Below(15001, 1, kPeriod, 1010), 0u) << "steady";
  EXPECT_EQ(levels.Below(4000, 1, kPeriod, 1020), 12000u);
  EXPECT_EQ(levels.Below(14000, 1, kPeriod, 1030), 2000u) << "growth is none";
  EXPECT_EQ(levels.Swing(14000, kPeriod, 1030), 10000u);
  EXPECT_EQ(levels.Below(5000, 2, kPeriod, 1030), 3000u) << "half of it";
  EXPECT_EQ(levels.Below(8001, 2, kPeriod, 1030), 0u);
  EXPECT_EQ(levels.Below(20000, 1, kPeriod, 1040), 0u) << "a new peak";
  EXPECT_EQ(levels.Below(19000, 1, kPeriod, 1199), 1000u)
      << "the period before";
  EXPECT_EQ(levels.Below(4000, 1, kPeriod, 1400), 0u) << "forgotten";
}

TEST(DemandTest, GrowthIsASwingToo) {
  Demand demand;
  demand.Add(0, 1000);
  demand.Note(kPeriod, 1000);
  demand.Add(0, 5000);
  EXPECT_EQ(demand.Swing(kPeriod, 1010), 5000u);
  demand.Add(0, -1000);
  EXPECT_EQ(demand.Swing(kPeriod, 1020), 4000u)
      << "less than the peak is above";
  demand.Add(0, -3500);
  EXPECT_EQ(demand.Swing(kPeriod, 1030), 4500u) << "the way to the peak";
  EXPECT_EQ(demand.Swing(kPeriod, 1190), 4500u) << "the period before";
  EXPECT_EQ(demand.Swing(kPeriod, 1290), 0u) << "forgotten";
}

}  // namespace
}  // namespace hakmem
