#include "hakmem/core/size_class.h"

#include "gtest/gtest.h"

namespace hakmem {
namespace {

TEST(SizeClassTest, EverySizeGetsTheSmallestClassThatFits) {
  for (size_t size = 0; size <= kMaxPooledSize; ++size) {
    const SizeClass c = SizeToClass(size);
    ASSERT_GE(c, 1u);
    ASSERT_LT(c, kNumClasses);
    ASSERT_GE(ClassSize(c), size) << size;
    if (c > 1) {
      ASSERT_LT(ClassSize(c - 1), size) << size;
    }
  }
}

TEST(SizeClassTest, RoundingWastesAtMostAFifthAbove128Bytes) {
  for (size_t size = 129; size <= kMaxPooledSize; ++size) {
    const size_t block = ClassSize(SizeToClass(size));
    ASSERT_LE((block - size) * 5, block) << size;
  }
}

TEST(SizeClassTest, SizesFrom16OnKeep16ByteAlignment) {
  for (size_t size = 16; size <= kMaxPooledSize; ++size) {
    ASSERT_EQ(ClassSize(SizeToClass(size)) % 16, 0u) << size;
  }
  EXPECT_EQ(ClassSize(SizeToClass(8)), 8u);
  EXPECT_EQ(ClassSize(SizeToClass(9)), 16u);
}

TEST(SizeClassTest, MediumAndSmallAgreeWhereBothHold) {
  for (size_t size = 129; size <= kMaxTinySize; ++size) {
    ASSERT_EQ(MediumSizeToClass(size), SmallSizeToClass(size)) << size;
  }
}

TEST(SizeClassTest, TheTableOfL2AgreesWithTheRule) {
  for (size_t size = kMaxTinySize + 1; size <= kMaxL2Size; ++size) {
    ASSERT_EQ(L2SizeToClass(size), MediumSizeToClass(size)) << size;
  }
}

TEST(SizeClassTest, PoolsEndWhereTheirNamesSay) {
  EXPECT_EQ(ClassSize(kLastTinyClass), kMaxTinySize);
  EXPECT_EQ(ClassSize(kLastL2Class), kMaxL2Size);
  EXPECT_EQ(ClassSize(kLastL25Class), kMaxPooledSize);
  EXPECT_EQ(kLastL25Class + 1, kNumClasses);
}

TEST(SizeClassTest, BlockIndexIsExactDivisionForEveryOffset) {
  for (SizeClass c = 1; c < kNumClasses; ++c) {
    const size_t span = SlabGranules(c) * kGranuleSize;
    for (size_t offset = 0; offset < span; offset += 8) {
      ASSERT_EQ(BlockIndex(c, offset), offset / ClassSize(c))
          << "class " << c << " offset " << offset;
    }
  }
}

TEST(SizeClassTest, SlabTailsStayWithinASixteenthOrAnEighth) {
  for (SizeClass c = 1; c < kNumClasses; ++c) {
    const size_t span = SlabGranules(c) * kGranuleSize;
    const size_t used = SlabBlocks(c) * ClassSize(c);
    ASSERT_LE(used, span);
    const size_t part = ClassSize(c) <= kMaxL2Size ? 16 : 8;
    ASSERT_LE((span - used) * part, span) << "class " << c;
  }
}

TEST(SizeClassTest, AlignedClassesHoldAndAreMultiples) {
  for (size_t alignment = 1; alignment <= kGranuleSize; alignment *= 2) {
    for (size_t size = 0; size <= kMaxPooledSize; size = size * 9 / 8 + 1) {
      const SizeClass c = AlignedSizeToClass(size, alignment);
      if (c == kNoClass) continue;
      ASSERT_GE(ClassSize(c), size);
      ASSERT_EQ(ClassSize(c) % alignment, 0u);
    }
    EXPECT_NE(AlignedSizeToClass(kMaxPooledSize, alignment), kNoClass);
  }
  EXPECT_EQ(AlignedSizeToClass(1, 2 * kGranuleSize), kNoClass);
}

}  // namespace
}  // namespace hakmem
