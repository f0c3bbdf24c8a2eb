#include "hakmem/core/large.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Before anything reads the options: the arena of this program is small.
[[maybe_unused]] const int small_arena = setenv("HAKMEM_ARENA_BYTES", "64M", 1);

TEST(DirectMappingsTest, AMappingIsZeroAlignedAndOfTheSizeAsked) {
  static constinit DirectMappings mappings;
  for (size_t alignment = 1; alignment <= 64 * kMiB; alignment *= 8) {
    for (const size_t size :
         {size_t{0}, size_t{1}, size_t{4096}, size_t{4097}, size_t{300000}}) {
      auto* const block = static_cast<char*>(mappings.Map(size, alignment));
      ASSERT_NE(block, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % alignment, 0u);
      const size_t mapped = mappings.SizeOf(block);
      EXPECT_GE(mapped, std::max<size_t>(size, 1));
      EXPECT_LT(mapped, size + 2 * os::kPageSize);
      EXPECT_TRUE(
          std::all_of(block, block + mapped, [](char c) { return c == 0; }));
      std::memset(block, 1, mapped);
      EXPECT_TRUE(mappings.Unmap(block));
    }
  }
  EXPECT_EQ(mappings.mapped_bytes(), 0u);
}

TEST(DirectMappingsTest, WhatTheSystemRefusesIsNull) {
  static constinit DirectMappings mappings;
  EXPECT_EQ(mappings.Map(SIZE_MAX, 16), nullptr);
  EXPECT_EQ(mappings.Map(SIZE_MAX - os::kPageSize, 16), nullptr);
  EXPECT_EQ(mappings.Map(size_t{1} << 62, 16), nullptr);
  EXPECT_EQ(mappings.Map(1, size_t{1} << 62), nullptr);
  EXPECT_EQ(mappings.Map(size_t{1} << 62, size_t{1} << 62), nullptr);
  EXPECT_EQ(mappings.mapped_bytes(), 0u);
}

TEST(DirectMappingsTest, UnknownPointersAreNone) {
  static constinit DirectMappings mappings;
  int on_stack = 0;
  EXPECT_FALSE(mappings.Unmap(&on_stack));
  EXPECT_EQ(mappings.SizeOf(&on_stack), 0u);
  auto* const block = static_cast<char*>(mappings.Map(3 * os::kPageSize, 16));
  for (const size_t inside : {size_t{1}, size_t{16}, os::kPageSize}) {
    EXPECT_FALSE(mappings.Unmap(block + inside));
    EXPECT_EQ(mappings.SizeOf(block + inside), 0u);
  }
  EXPECT_EQ(mappings.SizeOf(block), 3 * os::kPageSize);
  EXPECT_TRUE(mappings.Unmap(block));
  EXPECT_FALSE(mappings.Unmap(block));
  EXPECT_EQ(mappings.SizeOf(block), 0u);
  // The marks of the table are no addresses that anybody may name.
  EXPECT_FALSE(mappings.Unmap(nullptr));
  EXPECT_EQ(mappings.SizeOf(nullptr), 0u);
  EXPECT_FALSE(mappings.Unmap(reinterpret_cast<void*>(1)));
  EXPECT_EQ(mappings.SizeOf(reinterpret_cast<void*>(1)), 0u);
}

// Enough of them for the table to grow and to be rebuilt without growing.
TEST(DirectMappingsTest, AgreesWithASimpleModel) {
  static constinit DirectMappings mappings;
  std::mt19937 random(3);
  std::map<char*, size_t> live;
  for (int step = 0; step < 12000; ++step) {
    const size_t most = step < 6000 ? 2500 : 300;
    if (live.size() < most && (live.empty() || random() % 3 != 0)) {
      const size_t pages = 1 + random() % 3;
      auto* const block =
          static_cast<char*>(mappings.Map(pages * os::kPageSize, 16));
      ASSERT_NE(block, nullptr);
      *block = 'x';
      ASSERT_TRUE(live.emplace(block, pages * os::kPageSize).second);
    } else {
      auto victim = live.lower_bound(
          std::next(live.begin(), random() % live.size())->first);
      ASSERT_EQ(mappings.SizeOf(victim->first), victim->second);
      ASSERT_TRUE(mappings.Unmap(victim->first));
      ASSERT_EQ(mappings.SizeOf(victim->first), 0u);
      live.erase(victim);
    }
  }
  size_t bytes = 0;
  for (const auto& [block, size] : live) {
    ASSERT_EQ(mappings.SizeOf(block), size);
    bytes += size;
  }
  EXPECT_EQ(mappings.mapped_bytes(), bytes);
  for (const auto& [block, size] : live) ASSERT_TRUE(mappings.Unmap(block));
  EXPECT_EQ(mappings.mapped_bytes(), 0u);
}

// One that stands in the way of the next one's growth, so that it has to move.
TEST(DirectMappingsTest, ResizingKeepsContentsWhereverTheBlockGoes) {
  static constinit DirectMappings mappings;
  char* blocks[2];
  for (char*& block : blocks) {
    block = static_cast<char*>(mappings.Map(8 * os::kPageSize, 16));
    ASSERT_NE(block, nullptr);
  }
  for (int i = 0; i < 2; ++i) std::memset(blocks[i], i + 1, 8 * os::kPageSize);
  bool moved = false;
  size_t pages = 8;
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 2; ++i) {
      auto* const block = static_cast<char*>(
          mappings.Resize(blocks[i], 2 * pages * os::kPageSize - 1));
      ASSERT_NE(block, nullptr);
      ASSERT_EQ(mappings.SizeOf(block), 2 * pages * os::kPageSize);
      if (block != blocks[i]) {
        moved = true;
        ASSERT_EQ(mappings.SizeOf(blocks[i]), 0u);
      }
      blocks[i] = block;
      ASSERT_TRUE(std::all_of(block, block + pages * os::kPageSize,
                              [i](char c) { return c == i + 1; }));
      ASSERT_TRUE(std::all_of(block + pages * os::kPageSize,
                              block + 2 * pages * os::kPageSize,
                              [](char c) { return c == 0; }));
      std::memset(block, i + 1, 2 * pages * os::kPageSize);
    }
    pages *= 2;
  }
  EXPECT_TRUE(moved);
  EXPECT_EQ(mappings.mapped_bytes(), 2 * pages * os::kPageSize);
  EXPECT_EQ(mappings.count(), 2u);
  EXPECT_EQ(mappings.Resize(blocks[0], 1), blocks[0]);
  EXPECT_EQ(mappings.SizeOf(blocks[0]), os::kPageSize);
  EXPECT_EQ(*blocks[0], 1);
  EXPECT_EQ(mappings.Resize(blocks[0], SIZE_MAX), nullptr);
  EXPECT_EQ(mappings.Resize(blocks[0], size_t{1} << 62), nullptr);
  EXPECT_EQ(mappings.Resize(blocks[0] + 1, 100), nullptr);
  EXPECT_EQ(mappings.SizeOf(blocks[0]), os::kPageSize);
  for (char* const block : blocks) EXPECT_TRUE(mappings.Unmap(block));
  EXPECT_EQ(mappings.mapped_bytes(), 0u);
}

// Moves without end must not fill the table with what is gone.
TEST(DirectMappingsTest, ManyMovesLeaveTheTableInOrder) {
  static constinit DirectMappings mappings;
  std::mt19937 random(5);
  std::vector<char*> blocks(50);
  for (char*& block : blocks) {
    block = static_cast<char*>(mappings.Map(1, 16));
    ASSERT_NE(block, nullptr);
  }
  for (int step = 0; step < 20000; ++step) {
    char*& block = blocks[random() % blocks.size()];
    *block = 'k';
    auto* const resized = static_cast<char*>(
        mappings.Resize(block, 1 + random() % (9 * os::kPageSize)));
    ASSERT_NE(resized, nullptr);
    ASSERT_EQ(*resized, 'k');
    block = resized;
  }
  EXPECT_EQ(mappings.count(), blocks.size());
  for (char* const block : blocks) ASSERT_TRUE(mappings.Unmap(block));
  EXPECT_EQ(mappings.mapped_bytes(), 0u);
}

TEST(DirectMappingsTest, ThreadsMapAndUnmap) {
  ASSERT_TRUE(arena.EnsureReady());  // which finds out about Valgrind
  static constinit DirectMappings mappings;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      std::vector<char*> live;
      for (int round = 0; round < 300; ++round) {
        auto* const block =
            static_cast<char*>(mappings.Map(os::kPageSize, os::kPageSize));
        ASSERT_NE(block, nullptr);
        ASSERT_EQ(*block, 0);
        *block = static_cast<char>(t + 1);
        live.push_back(block);
        if (live.size() < 40) continue;
        for (char* const b : live) {
          ASSERT_EQ(*b, t + 1);
          ASSERT_TRUE(mappings.Unmap(b));
        }
        live.clear();
      }
      for (char* const b : live) ASSERT_TRUE(mappings.Unmap(b));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(mappings.mapped_bytes(), 0u);
}

TEST(LargeTest, ABlockIsARunOfTheArena) {
  arena.Purge(0);
  bool zeroed = false;
  auto* const block =
      static_cast<char*>(AllocateLarge(2 * kMiB + 1, 16, &zeroed));
  ASSERT_NE(block, nullptr);
  EXPECT_TRUE(arena.Contains(block));
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(LargeSize(block), 2 * kMiB + kGranuleSize);
  EXPECT_EQ(arena.GetStats().large_bytes, 2 * kMiB + kGranuleSize);
  std::memset(block, 1, LargeSize(block));
  FreeLarge(block);
  EXPECT_EQ(arena.GetStats().large_bytes, 0u);
  void* const again = AllocateLarge(2 * kMiB + 1, 16, &zeroed);
  EXPECT_EQ(again, block) << "freed runs are kept for a while";
  EXPECT_FALSE(zeroed);
  FreeLarge(again);
}

TEST(LargeTest, WhatTheArenaCannotHoldIsMappedDirectly) {
  bool zeroed = false;
  auto* const block =
      static_cast<char*>(AllocateLarge(100 * kMiB, 16, &zeroed));
  ASSERT_NE(block, nullptr);
  EXPECT_FALSE(arena.Contains(block));
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(LargeSize(block), 100 * kMiB);
  block[100 * kMiB - 1] = 1;
  std::memset(block, 1, kMiB);
  auto* const smaller = static_cast<char*>(ResizeLarge(block, 60 * kMiB));
  EXPECT_EQ(smaller, block);
  EXPECT_EQ(LargeSize(smaller), 60 * kMiB);
  auto* const larger = static_cast<char*>(ResizeLarge(smaller, 1000 * kMiB));
  ASSERT_NE(larger, nullptr);
  EXPECT_EQ(LargeSize(larger), 1000 * kMiB);
  EXPECT_EQ(larger[kMiB - 1], 1);
  EXPECT_EQ(larger[1000 * kMiB - 1], 0);
  EXPECT_EQ(ResizeLarge(larger, PTRDIFF_MAX), nullptr);
  EXPECT_EQ(LargeSize(larger), 1000 * kMiB);
  FreeLarge(larger);
  EXPECT_EQ(direct_mappings.mapped_bytes(), 0u);
}

TEST(LargeTest, HugeSizesAndAlignmentsAreRefused) {
  for (int bit = 48; bit < 64; ++bit) {
    const size_t huge = size_t{1} << bit;
    EXPECT_EQ(AllocateLarge(huge, 16, nullptr), nullptr) << bit;
    EXPECT_EQ(AllocateLarge(1, huge, nullptr), nullptr) << bit;
    EXPECT_EQ(AllocateLarge(huge - 1, huge, nullptr), nullptr) << bit;
  }
  EXPECT_EQ(AllocateLarge(SIZE_MAX, 16, nullptr), nullptr);
  EXPECT_EQ(arena.GetStats().large_bytes, 0u);
  EXPECT_EQ(direct_mappings.mapped_bytes(), 0u);
}

TEST(LargeTest, ResizesWithinTheArena) {
  void* const block = AllocateLarge(2 * kMiB, 16, nullptr);
  EXPECT_EQ(ResizeLarge(block, 3 * kMiB), block);
  EXPECT_EQ(LargeSize(block), 3 * kMiB);
  EXPECT_EQ(ResizeLarge(block, 1), block);
  EXPECT_EQ(LargeSize(block), kGranuleSize);
  EXPECT_EQ(ResizeLarge(block, 1000 * kMiB), nullptr);
  EXPECT_EQ(ResizeLarge(block, PTRDIFF_MAX), nullptr);
  EXPECT_EQ(LargeSize(block), kGranuleSize);
  FreeLarge(block);
}

TEST(LargeDeathTest, WrongPointersEndTheProgramWithOneLine) {
  auto* const block = static_cast<char*>(AllocateLarge(2 * kMiB, 16, nullptr));
  alignas(16) char on_stack[64];
  EXPECT_DEATH(FreeLarge(on_stack),
               "^hakmem: not a block of this heap: foreign or freed pointer "
               "at 0x[0-9a-f]+\n$");
  EXPECT_DEATH(LargeSize(on_stack), "^hakmem: not a block of this heap");
  EXPECT_DEATH(FreeLarge(block + 1), "^hakmem: misaligned pointer");
  EXPECT_DEATH(FreeLarge(block + 16),
               "^hakmem: pointer into the middle of a large block");
  EXPECT_DEATH(FreeLarge(block + kGranuleSize),
               "^hakmem: pointer into the middle of a large block");
  EXPECT_DEATH(LargeSize(block + kGranuleSize),
               "^hakmem: pointer into the middle of a large block");
  EXPECT_DEATH(ResizeLarge(block + kGranuleSize, 10),
               "^hakmem: pointer into the middle of a large block");
  FreeLarge(block);
  EXPECT_DEATH(FreeLarge(block), "^hakmem: double free of a large block");
  EXPECT_DEATH(LargeSize(block), "^hakmem: double free of a large block");
  void* const direct = AllocateLarge(100 * kMiB, 16, nullptr);
  FreeLarge(direct);
  EXPECT_DEATH(FreeLarge(direct), "^hakmem: not a block of this heap");
}

}  // namespace
}  // namespace hakmem
