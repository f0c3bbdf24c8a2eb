#include "tools/hakmem/growth.h"

#include <algorithm>

namespace hakmem::tools {
namespace {

constexpr size_t kLeastMoments = 8;
constexpr size_t kQuarters = 4;

}  // namespace

std::vector<uint64_t> LiveBytes(const Recording& recording,
                                const Recording::Site& site) {
  std::vector<uint64_t> live;
  live.reserve(recording.moments.size());
  uint64_t bytes = 0;
  auto point = site.points.begin();
  for (size_t i = 0; i < recording.moments.size(); ++i) {
    while (point != site.points.end() && point->moment <= i) {
      bytes = point++->live_bytes;
    }
    live.push_back(bytes);
  }
  return live;
}

bool OnlyGrows(const std::vector<uint64_t>& live, uint64_t total) {
  if (live.size() < kLeastMoments || live.back() <= live.front()) return false;
  const uint64_t growth = live.back() - live.front();
  if (growth < std::max(kSignificantGrowth, total / 100)) return false;
  uint64_t most = 0;
  for (const uint64_t bytes : live) {
    most = std::max(most, bytes);
    const uint64_t noise =
        std::min(std::max(most / 100, kLateBytes), growth / 4);
    if (most - bytes > noise) return false;
  }
  for (size_t i = 0; i < kQuarters; ++i) {
    const size_t last = live.size() - 1;
    if (live[last * (i + 1) / kQuarters] <= live[last * i / kQuarters]) {
      return false;
    }
  }
  return true;
}

}  // namespace hakmem::tools
