#include "hakmem/core/cache_budget.h"

#include <algorithm>

#include "hakmem/core/arena.h"

namespace hakmem {

constinit CacheBudget cache_budget;

namespace {

// A larson of 32 KiB to 1 MiB on four threads hits in its own magazines 91 % of
// the time with an eighth of what is live, 97.5 % with a quarter; with small
// blocks the floor does, and the share makes no difference.
constexpr size_t kFloor = size_t{8} << 20;
constexpr size_t kShareOfLive = 4;

}  // namespace

int64_t CacheBudget::limit() const {
  const size_t by_live = kFloor + arena.live_bytes() / kShareOfLive;
  return static_cast<int64_t>(std::min(by_live, arena.cache_bytes()));
}

}  // namespace hakmem
