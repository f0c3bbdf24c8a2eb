#include "tools/hakmem/top_view.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tools/hakmem/format.h"

namespace hakmem::tools {
namespace {

constexpr uint64_t kKiB = 1024;

Snapshot MakeSnapshot(std::vector<uint64_t> live) {
  Snapshot snapshot;
  snapshot.rss = 10 * kKiB;
  for (size_t i = 0; i < live.size(); ++i) {
    SiteFigures& site = snapshot.sites[static_cast<SiteNumber>(i)];
    site.live_bytes = live[i];
    site.live_blocks = 100 - i;
    site.peak_bytes = 1000 * i;
    site.allocs = 10;
    site.alloc_bytes = 160;
    snapshot.heap.live += live[i];
  }
  return snapshot;
}

std::string Title(SiteNumber site) { return "site" + std::to_string(site); }

TEST(TopViewTest, SortsByEachKey) {
  TopView view;
  view.Add(MakeSnapshot({100, 300, 200}), 0);
  view.Add(MakeSnapshot({200, 250, 210}), 1);
  using Sites = std::vector<SiteNumber>;
  EXPECT_EQ(view.Sorted(SortKey::kLive, 10), (Sites{1, 2, 0}));
  EXPECT_EQ(view.Sorted(SortKey::kGrowth, 10), (Sites{0, 2, 1}));
  EXPECT_EQ(view.Sorted(SortKey::kBlocks, 10), (Sites{0, 1, 2}));
  EXPECT_EQ(view.Sorted(SortKey::kPeak, 10), (Sites{2, 1, 0}));
  // Equal ones in their own order.
  EXPECT_EQ(view.Sorted(SortKey::kAllocs, 2), (Sites{0, 1}));
}

TEST(TopViewTest, CountsGrowthAndRates) {
  TopView view;
  view.Add(MakeSnapshot({10 * kKiB}), 100);
  view.Add(MakeSnapshot({30 * kKiB}), 104);
  std::vector<std::string> lines =
      view.Lines({"prog", 5, "p0"}, {}, {0}, Title);
  EXPECT_TRUE(absl::StrContains(lines[2],
                                "growth in 0:04  rss 0 B  live "
                                "+20.0 KiB  sites 1  by live"))
      << lines[2];
  EXPECT_TRUE(absl::StrContains(lines.back(), " +20.0 KiB  +5.00 KiB "))
      << lines.back();
  // Rates forget what is long ago, growth does not.
  for (int i = 0; i < 20; ++i) view.Add(MakeSnapshot({30 * kKiB}), 105 + i);
  lines = view.Lines({"prog", 5, "p0"}, {}, {0}, Title);
  EXPECT_TRUE(absl::StrContains(lines.back(), " +20.0 KiB        0 B "))
      << lines.back();
  view.Restart();
  lines = view.Lines({"prog", 5, "p0"}, {}, {0}, Title);
  EXPECT_TRUE(absl::StrContains(lines.back(), "       0 B        0 B "))
      << lines.back();
  EXPECT_TRUE(absl::EndsWith(lines.back(), "  16 B  site0")) << lines.back();
}

TEST(TopViewTest, NoLineIsWiderThanTheWindow) {
  TopView view;
  view.Add(MakeSnapshot({uint64_t{1} << 40, 5}), 0);
  for (size_t columns = 1; columns < 140; ++columns) {
    TopView::Layout layout;
    layout.columns = columns;
    layout.note = "l live";
    for (const std::string& line :
         view.Lines({"program", 5, "p0"}, layout, {0, 1}, Title)) {
      EXPECT_LE(Columns(line), columns);
    }
  }
}

TEST(TopViewTest, ShowsTheHeapWithoutSites) {
  TopView view;
  Snapshot snapshot;
  snapshot.rss = 3 * kKiB;
  snapshot.heap = {2 * kKiB, 1, 2, 3, 4};
  view.Add(snapshot, 0);
  const std::string text =
      absl::StrJoin(view.Lines({"a\x1b[1m", 5, "p0"}, {}, {}, Title), "\n");
  EXPECT_TRUE(absl::StrContains(
      text, "rss 3.00 KiB  live 2.00 KiB  cached 1 B  free 5 B  metadata 4 B"))
      << text;
  EXPECT_TRUE(absl::StrContains(text, "no sites are in use"));
  EXPECT_FALSE(absl::StrContains(text, "\x1b"));
}

TEST(SiteTitleTest, SaysWhatIsKnown) {
  SiteName name;
  name.kind = "id";
  name.id = 42;
  EXPECT_EQ(SiteTitle(name), "id 42");
  name.id = 0x123456789;
  EXPECT_EQ(SiteTitle(name), "id 0x123456789");
  name.module = "/usr/lib/libx.so";
  name.offset = 0x10;
  EXPECT_EQ(SiteTitle(name), "libx.so+0x10");
  name.function = "f";
  EXPECT_EQ(SiteTitle(name), "f");
  name.file = "/home/me/src/net/a.cc";
  name.line = 7;
  EXPECT_EQ(SiteTitle(name), "net/a.cc:7 (f)");
  name.label = "a\nb";
  EXPECT_EQ(SiteTitle(name), "net/a.cc:7 (a?b)");
  name = SiteName();
  name.kind = "other";
  EXPECT_EQ(SiteTitle(name), "other");
}

TEST(SiteTitleTest, LongFunctionsBecomeShorter) {
  EXPECT_EQ(ShortFunction("std::vector<int>::push_back"),
            "std::vector<int>::push_back");
  EXPECT_EQ(ShortFunction("std::_Rb_tree_iterator<std::pair<int const, S> > "
                          "std::_Rb_tree<int, std::pair<int const, S> >::"
                          "_M_emplace<std::tuple<> >"),
            "std::_Rb_tree<>::_M_emplace<>");
  EXPECT_EQ(ShortFunction("std::basic_ostream<char, std::char_traits<char> >& "
                          "std::operator<< <std::char_traits<char> >"),
            "std::operator<< <>");
  EXPECT_EQ(ShortFunction(std::string(100, 'f') + "::operator->"),
            std::string(100, 'f') + "::operator->");
  EXPECT_EQ(ShortFunction(std::string(100, '>')), std::string(100, '>'));
}

}  // namespace
}  // namespace hakmem::tools
