#include "hakmem/core/site.h"

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/core.h"

namespace hakmem {
namespace {

TEST(SiteTest, TheSamePlaceIsTheSameSite) {
  std::string file = "a.cc";
  const uint32_t site = site_table.Place(file.c_str(), 3, "x");
  ASSERT_NE(site, kNoSite);
  file[0] = 'b';  // texts are copied
  EXPECT_STREQ(SiteTable::Name(SiteTable::Record(site).file), "a.cc");
  EXPECT_STREQ(SiteTable::Name(SiteTable::Record(site).label), "x");
  EXPECT_EQ(SiteTable::Record(site).line, 3u);
  EXPECT_EQ(site_table.Place("a.cc", 3, "x"), site);
  std::set<uint32_t> sites = {site};
  EXPECT_TRUE(sites.insert(site_table.Place("a.cc", 4, "x")).second);
  EXPECT_TRUE(sites.insert(site_table.Place("a.cc", 3, "y")).second);
  EXPECT_TRUE(sites.insert(site_table.Place("b.cc", 3, "x")).second);
  EXPECT_TRUE(sites.insert(site_table.Place("a.cc", 3, nullptr)).second);
  EXPECT_EQ(site_table.Place("a.cc", 3, ""),
            site_table.Place("a.cc", 3, nullptr));
  uint32_t index;
  ASSERT_TRUE(SiteTable::IsRecord(SiteTable::IdOf(site), &index));
  EXPECT_EQ(index, site);
  EXPECT_FALSE(SiteTable::IsRecord(SiteTable::IdOf(site) + 1, &index));
  EXPECT_FALSE(
      SiteTable::IsRecord(SiteTable::IdOf(SiteTable::count()), &index));
  EXPECT_EQ(SiteTable::IdOf(site) / sizeof(ObservedSite) % (1u << kSiteBits),
            site);
}

TEST(SiteTest, NumbersAndCallersAreOfTheirOwnKind) {
  const uint32_t number = site_table.Find(SiteKind::kNumber, 0x401000);
  const uint32_t caller = site_table.Find(SiteKind::kCaller, 0x401000);
  EXPECT_NE(number, caller);
  EXPECT_EQ(site_table.Find(SiteKind::kNumber, 0x401000), number);
  EXPECT_EQ(site_table.FindExisting(SiteKind::kCaller, 0x401000), caller);
  EXPECT_EQ(site_table.FindExisting(SiteKind::kNumber, 0x401001), kNoSite);
}

TEST(SiteTest, ACallerHasItsModule) {
  const auto address = reinterpret_cast<uintptr_t>(&std::getenv);
  const uint32_t site = site_table.Find(SiteKind::kCaller, address);
  const ObservedSite& record = SiteTable::Record(site);
  EXPECT_NE(std::string(SiteTable::Name(record.file)).find("libc.so"),
            std::string::npos);
  EXPECT_LT(record.module_offset, address);
  EXPECT_GT(record.module_offset, 0u);
  // The program itself, whose name the loader does not have.
  const uint32_t own = site_table.Find(SiteKind::kCaller,
                                       reinterpret_cast<uintptr_t>(&AddToCell));
  EXPECT_NE(std::string(SiteTable::Name(SiteTable::Record(own).file))
                .find("site_test"),
            std::string::npos);
}

TEST(SiteTest, StacksAreTheSameByTheirFrames) {
  const uint64_t frames[] = {1, 2, 3};
  const uint32_t site = site_table.Stack(frames, 3, 512);
  EXPECT_EQ(site_table.Stack(frames, 3, 512), site);
  EXPECT_NE(site_table.Stack(frames, 2, 512), site);
  const ObservedSite& record = SiteTable::Record(site);
  EXPECT_EQ(record.frame_count, 3u);
  EXPECT_EQ(reinterpret_cast<uint64_t*>(
                hak_observed.frames.address.load())[record.frames + 2],
            3u);
}

TEST(SiteTest, CellsAreOneForEachSize) {
  uint32_t site = site_table.Find(SiteKind::kNumber, 500);
  const uint32_t a = site_table.CellOf(&site, 5);
  const uint32_t b = site_table.CellOf(&site, LargeSizeClass(3 << 20));
  EXPECT_NE(a, b);
  EXPECT_EQ(site_table.CellOf(&site, 5), a);
  EXPECT_EQ(SiteTable::Cell(a).block_bytes, ClassSize(5));
  EXPECT_EQ(SiteTable::Cell(b).block_bytes, 0u);
  EXPECT_EQ(SiteTable::Cell(b).site, site);
  AddToCell(SiteTable::Cell(a), 5, 2);
  AddLargeAlloc(SiteTable::Cell(b), 3 << 20);
  AddLargeFree(SiteTable::Cell(b), 3 << 20);
  const SiteSums sums = SumSite(site);
  EXPECT_EQ(sums.live_blocks(), 3u);
  EXPECT_EQ(sums.live_bytes(), 3 * ClassSize(5));
  EXPECT_EQ(sums.alloc_bytes, 5 * ClassSize(5) + (3u << 20));
  EXPECT_EQ(sums.sizes[6], 5u);
  EXPECT_EQ(sums.sizes[22], 1u);
  EXPECT_EQ(SiteTable::Record(site).live_bytes, int64_t(3 * ClassSize(5)));
  EXPECT_EQ(SiteTable::Record(site).peak_bytes,
            int64_t((3u << 20) + 3 * ClassSize(5)));
}

TEST(SiteTest, ThreadsAgreeOnNewSitesAndCells) {
  constexpr uint32_t kThreads = 8;
  constexpr uint32_t kNumbers = 500;
  std::vector<std::vector<uint32_t>> found(kThreads);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([t, &found] {
      for (uint32_t i = 0; i < kNumbers; ++i) {
        uint32_t site = site_table.Find(SiteKind::kNumber, 100000 + i);
        found[t].push_back(site);
        const uint32_t cell = site_table.CellOf(&site, 1 + i % 20);
        AddToCell(SiteTable::Cell(cell), 1, 0);
        found[t].push_back(cell);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& numbers : found) EXPECT_EQ(numbers, found[0]);
  for (uint32_t i = 0; i < kNumbers; ++i) {
    EXPECT_EQ(SumSite(found[0][2 * i]).allocs, kThreads);
  }
}

// The cells that were found last are remembered, and one takes another's place.
TEST(SiteTest, ManySitesHaveTheirOwnCells) {
  constexpr uint32_t kNumbers = 2000;
  for (int round = 0; round < 2; ++round) {
    for (uint32_t i = 0; i < kNumbers; ++i) {
      for (uint32_t c = 1; c < 4; ++c) {
        uint32_t site = site_table.Find(SiteKind::kNumber, 200000 + i);
        const ObservedCell& cell = SiteTable::Cell(site_table.CellOf(&site, c));
        ASSERT_EQ(cell.site, site);
        ASSERT_EQ(cell.size_class, c);
      }
    }
  }
}

// The last two: after them there is no room.
TEST(SiteTest, YTheCellAfterTheLastIsCountedUnderOther) {
  uint32_t number = 200000;
  uint32_t site = kOtherSite;
  uint32_t c = 0;
  do {
    if (++c == kNumClasses) {
      c = 1;
      ++number;
    }
    site = site_table.Find(SiteKind::kNumber, number);
    site_table.CellOf(&site, c);
  } while (site != kOtherSite);
  EXPECT_EQ(hak_observed.cells.count, hak_observed.cells.capacity);
  // Nor is there one later, and the site is told each time.
  for (int i = 0; i < 2; ++i) {
    site = site_table.Find(SiteKind::kNumber, number);
    ASSERT_NE(site, kOtherSite);
    const ObservedCell& cell = SiteTable::Cell(site_table.CellOf(&site, c));
    EXPECT_EQ(site, kOtherSite);
    EXPECT_EQ(cell.site, kOtherSite);
    EXPECT_EQ(cell.size_class, c);
  }
}

TEST(SiteTest, ZTheSiteAfterTheLastIsCountedUnderOther) {
  const uint32_t before = SiteTable::count();
  testing::internal::CaptureStderr();
  uint64_t number = uint64_t{1} << 40;
  for (uint32_t i = before; i <= kMaxSites; ++i) {
    ASSERT_EQ(site_table.Find(SiteKind::kNumber, ++number), i);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(SiteTable::count(), kMaxSites + 1);
  testing::internal::CaptureStderr();
  EXPECT_EQ(site_table.Find(SiteKind::kNumber, ++number), kOtherSite);
  EXPECT_EQ(site_table.Place("full.cc", 1, "full"), kOtherSite);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "hakmem: warning: the table of sites is full, beyond 65536: their "
            "blocks are counted under \"other\"\n");
  // Those that there are are found still.
  EXPECT_EQ(site_table.Find(SiteKind::kNumber, (uint64_t{1} << 40) + 1),
            before);
  // Every size has a cell there.
  for (uint32_t c = 1; c < kNumClasses; ++c) {
    uint32_t site = kOtherSite;
    EXPECT_EQ(SiteTable::Cell(site_table.CellOf(&site, c)).size_class, c);
  }
  for (int power = 12; power < 47; ++power) {
    uint32_t site = kOtherSite;
    const uint32_t c = LargeSizeClass(size_t{1} << power);
    EXPECT_EQ(SiteTable::Cell(site_table.CellOf(&site, c)).size_class, c);
  }
  EXPECT_EQ(SiteTable::Cell(0).site, kOtherSite);
}

}  // namespace
}  // namespace hakmem
