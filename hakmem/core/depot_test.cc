#include "hakmem/core/depot.h"

#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/magazine.h"
#include "hakmem/core/mutex.h"

namespace hakmem {
namespace {

TEST(CacheBudgetTest, ThreadsGetAllOfItDepotsThreeQuarters) {
  CacheBudget budget;
  EXPECT_FALSE(budget.TakeForThread(1));
  budget.SetLimit(1000);
  EXPECT_TRUE(budget.TakeForDepot(750));
  EXPECT_FALSE(budget.TakeForDepot(1));
  EXPECT_FALSE(budget.TakeForThread(251));
  EXPECT_EQ(budget.used(), 750) << "a refusal takes nothing";
  EXPECT_TRUE(budget.TakeForThread(250));
  EXPECT_FALSE(budget.TakeForThread(1));
  budget.Force(100);
  EXPECT_EQ(budget.used(), 1100);
  budget.Return(351);
  EXPECT_TRUE(budget.TakeForDepot(1));
  EXPECT_FALSE(budget.TakeForDepot(1));
  budget.Return(750);
  EXPECT_EQ(budget.used(), 0);
}

TEST(CacheBudgetTest, ThreadsTogetherKeepTheLimit) {
  static constinit CacheBudget budget;
  HelgrindIgnore(&budget, sizeof(budget));
  budget.SetLimit(100);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      size_t mine = 0;
      for (int round = 0; round < 5000; ++round) {
        const size_t bytes = 1 + random() % 40;
        if (budget.TakeForThread(bytes)) mine += bytes;
        ASSERT_LE(mine, 100u);
        if (random() % 3 == 0) {
          budget.Return(mine);
          mine = 0;
        }
      }
      budget.Return(mine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget.used(), 0);
}

TEST(DepotTest, GivesBackWhatItGot) {
  static constinit Depot depot;
  EXPECT_EQ(depot.Pop(), nullptr);
  Magazine* const a = magazine_store.Get(0);
  Magazine* const b = magazine_store.Get(1);
  depot.Push(a);
  depot.Push(b);
  EXPECT_EQ(depot.Pop(), b);
  EXPECT_EQ(depot.Pop(), a);
  EXPECT_EQ(depot.Pop(), nullptr);
}

TEST(DepotTest, WhatWasThereAllTheTimeIsSurplus) {
  static constinit Depot depot;
  for (int i = 0; i < 10; ++i) depot.Push(magazine_store.Get(0));
  depot.TakeSurplus();
  EXPECT_EQ(depot.TakeSurplus(), 10u) << "nobody came";
  Magazine* const a = depot.Pop();
  Magazine* const b = depot.Pop();
  Magazine* const c = depot.Pop();
  depot.Push(a);
  depot.Push(b);
  EXPECT_EQ(depot.TakeSurplus(), 7u) << "three were wanted at once";
  EXPECT_EQ(depot.TakeSurplus(), 9u);
  depot.Push(c);
  while (depot.Pop() != nullptr) continue;
  EXPECT_EQ(depot.TakeSurplus(), 0u);
}

TEST(DepotTest, AsksForAReviewEverySoManyPushes) {
  static constinit Depot depot;
  int due = 0;
  for (int i = 0; i < 640; ++i) due += depot.DueForReview() ? 1 : 0;
  EXPECT_EQ(due, 10);
}

TEST(DepotTest, ThreadsLoseAndDoubleNothing) {
  static constinit Depot depot;
  HelgrindIgnore(&depot, sizeof(depot));
  constexpr int kMagazines = 8;
  for (int i = 0; i < kMagazines; ++i) {
    Magazine* const magazine = magazine_store.Get(0);
    magazine->slots[0] = nullptr;
    depot.Push(magazine);
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int round = 0; round < 5000; ++round) {
        Magazine* const magazine = depot.Pop();
        if (magazine == nullptr) continue;
        ASSERT_EQ(magazine->slots[0], nullptr) << "it has another owner";
        magazine->slots[0] = magazine;
        if (round % 64 == 0) depot.TakeSurplus();
        magazine->slots[0] = nullptr;
        depot.Push(magazine);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  int left = 0;
  while (depot.Pop() != nullptr) ++left;
  EXPECT_EQ(left, kMagazines);
}

}  // namespace
}  // namespace hakmem
