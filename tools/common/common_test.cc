#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tools/common/process.h"
#include "tools/common/random.h"

namespace hakmem::tools {
namespace {

TEST(RandomTest, SameSeedSameNumbersAndStreamsDiffer) {
  Random a(7, 1), b(7, 1), other_stream(7, 2), other_seed(8, 1);
  for (int i = 0; i < 100; ++i) {
    const uint64_t number = a.Next();
    EXPECT_EQ(number, b.Next());
    EXPECT_NE(number, other_stream.Next());
    EXPECT_NE(number, other_seed.Next());
  }
}

TEST(RandomTest, RangesAreCoveredEvenlyWithBothEnds) {
  Random random(1);
  std::vector<int> seen(10);
  for (int i = 0; i < 10000; ++i) ++seen[random.Between(20, 29) - 20];
  for (const int count : seen) {
    EXPECT_GT(count, 850);
    EXPECT_LT(count, 1150);
  }
  EXPECT_EQ(random.Between(5, 5), 5u);
  EXPECT_EQ(random.Below(1), 0u);
}

TEST(ProcessTest, ResidentMemoryFollowsAMappingAndThePeakStays) {
  constexpr size_t kBytes = size_t{64} << 20;
  constexpr uint64_t kMost = (60 << 20) / 1024;
  const uint64_t before = ResidentKib();
  ASSERT_GT(before, 0u);
  void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  memset(memory, 1, kBytes);
  EXPECT_GE(ResidentKib(), before + kMost);
  munmap(memory, kBytes);
  EXPECT_LT(ResidentKib(), before + kMost);
  EXPECT_GE(PeakResidentKib(), before + kMost);
}

TEST(ProcessTest, TheAllocatorHasAName) {
  EXPECT_FALSE(std::string(AllocatorName()).empty());
}

}  // namespace
}  // namespace hakmem::tools
