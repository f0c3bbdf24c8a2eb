// Plain allocations that are counted by the addresses they return to, with more
// callers than a thread has slots for: a few of them busy, most of them not.

#include <stdlib.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"

namespace {

constexpr size_t kPlaces = 150;
constexpr size_t kBusyPlaces = 6;

using Place = void* (*)(size_t);

// Functions that call malloc() themselves: each is a caller.
template <size_t kNumber>
[[gnu::noinline]] void* AllocateAt(size_t size) {
  void* block = malloc(size);
  asm volatile("" : "+r"(block) : "i"(kNumber));
  return block;
}

template <size_t... kNumbers>
constexpr std::array<Place, kPlaces> MakePlaces(
    std::index_sequence<kNumbers...>) {
  return {&AllocateAt<kNumbers>...};
}

constexpr std::array<Place, kPlaces> kAll =
    MakePlaces(std::make_index_sequence<kPlaces>());

// What is live of each place, by what the sites say: a call returns into the
// function, which is short.
std::vector<uint64_t> LiveBlocks() {
  struct Live {
    std::vector<uint64_t> of = std::vector<uint64_t>(kPlaces, 0);
    std::vector<std::pair<uintptr_t, size_t>> starts;
  } live;
  for (size_t i = 0; i < kPlaces; ++i) {
    live.starts.emplace_back(reinterpret_cast<uintptr_t>(kAll[i]), i);
  }
  std::sort(live.starts.begin(), live.starts.end());
  EXPECT_EQ(hak_sites_visit(
                [](const hak_site_stats* stats, void* arg) {
                  auto& all = *static_cast<Live*>(arg);
                  const auto after = std::upper_bound(
                      all.starts.begin(), all.starts.end(),
                      std::pair<uintptr_t, size_t>{stats->id, kPlaces});
                  if (after == all.starts.begin()) return;
                  const auto [start, place] = after[-1];
                  if (stats->id - start < 64)
                    all.of[place] += stats->live_blocks;
                },
                &live),
            0);
  return live.of;
}

struct Block {
  uint64_t* address = nullptr;
  size_t words = 0;
  size_t place = 0;
};

// Sizes of all pools, small ones more often; of the busy places, few.
size_t RandomSize(std::mt19937& random, size_t place) {
  constexpr size_t kBusySizes[] = {24, 64, 200, 1000, 3000, 20000};
  if (place < kBusyPlaces) {
    return kBusySizes[(place + random() % 2) % std::size(kBusySizes)];
  }
  return 8 + random() % (size_t{8} << random() % 14);
}

TEST(CallersTest, AreCountedEachForItself) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 8;
  constexpr size_t kBlocks = 1500;
  constexpr int kSteps = 40000;
  ASSERT_EQ(LiveBlocks(), std::vector<uint64_t>(kPlaces, 0));
  std::vector<std::vector<Block>> blocks(kThreads, std::vector<Block>(kBlocks));
  std::barrier barrier(kThreads);
  const auto check = [&blocks] {
    std::vector<uint64_t> live(kPlaces, 0);
    for (const std::vector<Block>& some : blocks) {
      for (const Block& block : some) {
        if (block.address != nullptr) ++live[block.place];
      }
    }
    EXPECT_EQ(LiveBlocks(), live);
    EXPECT_EQ(hak_sites_check(), 0);
  };
  const auto drop = [](Block& block) {
    if (block.address == nullptr) return;
    const auto mark = reinterpret_cast<uintptr_t>(&block);
    ASSERT_EQ(block.address[0], mark);
    ASSERT_EQ(block.address[block.words - 1], mark);
    free(std::exchange(block.address, nullptr));
  };
  // In the second half of a round each thread has the blocks of the next one,
  // and the next round has new threads.
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(static_cast<unsigned>(round * kThreads + t));
        for (int half = 0; half < 2; ++half) {
          std::vector<Block>& own = blocks[(t + half) % kThreads];
          for (int step = 0; step < kSteps; ++step) {
            Block& block = own[random() % kBlocks];
            drop(block);
            block.place =
                random() % (random() % 8 == 0 ? kPlaces : kBusyPlaces);
            const size_t size = RandomSize(random, block.place);
            block.words = size / sizeof(uint64_t);
            block.address = static_cast<uint64_t*>(kAll[block.place](size));
            ASSERT_NE(block.address, nullptr);
            block.address[0] = block.address[block.words - 1] =
                reinterpret_cast<uintptr_t>(&block);
          }
          barrier.arrive_and_wait();
          if (t == 0) check();
          barrier.arrive_and_wait();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    check();
  }
  for (std::vector<Block>& some : blocks) {
    for (Block& block : some) drop(block);
  }
  EXPECT_EQ(LiveBlocks(), std::vector<uint64_t>(kPlaces, 0));
  EXPECT_EQ(hak_sites_check(), 0);
}

}  // namespace
