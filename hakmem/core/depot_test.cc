#include "hakmem/core/depot.h"

#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/magazine.h"
#include "hakmem/core/mutex.h"

namespace hakmem {
namespace {

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
  depot.Review();
  EXPECT_EQ(depot.Review(), 10u) << "nobody came: all of them may go";
  Magazine* const a = depot.Pop();
  Magazine* const b = depot.Pop();
  Magazine* const c = depot.Pop();
  Magazine* const d = depot.Pop();
  depot.Push(a);
  depot.Push(b);
  EXPECT_EQ(depot.Review(), 3u) << "four were wanted: half of the other six";
  depot.Push(c);
  EXPECT_EQ(depot.Review(), 8u);
  depot.Push(d);
  while (depot.Pop() != nullptr) continue;
  EXPECT_EQ(depot.Review(), 0u);
}

TEST(DepotTest, ThreadsLoseAndDoubleNothing) {
  static constinit Depot depot;
  ASSERT_TRUE(arena.EnsureReady());  // which finds out about Valgrind
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
        if (round % 64 == 0) depot.Review();
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
