#include "hakmem/core/tag.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/core.h"

namespace hakmem {
namespace {

TEST(TagTest, AgesArePowersOfFourAsTicksGoRound) {
  for (const uint64_t birth :
       {uint64_t{2}, uint64_t{40}, uint64_t{32700}, (uint64_t{5} << 33) + 9}) {
    const Tag tag = 7 | TickBits(birth);
    EXPECT_EQ(SiteOf(tag), 7u);
    EXPECT_TRUE(HasBirth(tag));
    uint32_t bucket = 0;
    for (uint64_t age = 1; age < 2 * kOldAge; age *= 4) {
      EXPECT_EQ(AgeBucket(tag, TickBits(birth + age - 1)), bucket) << age;
      ++bucket;
      EXPECT_EQ(AgeBucket(tag, TickBits(birth + age)), bucket) << age;
    }
    EXPECT_EQ(bucket, kAgeBuckets - 1);
  }
  EXPECT_FALSE(HasBirth(7));
  EXPECT_TRUE(HasBirth(7 | kOldBirth));
}

TEST(TagTest, TheTickThatLooksLikeNoBirthIsAnother) {
  for (uint64_t tick = (1u << 15) - 2; tick < (1u << 15) + 4; ++tick) {
    EXPECT_GE(TickBits(tick), 2 * kOldBirth) << tick;
  }
}

class SweepTest : public testing::Test {
 protected:
  SweepTest() {
    EXPECT_TRUE(arena.EnsureReady());
    slab_ = Slab::Create(TwinOf(SizeToClass(64)));
    large_ = AllocateLarge(size_t{3} << 20, 16, nullptr, 9 | Now());
    mapping_ = direct_mappings.Map(100000, 16, 10 | Now());
  }
  ~SweepTest() override {
    Slab::Destroy(slab_);
    EXPECT_EQ(SiteOf(FreeLarge(large_).tag), 9u);
    EXPECT_TRUE(direct_mappings.Unmap(mapping_));
  }

  static uint32_t Now() { return tag_clock.now(); }
  static void Go(uint64_t ticks) {
    tag_clock.AdvanceTo(std::max<uint64_t>(tag_clock.tick(), 1000) + ticks);
  }
  // The bucket that a block of each kind is in.
  std::vector<uint32_t> Buckets() {
    return {AgeBucket(slab_->TagOf(1), Now()),
            AgeBucket(LargeTag(large_), Now()),
            AgeBucket(LargeTag(mapping_), Now())};
  }
  void Bear() {
    slab_->TagOf(1).store(8 | Now());
    SetLargeTag(large_, 9 | Now());
    SetLargeTag(mapping_, 10 | Now());
  }

  Slab* slab_;
  void* large_;
  void* mapping_;
};

TEST_F(SweepTest, BlocksGrowOldAndStayIt) {
  Go(10);
  Bear();
  EXPECT_EQ(Buckets(), std::vector<uint32_t>(3, 0));
  Go(3);
  EXPECT_EQ(Buckets(), std::vector<uint32_t>(3, 1));
  // Three times as far as a tag reaches.
  for (uint32_t ticks = 0; ticks < 3u << 15; ticks += 100) {
    Go(100);
    const std::vector<uint32_t> buckets = Buckets();
    if (ticks > kOldAge) {
      ASSERT_EQ(buckets, std::vector<uint32_t>(3, kAgeBuckets - 1)) << ticks;
    }
  }
  EXPECT_EQ(SiteOf(slab_->TagOf(1)), 8u);
  EXPECT_EQ(slab_->TagOf(0).load(), kNoTag);
  EXPECT_EQ(SiteOf(LargeTag(mapping_)), 10u);
}

TEST_F(SweepTest, AProgramThatSleepsFindsItsBlocksOld) {
  for (const uint64_t sleep : {uint64_t{kOldAge}, uint64_t{1} << 15,
                               (uint64_t{1} << 15) + 1, uint64_t{1} << 20}) {
    Bear();
    Go(sleep);
    EXPECT_EQ(Buckets(), std::vector<uint32_t>(3, kAgeBuckets - 1)) << sleep;
  }
  // Less than that: as old as they are.
  Bear();
  Go(4000);
  EXPECT_EQ(Buckets(), std::vector<uint32_t>(3, 6));
}

TEST_F(SweepTest, BlocksWithoutABirthAreLeftAlone) {
  slab_->TagOf(2).store(11);
  Go(uint64_t{1} << 18);
  EXPECT_EQ(slab_->TagOf(2).load(), 11u);
}

TEST_F(SweepTest, TheClockDoesNotGoBack) {
  Go(100);
  const uint64_t tick = tag_clock.tick();
  tag_clock.AdvanceTo(tick - 50);
  EXPECT_EQ(tag_clock.tick(), tick);
}

TEST(TagSlabTest, EveryBlockOfEveryTwinHasATagOfItsOwn) {
  ASSERT_TRUE(arena.EnsureReady());
  const size_t before = arena.metadata_bytes();
  for (SizeClass c = 2; c < kNumClasses; ++c) {
    Slab* const slab = Slab::Create(TwinOf(c));
    ASSERT_NE(slab, nullptr);
    EXPECT_EQ(arena.ClassOf(arena.AddressOf(slab->start)), TwinOf(c));
    EXPECT_GE(arena.view().ClassOf(arena.AddressOf(slab->start)), kFirstDoor);
    for (uint32_t i = 0; i < slab->blocks(); ++i) {
      ASSERT_EQ(slab->TagOf(i).load(), kNoTag);
      slab->TagOf(i).store(i);
    }
    for (uint32_t i = 0; i < slab->blocks(); ++i) {
      ASSERT_EQ(slab->TagOf(i).load(), i);
    }
    // They stand beside the bitmaps and not in them.
    EXPECT_EQ(slab->free_count, slab->blocks());
    for (uint32_t i = 0; i < slab->blocks(); ++i) ASSERT_TRUE(slab->IsFree(i));
    Slab::Destroy(slab);
  }
  EXPECT_EQ(arena.metadata_bytes(), before);
}

// Of the slab of an owner all that is not free, by its one tag; of others what
// has one.
TEST(TagSlabTest, TaggedBlocksAreFoundInSlabsOfBothKinds) {
  ASSERT_TRUE(arena.EnsureReady());
  constexpr SizeClass kTwin = TwinOf(SizeToClass(64));
  constexpr Tag kOwners = 501;
  constexpr Tag kOther = 502;
  Slab* const owned = Slab::Create(kTwin, 1, kOwners);
  Slab* const other = Slab::Create(kTwin);
  ASSERT_TRUE(owned != nullptr && other != nullptr);
  for (int i = 0; i < 3; ++i) owned->TakeOne();
  for (const uint32_t index : {1, 4}) other->TagOf(index).store(kOther);
  std::map<Tag, uint64_t> bytes;
  ForEachTaggedBlock(
      [](void* context, Tag tag, uint64_t more) {
        (*static_cast<std::map<Tag, uint64_t>*>(context))[tag] += more;
      },
      &bytes);
  const std::map<Tag, uint64_t> expected = {{kOwners, 3 * 64},
                                            {kOther, 2 * 64}};
  EXPECT_EQ(bytes, expected);
  Slab::Destroy(owned);
  Slab::Destroy(other);
}

}  // namespace
}  // namespace hakmem
