#include "hakmem/core/cache_budget.h"

#include <algorithm>

#include "hakmem/core/arena.h"

namespace hakmem {

constinit CacheBudget cache_budget;

namespace {

constexpr size_t kFloor = size_t{8} << 20;
constexpr size_t kShareOfLive = 8;

}  // namespace

int64_t CacheBudget::limit() const {
  const size_t by_live = kFloor + arena.live_bytes() / kShareOfLive;
  return static_cast<int64_t>(std::min(by_live, arena.cache_bytes()));
}

}  // namespace hakmem
