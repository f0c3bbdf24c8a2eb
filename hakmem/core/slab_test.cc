#include "hakmem/core/slab.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

// Also where the tests run under a filter of system calls, as in a container.
[[maybe_unused]] const int kAsks = setenv("HAKMEM_MINCORE", "1", 1);

class SlabTest : public testing::TestWithParam<SizeClass> {
 protected:
  void SetUp() override {
    slab_ = Slab::Create(GetParam());
    ASSERT_NE(slab_, nullptr);
    base_ = arena.AddressOf(slab_->start);
  }
  void TearDown() override {
    Slab::Destroy(slab_);
    EXPECT_EQ(arena.GetStats().slab_bytes, 0u);
  }

  size_t size() const { return ClassSize(GetParam()); }
  uint32_t blocks() const { return SlabBlocks(GetParam()); }
  char* Block(uint32_t index) const { return base_ + index * size(); }

  // The bitmap against the free blocks that there should be.
  void ExpectFree(const std::set<void*>& free) const {
    ASSERT_EQ(slab_->free_count, free.size());
    for (uint32_t i = 0; i < Slab::WordCount(GetParam()) * 64; ++i) {
      const bool bit = (slab_->free_bits[i / 64] >> (i % 64) & 1) != 0;
      ASSERT_EQ(bit, free.count(Block(i)) != 0) << "bit " << i;
      if (bit) {
        ASSERT_GE(i / 64, slab_->first_word);
      }
    }
  }

  std::set<void*> AllBlocks() const {
    std::set<void*> all;
    for (uint32_t i = 0; i < blocks(); ++i) all.insert(Block(i));
    return all;
  }

  // Up to `count` of the free blocks as they are to be taken: the lowest first,
  // but those of half-used cache lines after the others while half of the slab
  // is free.
  std::vector<void*> InOrder(const std::set<void*>& free,
                             uint32_t count) const {
    const auto shares_line = [&](void* block) {
      // The lines that this block lies in, with all blocks of them, and so on.
      const size_t period = std::lcm(size(), size_t{64});
      const auto offset =
          static_cast<size_t>(static_cast<char*>(block) - base_);
      const size_t first = offset / period * (period / size());
      for (size_t i = first; i < first + period / size(); ++i) {
        if (free.count(Block(static_cast<uint32_t>(i))) == 0) return true;
      }
      return false;
    };
    const bool lines_first = size() < 128 && free.size() * 2 >= blocks();
    std::vector<void*> all;
    std::vector<void*> last;
    for (void* const block : free) {
      (lines_first && shares_line(block) ? last : all).push_back(block);
    }
    all.insert(all.end(), last.begin(), last.end());
    all.resize(std::min<size_t>(count, all.size()));
    return all;
  }

  // As if it had been there for a while.
  static void Age(Slab* slab) {
    if (slab->tail_gone_in == 0) return;
    slab->tail_gone_in =
        static_cast<uint8_t>((slab->tail_gone_in + 200) % 255 + 1);
  }

  Slab* slab_ = nullptr;
  char* base_ = nullptr;
};

TEST_P(SlabTest, BeginsWithAllOfItsBlocksFree) {
  EXPECT_EQ(slab_->blocks(), blocks());
  EXPECT_EQ(arena.ClassOf(base_), GetParam());
  EXPECT_EQ(arena.SpanOf(Block(blocks() - 1)), slab_);
  ASSERT_NO_FATAL_FAILURE(ExpectFree(AllBlocks()));
}

TEST_P(SlabTest, TakeGivesTheLowestAddressesLowestLast) {
  std::vector<void*> out(blocks() + 3, nullptr);
  // Whole lines of every class: a line in part would be taken last.
  const uint32_t first = std::min(8u, (blocks() + 1) / 2);
  ASSERT_EQ(slab_->Take(out.data(), first), first);
  for (uint32_t i = 0; i < first; ++i) {
    EXPECT_EQ(out[i], Block(first - 1 - i));
  }
  // More than there is: the blocks stand at the end.
  const uint32_t rest = blocks() - first;
  std::fill(out.begin(), out.end(), nullptr);
  ASSERT_EQ(slab_->Take(out.data(), rest + 3), rest);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(out[i], nullptr);
  for (uint32_t i = 0; i < rest; ++i) {
    ASSERT_EQ(out[3 + i], Block(blocks() - 1 - i));
  }
  EXPECT_EQ(slab_->Take(out.data(), 1), 0u);
  ASSERT_NO_FATAL_FAILURE(ExpectFree({}));
}

TEST_P(SlabTest, AgreesWithASimpleModel) {
  std::mt19937 random(GetParam());
  std::set<void*> free = AllBlocks();
  std::vector<void*> taken;
  for (int step = 0; step < 2000; ++step) {
    const uint32_t action = random() % 4;
    if (action == 0 && !free.empty()) {
      void* const block = slab_->TakeOne();
      ASSERT_EQ(block, *free.begin());
      free.erase(free.begin());
      taken.push_back(block);
    } else if (action == 1) {
      void* out[40];
      const auto count = 1 + static_cast<uint32_t>(random() % 40);
      const std::vector<void*> expected = InOrder(free, count);
      ASSERT_EQ(slab_->Take(out, count), expected.size());
      for (uint32_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ(out[count - 1 - i], expected[i]);
        free.erase(expected[i]);
        taken.push_back(expected[i]);
      }
    } else {
      for (uint32_t n = random() % 24; n != 0 && !taken.empty(); --n) {
        std::swap(taken[random() % taken.size()], taken.back());
        slab_->Put(slab_->size_class, taken.back());
        free.insert(taken.back());
        taken.pop_back();
      }
    }
    if (step % 100 == 0) {
      ASSERT_NO_FATAL_FAILURE(ExpectFree(free));
    }
  }
  ASSERT_NO_FATAL_FAILURE(ExpectFree(free));
}

// In fresh granules, whose pages nobody had yet, and for L25.
TEST_P(SlabTest, KnowsWhichBlocksReadAsZero) {
  Slab::Destroy(slab_);
  arena.Purge(0);
  SetUp();
  std::mt19937 random(GetParam());
  const bool knows = GetParam() > kLastL2Class;
  size_t used = 0;  // from the beginning, in bytes
  std::vector<void*> taken;
  const auto use = [&](void* block) {
    const auto offset = static_cast<size_t>(static_cast<char*>(block) - base_);
    used = std::max(used, offset + size());
    std::memset(block, 1, size());
    taken.push_back(block);
  };
  for (int step = 0; step < 4000; ++step) {
    if (random() % 2 == 0 && slab_->free_count != 0) {
      bool zeroed = false;
      auto* const block = static_cast<char*>(slab_->TakeOne(&zeroed));
      ASSERT_EQ(zeroed, knows && static_cast<size_t>(block - base_) >= used);
      if (zeroed) {
        ASSERT_EQ(std::count(block, block + size(), 0), size());
      }
      use(block);
    } else if (random() % 8 == 0) {
      std::vector<void*> out(random() % 16 == 0 ? blocks() : 5);
      const uint32_t count =
          slab_->Take(out.data(), static_cast<uint32_t>(out.size()));
      std::for_each(out.end() - count, out.end(), use);
    } else if (!taken.empty()) {
      std::swap(taken[random() % taken.size()], taken.back());
      slab_->Put(slab_->size_class, taken.back());
      taken.pop_back();
    }
  }
  ASSERT_NE(used, 0u);
  for (void* const block : taken) slab_->Put(slab_->size_class, block);
  // The next one has these pages as they are.
  Slab::Destroy(slab_);
  SetUp();
  bool zeroed = true;
  slab_->TakeOne(&zeroed);
  EXPECT_FALSE(zeroed);
}

// Pages that hold no part of a live block, and were not purged before.
TEST_P(SlabTest, PurgesPagesWithoutALiveBlockAndNoOthers) {
  std::mt19937 random(GetParam());
  const uint32_t pages = SlabGranules(GetParam()) * kGranulePages;
  std::vector<void*> out(blocks());
  ASSERT_EQ(slab_->Take(out.data(), blocks()), blocks());
  std::set<uint32_t> live;
  for (uint32_t i = 0; i < blocks(); ++i) {
    live.insert(i);
    std::memset(Block(i), static_cast<int>(i % 255 + 1), size());
  }
  const auto page_is_free = [&](uint32_t page) {
    const size_t first = page * os::kPageSize / size();
    const size_t last = ((page + 1) * os::kPageSize - 1) / size();
    if (first >= blocks()) return false;  // the tail
    for (size_t i = first; i <= std::min<size_t>(last, blocks() - 1); ++i) {
      if (live.count(static_cast<uint32_t>(i)) != 0) return false;
    }
    return true;
  };
  std::set<uint32_t> purged;
  // A run of blocks at a time, so that small ones leave whole pages too.
  while (!live.empty()) {
    const auto start = static_cast<uint32_t>(random() % blocks());
    const uint32_t run =
        1 + static_cast<uint32_t>(random()) % (blocks() / 3 + 1);
    for (uint32_t i = start; i < std::min(start + run, blocks()); ++i) {
      if (live.erase(i) != 0) slab_->Put(slab_->size_class, Block(i));
    }
    const uint32_t least = 1 + static_cast<uint32_t>(random()) % 3;
    std::set<uint32_t> dirty;
    for (uint32_t page = 0, first = 0; page <= pages; ++page) {
      if (page < pages && purged.count(page) == 0 && page_is_free(page)) {
        continue;
      }
      if (page - first >= least) {
        for (; first < page; ++first) dirty.insert(first);
      }
      first = page + 1;
    }
    slab_->UpdatePages(least);
    ASSERT_EQ(slab_->dirty_pages, dirty.size());
    if (random() % 2 == 0) continue;
    slab_->PurgePages(least);
    EXPECT_EQ(slab_->dirty_pages, 0u);
    purged.merge(dirty);
    for (const uint32_t page : purged) {
      unsigned char resident = 0;
      ASSERT_EQ(mincore(base_ + page * os::kPageSize, 1, &resident), 0);
      ASSERT_EQ(resident & 1, 0) << "page " << page;
    }
    ASSERT_EQ(slab_->purged_pages, purged.size());
    for (const uint32_t i : live) {
      const char value = static_cast<char>(i % 255 + 1);
      ASSERT_EQ(Block(i)[0], value);
      ASSERT_EQ(Block(i)[size() - 1], value);
    }
  }
  slab_->ForgetPurged();
  slab_->UpdatePages(1);
  const size_t touched = blocks() * size();
  EXPECT_EQ(slab_->dirty_pages, (touched + os::kPageSize - 1) / os::kPageSize);
}

TEST_P(SlabTest, SaysWhichPagesOfItsGranulesWentInThePreviousOne) {
  for (uint32_t i = 0; i < blocks(); ++i) std::memset(Block(i), 1, size());
  slab_->UpdatePages(1);
  slab_->PurgePages(1);
  const uint32_t purged = slab_->purged_pages;
  ASSERT_GT(purged, 0u);
  arena.Purge(0);  // so that it is the only one
  Slab::Destroy(slab_);
  slab_ = Slab::Create(GetParam());
  ASSERT_NE(slab_, nullptr);
  ASSERT_EQ(arena.AddressOf(slab_->start), base_);
  EXPECT_EQ(slab_->purged_pages, purged);
  slab_->purged_pages = 0;
  slab_->UpdatePages(1);
  EXPECT_EQ(slab_->dirty_pages, purged) << "none is marked";
}

// What somebody else has touched where this slab has no block.
TEST_P(SlabTest, WhatIsBehindItsLastBlockGoes) {
  const size_t bytes = slab_->granules * kGranuleSize;
  const size_t tail = Slab::TailPages(GetParam());
  const auto replace = [this](bool purge) {
    Age(slab_);
    Slab::Destroy(slab_);
    if (purge) arena.Purge(0);
    slab_ = Slab::Create(GetParam());
    ASSERT_NE(slab_, nullptr);
    // Elsewhere from when it is known how much is used.
    base_ = arena.AddressOf(slab_->start);
  };
  const auto anew = [&] { replace(true); };
  const auto again = [&](size_t touched) {
    std::memset(base_, 1, touched);
    replace(false);
  };
  anew();
  EXPECT_EQ(slab_->tail_gone_in, 0) << "nothing was there";
  // As often as it takes to find out how much is used.
  for (int i = 0; i < 100; ++i) again(bytes);
  EXPECT_EQ(slab_->tail_gone_in != 0, tail != 0);
  EXPECT_EQ(os::ResidentBytes(base_, bytes), bytes - tail * os::kPageSize);
  // It is not worth a system call where hardly anything is.
  anew();
  for (int i = 0; i < 1000; ++i) again(1);
  EXPECT_EQ(slab_->tail_gone_in != 0, tail != 0 && GetParam() <= kLastL2Class);
}

// Whose next owner has blocks there wants back what has just gone.
TEST_P(SlabTest, WhatIsBehindItsLastBlockStaysWhereSlabsGoSoon) {
  const auto returned = [this](bool soon) {
    int count = 0;
    for (int i = 0; i < 300; ++i) {
      std::memset(base_, 1, slab_->granules * kGranuleSize);
      if (!soon) Age(slab_);
      Slab::Destroy(slab_);
      slab_ = Slab::Create(GetParam());
      base_ = arena.AddressOf(slab_->start);
      count += slab_->tail_gone_in != 0 ? 1 : 0;
    }
    return count;
  };
  returned(false);
  if (Slab::TailPages(GetParam()) == 0) {
    EXPECT_EQ(returned(true), 0);
    return;
  }
  const int most = returned(true);
  EXPECT_GE(most, 2) << "it is tried again";
  EXPECT_LE(most, 30);
  // As often as it takes to find out.
  for (int i = 0; i < 5; ++i) returned(false);
  EXPECT_EQ(returned(false), 300);
}

// Free memory counts by what is resident of it, as far as that is known.
TEST(SlabPagesTest, LargeBlocksThatAreHardlyUsedCountAsLittle) {
  constexpr SizeClass kClass = kLastL25Class - 1;  // no other test's
  constexpr size_t kSlabs = 200;
  const auto purged = [](size_t touched) {
    const size_t before = arena.GetStats().purged_bytes;
    std::vector<Slab*> slabs(kSlabs);
    for (Slab*& slab : slabs) {
      slab = Slab::Create(kClass);
      std::memset(arena.AddressOf(slab->start), 1, touched);
    }
    for (Slab* const slab : slabs) Slab::Destroy(slab);
    return arena.GetStats().purged_bytes - before;
  };
  purged(1);  // to find out how much is used
  arena.Purge(0);
  EXPECT_EQ(purged(1), 0u) << "200 pages of 160 MiB";
  arena.Purge(0);
  EXPECT_GT(purged(ClassSize(kClass)), kSlabs / 4 * ClassSize(kClass));
}

// How many pages the last of 200 slabs leaves, of whose blocks so many bytes
// are used, while demand has been `swing` bytes away from where it is.
size_t PagesLeft(SizeClass size_class, size_t used, size_t swing) {
  constexpr size_t kSlabs = 200;
  arena.Purge(0);
  arena.regretted() = size_t{1} << 30;
  const auto change = static_cast<int64_t>(swing);
  arena.demand().Note(arena.decay_period(), 0);  // forgets what was before
  arena.demand().Add(0, change);
  arena.demand().Note(arena.decay_period(), os::CoarseMilliseconds());
  std::vector<Slab*> slabs(kSlabs);
  for (Slab*& slab : slabs) {
    slab = Slab::Create(size_class);
    while (slab->free_count != 0) std::memset(slab->TakeOne(), 1, used);
  }
  arena.demand().Add(0, -change);
  const Slab* const last = slabs.back();
  const char* const start = arena.AddressOf(last->start);
  const size_t bytes = last->granules * kGranuleSize;
  for (Slab* const slab : slabs) {
    for (uint32_t i = 0; i < slab->blocks(); ++i) {
      slab->Put(size_class,
                arena.AddressOf(slab->start) + i * ClassSize(size_class));
    }
    Slab::Destroy(slab);
  }
  arena.regretted() = 0;
  return os::ResidentBytes(start, bytes) / os::kPageSize;
}

TEST(SlabPagesTest, SlabsThatAreLittleUsedReturnTheirPagesWhereTheyAreMany) {
  constexpr SizeClass kClass = kLastL2Class + 2;  // no other test's
  const uint32_t blocks = SlabBlocks(kClass);
  ASSERT_GT(blocks, 1u);
  const size_t slab_bytes = SlabGranules(kClass) * kGranuleSize;
  PagesLeft(kClass, 1, 0);  // to find out how much is used
  // What there is free is a page of each block, of all slabs together: as much
  // is wanted back when demand rises by what they are.
  EXPECT_EQ(PagesLeft(kClass, 1, 60 * slab_bytes), 1u);
  EXPECT_EQ(PagesLeft(kClass, 1, 400 * slab_bytes), blocks);
}

TEST(SlabPagesTest, SlabsThatAreUsedKeepTheirs) {
  constexpr SizeClass kClass = kLastL2Class + 5;  // no other test's
  ASSERT_GT(SlabBlocks(kClass), 1u);
  constexpr size_t kUsed = ClassSize(kClass) / 2;
  PagesLeft(kClass, kUsed, 0);
  EXPECT_GT(PagesLeft(kClass, kUsed, 120 * SlabGranules(kClass) * kGranuleSize),
            1u);
}

TEST(SlabPagesTest, ASlabOfOneBlockKeepsWhatIsThere) {
  constexpr SizeClass kClass = kLastL25Class - 2;  // no other test's
  ASSERT_EQ(SlabBlocks(kClass), 1u);
  constexpr size_t kUsed = 8 * os::kPageSize;
  PagesLeft(kClass, kUsed, 0);
  EXPECT_EQ(PagesLeft(kClass, kUsed, 60 * ClassSize(kClass)), 8u);
}

// How many pages a slab has when it is made where small blocks have used all of
// theirs, and what another has after it of whose pages two were used.
std::pair<size_t, size_t> PagesFound(SizeClass size_class) {
  constexpr SizeClass kSmall = 4;
  // More than fits before the first place of a spaced slab, and less than what
  // may stay as free memory beside this demand.
  constexpr size_t kSlabs = (2 << 20) / kGranuleSize;
  constexpr int64_t kDemand = 256 << 20;
  const auto pages_of = [](const Slab* slab) {
    return os::ResidentBytes(arena.AddressOf(slab->start),
                             slab->granules * kGranuleSize) /
           os::kPageSize;
  };
  arena.Purge(0);
  arena.demand().Add(0, kDemand);
  std::vector<Slab*> slabs(kSlabs);
  for (Slab*& slab : slabs) {
    slab = Slab::Create(kSmall);
    std::memset(arena.AddressOf(slab->start), 1, slab->granules * kGranuleSize);
  }
  for (Slab* const slab : slabs) Slab::Destroy(slab);
  Slab* slab = Slab::Create(size_class);
  const size_t first = pages_of(slab);
  std::memset(arena.AddressOf(slab->start), 1, 2 * os::kPageSize);
  Slab::Destroy(slab);
  slab = Slab::Create(size_class);
  const size_t second = pages_of(slab);
  Slab::Destroy(slab);
  arena.demand().Add(0, -kDemand);
  return {first, second};
}

TEST(SlabPagesTest, WhatSmallBlocksLeaveGoesWhereLittleIsUsed) {
  constexpr SizeClass kLittle = kLastL25Class - 3;  // no other test's
  PagesLeft(kLittle, 1, 0);  // to find out how much is used
  EXPECT_EQ(PagesFound(kLittle), std::pair(size_t{1}, size_t{2}));
}

TEST(SlabPagesTest, WhatSmallBlocksLeaveStaysWhereMoreIsUsed) {
  constexpr SizeClass kUsed = kLastL25Class - 4;  // no other test's
  PagesLeft(kUsed, ClassSize(kUsed) / 2, 0);
  EXPECT_GT(PagesFound(kUsed).first, kGranulePages);
  EXPECT_GT(PagesFound(kLastL2Class).first, 1u);
}

using SlabDeathTest = SlabTest;

TEST_P(SlabDeathTest, PutEndsTheProgramForWhatIsNoTakenBlock) {
  void* const block = slab_->TakeOne();
  EXPECT_DEATH(
      slab_->Put(slab_->size_class, base_ + 8 + (size() == 8 ? -4 : 0)),
      "hakmem: pointer into the middle of a block, at 0x");
  EXPECT_DEATH(slab_->Put(slab_->size_class, Block(blocks())),
               "hakmem: pointer into the middle of a block, at 0x");
  slab_->Put(slab_->size_class, block);
  EXPECT_DEATH(slab_->Put(slab_->size_class, block),
               "hakmem: double free of the block at 0x");
}

// The smallest, one whose blocks do not fill the slab, each pool's last, and
// the others' neighbours.
constexpr SizeClass kClasses[] = {1,
                                  2,
                                  4,
                                  9,
                                  13,
                                  kLastTinyClass,
                                  kLastTinyClass + 1,
                                  kLastL2Class,
                                  kLastL2Class + 1,
                                  50,
                                  kLastL25Class};

std::string NameOf(const testing::TestParamInfo<SizeClass>& info) {
  return std::to_string(ClassSize(info.param)) + "Bytes";
}

INSTANTIATE_TEST_SUITE_P(Class, SlabTest, testing::ValuesIn(kClasses), NameOf);
INSTANTIATE_TEST_SUITE_P(Class, SlabDeathTest, testing::ValuesIn(kClasses),
                         NameOf);

}  // namespace
}  // namespace hakmem
