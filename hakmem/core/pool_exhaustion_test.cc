// The suite that every variant of every pool passes, in an arena so small that
// memory runs out.

#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "hakmem/core/pool_test.h"

namespace hakmem {
namespace {

// Before anything reads the options. The least that they allow.
[[maybe_unused]] const int small_arena = setenv("HAKMEM_ARENA_BYTES", "4M", 1);

// Granule 0 is never used.
constexpr uint32_t kGranules = (4 << 20) / kGranuleSize - 1;

class PoolExhaustionTest : public PoolSuite {
 protected:
  static size_t AllBlocks(SizeClass c) {
    return size_t{kGranules / SlabGranules(c)} * SlabBlocks(c);
  }

  // Allocates until nothing is left; each block holds its number.
  void TakeAll(SizeClass c, std::vector<void*>& blocks) {
    while (void* const block = pool_.Allocate(c)) {
      blocks.push_back(block);
      *static_cast<uint64_t*>(block) = blocks.size();
    }
  }

  static void ExpectNumbers(const std::vector<void*>& blocks) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      ASSERT_EQ(*static_cast<uint64_t*>(blocks[i]), i + 1);
    }
  }
};

TEST_F(PoolExhaustionTest, EveryBlockIsFoundThenNullThenAllOverAgain) {
  std::mt19937 random(1);
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    std::vector<void*> blocks;
    TakeAll(c, blocks);
    ASSERT_EQ(blocks.size(), AllBlocks(c)) << "class " << c;
    EXPECT_EQ(pool_.Allocate(c), nullptr);
    EXPECT_EQ(pool_.Allocate(c), nullptr);
    ASSERT_NO_FATAL_FAILURE(ExpectNumbers(blocks));

    // One that is freed is there again, and no more than one.
    pool_.Free(blocks.back());
    void* const again = pool_.Allocate(c);
    EXPECT_EQ(again, blocks.back());
    EXPECT_EQ(pool_.Allocate(c), nullptr);

    // A random part of them: nothing is lost.
    std::shuffle(blocks.begin(), blocks.end(), random);
    const size_t kept = blocks.size() / 3;
    for (size_t i = kept; i < blocks.size(); ++i) pool_.Free(blocks[i]);
    blocks.resize(kept);
    for (size_t i = 0; i < kept; ++i) {
      *static_cast<uint64_t*>(blocks[i]) = i + 1;
    }
    TakeAll(c, blocks);
    ASSERT_EQ(blocks.size(), AllBlocks(c)) << "class " << c;
    ASSERT_NO_FATAL_FAILURE(ExpectNumbers(blocks));

    // The next class gets it all.
    for (void* const block : blocks) pool_.Free(block);
    ReleaseAll();
    ASSERT_EQ(arena.GetStats().slab_bytes, 0u) << "class " << c;
  }
}

TEST_F(PoolExhaustionTest, WhatAnEndedThreadFreedIsThereForOthers) {
  for (SizeClass c = first_class(); c <= last_class(); ++c) {
    std::thread([this, c] {
      std::vector<void*> blocks;
      TakeAll(c, blocks);
      EXPECT_EQ(blocks.size(), AllBlocks(c));
      for (void* const block : blocks) pool_.Free(block);
    }).join();
    // The heap asks for them when memory has run out.
    ThreadCache::FlushParked(ThreadCache::Parked::kAll);
    std::vector<void*> blocks;
    TakeAll(c, blocks);
    EXPECT_EQ(blocks.size(), AllBlocks(c)) << "class " << c;
    for (void* const block : blocks) pool_.Free(block);
    ReleaseAll();
  }
}

TEST_F(PoolExhaustionTest, ThreadsThatCompeteForTheLastBlocksLoseNone) {
  const SizeClass c = last_class() - 3;
  for (int round = Rounds(20); round > 0; --round) {
    std::vector<void*> taken[3];
    std::vector<std::thread> threads;
    for (std::vector<void*>& blocks : taken) {
      threads.emplace_back([this, c, &blocks] {
        TakeAll(c, blocks);
        ExpectNumbers(blocks);
        for (void* const block : blocks) pool_.Free(block);
      });
    }
    for (std::thread& thread : threads) thread.join();
    ReleaseAll();
    ASSERT_EQ(arena.GetStats().slab_bytes, 0u);
  }
}

}  // namespace
}  // namespace hakmem
