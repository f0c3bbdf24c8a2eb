#include "hakmem/core/magazine.h"

#include <atomic>
#include <cstdint>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/mutex.h"

namespace hakmem {
namespace {

Magazine* NewMagazine() {
  EXPECT_TRUE(arena.EnsureReady());
  auto* const magazine =
      static_cast<Magazine*>(arena.AllocateMetadata(MagazineBytes(0)));
  HelgrindIgnore(&magazine->next, sizeof(magazine->next));
  magazine->family = 0;
  magazine->count = 0;
  return magazine;
}

template <typename Fn>
void OnThreads(int count, Fn fn) {
  std::vector<std::thread> threads;
  for (int t = 0; t < count; ++t) threads.emplace_back(fn, t);
  for (std::thread& thread : threads) thread.join();
}

TEST(MagazineTest, FamiliesAndCapacitiesAgree) {
  EXPECT_EQ(MagazineCapacity(0), 6u);
  EXPECT_EQ(MagazineCapacity(kMagazineFamilies - 1), 510u);
  for (uint32_t capacity = 1; capacity <= 510; ++capacity) {
    const uint32_t family = MagazineFamilyFor(capacity);
    ASSERT_GE(MagazineCapacity(family), capacity);
    if (family > 0) {
      ASSERT_LT(MagazineCapacity(family - 1), capacity);
    }
  }
  EXPECT_EQ(MagazineFamilyFor(511), kMagazineFamilies - 1);
  EXPECT_EQ(MagazineFamilyFor(UINT32_MAX), kMagazineFamilies - 1);
  EXPECT_EQ(offsetof(Magazine, slots) + MagazineCapacity(3) * sizeof(void*),
            MagazineBytes(3));
}

TEST(MagazineStackTest, GivesTheLastFirst) {
  static constinit MagazineStack stack;
  EXPECT_EQ(stack.Pop(), nullptr);
  Magazine* const a = NewMagazine();
  Magazine* const b = NewMagazine();
  stack.Push(a);
  stack.Push(b);
  EXPECT_EQ(stack.Pop(), b);
  stack.Push(b);
  EXPECT_EQ(stack.Pop(), b);
  EXPECT_EQ(stack.Pop(), a);
  EXPECT_EQ(stack.Pop(), nullptr);
}

// Few magazines and many threads, so that each goes round all the time. They
// come back in another order, so that a head which went and came back has
// another one below it. Whoever has a magazine writes to its plain fields: two
// owners would be a race.
TEST(MagazineStackTest, ThreadsLoseAndDoubleNothing) {
  static constinit MagazineStack stacks[2];
  constexpr int kMagazines = 6;
  constexpr int kThreads = 4;
  ASSERT_TRUE(arena.EnsureReady());  // which finds out about Valgrind
  HelgrindIgnore(stacks, sizeof(stacks));
  std::vector<Magazine*> all;
  for (int i = 0; i < kMagazines; ++i) {
    all.push_back(NewMagazine());
    all.back()->slots[0] = nullptr;
    stacks[i % 2].Push(all.back());
  }
  OnThreads(kThreads, [](int thread) {
    std::mt19937 random(static_cast<uint32_t>(thread));
    const auto mark =
        reinterpret_cast<void*>(static_cast<intptr_t>(thread + 1));
    std::vector<Magazine*> held;
    for (int round = Mutex::on_valgrind() ? 10000 : 200000; round > 0;
         --round) {
      if (held.size() < 3 && random() % 2 == 0) {
        Magazine* const magazine = stacks[random() % 16 == 0].Pop();
        if (magazine == nullptr) continue;
        ASSERT_EQ(magazine->slots[0], nullptr) << "it has another owner";
        magazine->slots[0] = mark;
        ++magazine->count;
        held.push_back(magazine);
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        ASSERT_EQ(held.back()->slots[0], mark) << "it has another owner";
        held.back()->slots[0] = nullptr;
        stacks[random() % 16 == 0].Push(held.back());
        held.pop_back();
      }
    }
    for (Magazine* const magazine : held) {
      ASSERT_EQ(magazine->slots[0], mark);
      magazine->slots[0] = nullptr;
      stacks[0].Push(magazine);
    }
  });
  std::set<Magazine*> left;
  for (MagazineStack& stack : stacks) {
    while (Magazine* const magazine = stack.Pop()) {
      EXPECT_TRUE(left.insert(magazine).second);
    }
  }
  EXPECT_EQ(left, std::set<Magazine*>(all.begin(), all.end()));
}

TEST(MagazineStoreTest, GivesEmptyMagazinesOfTheFamilyAndReusesThem) {
  static constinit MagazineStore store;
  for (uint32_t family = 0; family < kMagazineFamilies; ++family) {
    Magazine* const magazine = store.Get(family);
    ASSERT_NE(magazine, nullptr);
    EXPECT_EQ(magazine->family, family);
    EXPECT_EQ(magazine->capacity(), MagazineCapacity(family));
    EXPECT_EQ(magazine->count, 0);
    EXPECT_EQ(magazine->floor, nullptr);
    for (uint32_t i = 0; i < magazine->capacity(); ++i) {
      magazine->slots[i] = magazine;
    }
    magazine->count = 5;
    store.Put(magazine);
    Magazine* const again = store.Get(family);
    EXPECT_EQ(again, magazine);
    EXPECT_EQ(again->count, 0);
    EXPECT_EQ(again->floor, nullptr);
    EXPECT_NE(store.Get(family), magazine);
  }
}

TEST(MagazineStoreTest, ThreadsGetMagazinesOfTheirOwn) {
  static constinit MagazineStore store;
  OnThreads(4, [](int thread) {
    std::mt19937 random(static_cast<uint32_t>(thread));
    const auto mark =
        reinterpret_cast<void*>(static_cast<intptr_t>(thread + 1));
    std::vector<Magazine*> held;
    for (int round = 0; round < 5000; ++round) {
      if (held.size() < 5 && random() % 2 == 0) {
        Magazine* const magazine = store.Get(random() % kMagazineFamilies);
        ASSERT_NE(magazine, nullptr);
        ASSERT_EQ(magazine->count, 0);
        magazine->count = 1;
        magazine->slots[0] = mark;
        magazine->slots[magazine->capacity() - 1] = mark;
        held.push_back(magazine);
      } else if (!held.empty()) {
        Magazine* const magazine = held.back();
        ASSERT_EQ(magazine->slots[0], mark);
        ASSERT_EQ(magazine->slots[magazine->capacity() - 1], mark);
        store.Put(magazine);
        held.pop_back();
      }
    }
    for (Magazine* const magazine : held) store.Put(magazine);
  });
}

}  // namespace
}  // namespace hakmem
