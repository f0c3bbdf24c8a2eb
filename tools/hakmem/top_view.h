// What `hakmem top` shows: the figures of a heap and the table of its sites, as
// lines of text.

#ifndef TOOLS_HAKMEM_TOP_VIEW_H_
#define TOOLS_HAKMEM_TOP_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tools/hakmem/snapshot.h"

namespace hakmem::tools {

enum class SortKey { kLive, kGrowth, kBlocks, kPeak, kAllocs };

// The key of that name ("live", "growth", "blocks", "peak", "allocs") or of
// that letter, its first.
std::optional<SortKey> FindSortKey(absl::string_view name);

// The names for people: "live, growth, ...".
std::string SortKeyNames();

// What stands in the header beside figures.
struct TopTarget {
  std::string program;
  int pid = 0;
  std::string stage;
};

// A table of sites and what became of it since the first snapshot. Times are in
// seconds, of any clock that goes on evenly.
class TopView {
 public:
  // Takes the next snapshot. Growth is counted from the first one, rates over
  // the last ten seconds.
  void Add(const Snapshot& snapshot, double time);

  // Counts growth from the last snapshot on.
  void Restart();

  // The sites in the order of the key, greatest first and at most `limit`.
  std::vector<SiteNumber> Sorted(SortKey key, size_t limit) const;

  // The lines to show, none wider than `columns`. `site_count` says how many
  // sites there are beside those listed.
  struct Layout {
    size_t columns = 0;  // 0: as wide as need be
    double uptime = 0;
    SortKey sort = SortKey::kLive;
    bool colours = false;
    std::string note;  // what stands above the table, such as the keys
  };
  std::vector<std::string> Lines(
      const TopTarget& target, const Layout& layout,
      const std::vector<SiteNumber>& sites,
      const std::function<std::string(SiteNumber)>& title) const;

 private:
  // Live bytes of every site that had some, for growth.
  struct Before {
    double time = 0;
    uint64_t rss = 0;
    uint64_t live = 0;
    std::map<SiteNumber, uint64_t> sites;
  };

  int64_t Growth(SiteNumber site) const;
  double PerSecond(SiteNumber site) const;

  Snapshot last_;
  double time_ = 0;
  std::optional<Before> first_;
  std::deque<Before> recent_;
};

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_TOP_VIEW_H_
