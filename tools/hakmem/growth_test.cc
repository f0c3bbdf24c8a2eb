#include "tools/hakmem/growth.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace hakmem::tools {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::vector<uint64_t> Rising(size_t moments, uint64_t step) {
  std::vector<uint64_t> live;
  for (size_t i = 0; i < moments; ++i) live.push_back(i * step);
  return live;
}

TEST(GrowthTest, FindsWhatOnlyGrows) {
  EXPECT_TRUE(OnlyGrows(Rising(100, kMiB), 100 * kMiB));
  EXPECT_TRUE(OnlyGrows(Rising(8, 10000), 70000));
}

TEST(GrowthTest, LeavesOutWhatIsTooShortOrTooLittle) {
  EXPECT_FALSE(OnlyGrows({}, 0));
  EXPECT_FALSE(OnlyGrows(Rising(7, kMiB), 7 * kMiB));
  EXPECT_FALSE(OnlyGrows(Rising(100, 600), 60000));
  EXPECT_FALSE(OnlyGrows(Rising(100, kMiB), 10000 * kMiB));
  EXPECT_FALSE(OnlyGrows(std::vector<uint64_t>(100, kMiB), kMiB));
}

TEST(GrowthTest, LeavesOutWhatFallsOrStops) {
  std::vector<uint64_t> live = Rising(100, kMiB);
  live[50] = 40 * kMiB;
  EXPECT_FALSE(OnlyGrows(live, 100 * kMiB));
  // Set up once, and then steady.
  live.assign(100, 50 * kMiB);
  live[0] = 0;
  EXPECT_FALSE(OnlyGrows(live, 50 * kMiB));
  // Grew in the first half only.
  live = Rising(100, kMiB);
  for (size_t i = 50; i < live.size(); ++i) live[i] = 50 * kMiB;
  EXPECT_FALSE(OnlyGrows(live, 50 * kMiB));
}

TEST(GrowthTest, ForgivesWhatThreadsCountLate) {
  std::vector<uint64_t> live = Rising(100, kMiB);
  live[50] = 49 * kMiB - 1000;
  EXPECT_TRUE(OnlyGrows(live, 100 * kMiB));
  // But not where that is as much as the growth itself.
  live = Rising(100, 1000);
  live[50] = 0;
  EXPECT_FALSE(OnlyGrows(live, 100000));
}

TEST(GrowthTest, SpreadsPointsOverTheMoments) {
  Recording recording;
  recording.moments.resize(5);
  Recording::Site site;
  site.points = {{1, 10, 1}, {3, 5, 1}};
  EXPECT_EQ(LiveBytes(recording, site),
            (std::vector<uint64_t>{0, 10, 10, 5, 5}));
}

}  // namespace
}  // namespace hakmem::tools
