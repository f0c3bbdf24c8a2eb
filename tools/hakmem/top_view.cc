#include "tools/hakmem/top_view.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "tools/hakmem/format.h"

namespace hakmem::tools {
namespace {

struct NamedKey {
  SortKey key;
  const char* name;
};
constexpr NamedKey kSortKeys[] = {{SortKey::kLive, "live"},
                                  {SortKey::kGrowth, "growth"},
                                  {SortKey::kBlocks, "blocks"},
                                  {SortKey::kPeak, "peak"},
                                  {SortKey::kAllocs, "allocs"}};

// How far back a rate looks.
constexpr double kRateSeconds = 10;

// The columns before the name of a site: as wide as the widest that FormatBytes
// gives, or as a count that is still read at a glance.
constexpr struct {
  const char* title;
  size_t width;
} kColumns[] = {{"LIVE", 9},        {"BLOCKS", 11}, {"PEAK", 9}, {"GROWTH", 10},
                {"PER SECOND", 10}, {"ALLOCS", 14}, {"MEAN", 9}};

constexpr char kBold[] = "\x1b[1m";
constexpr char kInverse[] = "\x1b[7m";
constexpr char kPlain[] = "\x1b[0m";

std::string Right(absl::string_view text, size_t width) {
  const size_t columns = Columns(text);
  return absl::StrCat(std::string(width > columns ? width - columns : 0, ' '),
                      text);
}

std::string Cut(std::string line, size_t columns) {
  if (columns == 0 || Columns(line) <= columns) return line;
  return std::string(FirstColumns(line, columns));
}

std::string Styled(const char* style, std::string line, size_t columns,
                   bool colours) {
  line = Cut(std::move(line), columns);
  if (!colours) return line;
  const size_t width = Columns(line);
  if (style == kInverse && width < columns) line.append(columns - width, ' ');
  return absl::StrCat(style, line, kPlain);
}

const char* NameOf(SortKey key) {
  for (const NamedKey& named : kSortKeys) {
    if (named.key == key) return named.name;
  }
  return "";
}

}  // namespace

std::optional<SortKey> FindSortKey(absl::string_view name) {
  for (const NamedKey& named : kSortKeys) {
    const absl::string_view full = named.name;
    if (name == full || (name.size() == 1 && name[0] == full[0])) {
      return named.key;
    }
  }
  return std::nullopt;
}

std::string SortKeyNames() {
  std::string names;
  for (const NamedKey& named : kSortKeys) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", named.name);
  }
  return names;
}

void TopView::Add(const Snapshot& snapshot, double time) {
  last_ = snapshot;
  time_ = time;
  Before before;
  before.time = time;
  before.rss = snapshot.rss;
  before.live = snapshot.heap.live;
  for (const auto& [number, site] : snapshot.sites) {
    before.sites[number] = site.live_bytes;
  }
  if (!first_.has_value()) first_ = before;
  recent_.push_back(std::move(before));
  // One that is too old stays, so that there always is one to compare with.
  while (recent_.size() > 2 && recent_[1].time < time - kRateSeconds) {
    recent_.pop_front();
  }
}

void TopView::Restart() {
  if (recent_.empty()) return;
  first_ = recent_.back();
}

int64_t TopView::Growth(SiteNumber site) const {
  const auto before = first_->sites.find(site);
  const uint64_t old = before == first_->sites.end() ? 0 : before->second;
  return static_cast<int64_t>(last_.sites.at(site).live_bytes - old);
}

double TopView::PerSecond(SiteNumber site) const {
  const Before& before = recent_.front();
  if (time_ <= before.time) return 0;
  const auto old = before.sites.find(site);
  const double had =
      old == before.sites.end() ? 0 : static_cast<double>(old->second);
  return (static_cast<double>(last_.sites.at(site).live_bytes) - had) /
         (time_ - before.time);
}

std::vector<SiteNumber> TopView::Sorted(SortKey key, size_t limit) const {
  struct Entry {
    int64_t by;
    SiteNumber number;
  };
  std::vector<Entry> entries;
  for (const auto& [number, site] : last_.sites) {
    uint64_t by = 0;
    switch (key) {
      case SortKey::kLive:
        by = site.live_bytes;
        break;
      case SortKey::kGrowth:
        by = static_cast<uint64_t>(Growth(number));
        break;
      case SortKey::kBlocks:
        by = site.live_blocks;
        break;
      case SortKey::kPeak:
        by = site.peak_bytes;
        break;
      case SortKey::kAllocs:
        by = site.allocs;
        break;
    }
    entries.push_back({static_cast<int64_t>(by), number});
  }
  const size_t count = std::min(limit, entries.size());
  // Equal ones keep their places from one snapshot to the next.
  std::partial_sort(entries.begin(),
                    entries.begin() + static_cast<ptrdiff_t>(count),
                    entries.end(), [](const Entry& a, const Entry& b) {
                      return a.by != b.by ? a.by > b.by : a.number < b.number;
                    });
  std::vector<SiteNumber> sorted;
  for (size_t i = 0; i < count; ++i) sorted.push_back(entries[i].number);
  return sorted;
}

std::vector<std::string> TopView::Lines(
    const TopTarget& target, const Layout& layout,
    const std::vector<SiteNumber>& sites,
    const std::function<std::string(SiteNumber)>& title) const {
  const size_t columns = layout.columns;
  std::vector<std::string> lines;
  lines.push_back(
      Styled(kBold,
             absl::StrCat(Printable(target.program), "  pid ", target.pid, "  ",
                          Printable(target.stage), "  up ",
                          FormatDuration(static_cast<uint64_t>(layout.uptime))),
             columns, layout.colours));
  const HeapFigures& heap = last_.heap;
  lines.push_back(Cut(absl::StrCat("rss ", FormatBytes(last_.rss), "  live ",
                                   FormatBytes(heap.live), "  cached ",
                                   FormatBytes(heap.cached), "  free ",
                                   FormatBytes(heap.free + heap.partial),
                                   "  metadata ", FormatBytes(heap.metadata)),
                      columns));
  lines.push_back(Cut(
      absl::StrCat("growth in ",
                   FormatDuration(static_cast<uint64_t>(
                       std::lround(std::max(time_ - first_->time, 0.0)))),
                   "  rss ",
                   FormatGrowth(static_cast<int64_t>(last_.rss - first_->rss)),
                   "  live ",
                   FormatGrowth(static_cast<int64_t>(heap.live - first_->live)),
                   "  sites ", FormatCount(last_.sites.size()), "  by ",
                   NameOf(layout.sort)),
      columns));
  lines.push_back(Cut(layout.note, columns));
  if (last_.sites.empty()) {
    lines.push_back(Cut("no sites are in use", columns));
    return lines;
  }
  std::string heading;
  for (const auto& column : kColumns) {
    absl::StrAppend(&heading, Right(column.title, column.width), " ");
  }
  lines.push_back(Styled(kInverse, heading + " SITE", columns, layout.colours));
  for (const SiteNumber number : sites) {
    const SiteFigures& site = last_.sites.at(number);
    const double rate = PerSecond(number);
    const std::string cells[] = {
        FormatBytes(site.live_bytes),
        FormatCount(site.live_blocks),
        FormatBytes(site.peak_bytes),
        FormatGrowth(Growth(number)),
        FormatGrowth(std::llround(rate)),
        FormatCount(site.allocs),
        FormatBytes(site.allocs == 0 ? 0 : site.alloc_bytes / site.allocs)};
    std::string line;
    size_t i = 0;
    for (const auto& column : kColumns) {
      absl::StrAppend(&line, Right(cells[i++], column.width), " ");
    }
    absl::StrAppend(&line, " ", title(number));
    lines.push_back(Cut(std::move(line), columns));
  }
  return lines;
}

}  // namespace hakmem::tools
