#include "tools/hakmem/suggest.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"

namespace hakmem::tools {
namespace {

// The optimal string alignment distance, row by row.
size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> before_last(b.size() + 1);
  std::vector<size_t> last(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    before_last.swap(last);
    last.swap(row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1,
                         last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

}  // namespace

absl::string_view Nearest(absl::string_view name,
                          std::span<const absl::string_view> names) {
  absl::string_view nearest;
  size_t least = std::max<size_t>(name.size() / 3, 1) + 1;
  for (const absl::string_view candidate : names) {
    const size_t distance = Distance(name, candidate);
    if (distance >= least) continue;
    least = distance;
    nearest = candidate;
  }
  return nearest;
}

std::string DidYouMean(absl::string_view name, absl::string_view prefix,
                       std::span<const absl::string_view> names) {
  const absl::string_view nearest = Nearest(name, names);
  if (nearest.empty()) return "";
  return absl::StrCat("; did you mean '", prefix, nearest, "'?");
}

}  // namespace hakmem::tools
