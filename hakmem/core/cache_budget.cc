#include "hakmem/core/cache_budget.h"

#include <algorithm>

#include "hakmem/core/arena.h"

namespace hakmem {

constinit CacheBudget cache_budget;

namespace {

// A thread adds this much, and this part of what is live, up to four threads:
// with one thread alone a miss is a lock that nobody else wants, so a small
// cache does, and what is cached pins slabs that could go back. On a larson of
// 32 KiB to 1 MiB four threads hit in their own magazines 91 % of the time with
// an eighth of what is live, 97.5 % with a quarter; with small blocks the floor
// does, and the share makes no difference.
constexpr size_t kFloor = size_t{2} << 20;
constexpr size_t kShareOfLive = 16;
constexpr size_t kMostThreads = 4;

}  // namespace

int64_t CacheBudget::limit() const {
  const size_t threads = std::clamp<size_t>(
      threads_.load(std::memory_order_relaxed), 1, kMostThreads);
  const size_t by_live = threads * (kFloor + arena.live_bytes() / kShareOfLive);
  return static_cast<int64_t>(std::min(by_live, arena.cache_bytes()));
}

}  // namespace hakmem
