#include "hakmem/core/cache_budget.h"

#include <algorithm>

#include "hakmem/core/arena.h"

namespace hakmem {

constinit CacheBudget cache_budget{hak_observed.cached_bytes};

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

// All threads together, where more is held than HAKMEM_SOFT_LIMIT says.
constexpr int64_t kFloorPressed = 256 << 10;

// A thread by itself.
constexpr size_t kFloorAlone = size_t{1} << 20;
constexpr size_t kShareOfLiveAlone = 64;

// So many threads count as few, and may go over the limit by this factor.
constexpr uint32_t kFewThreads = 16;
constexpr int64_t kFactorOfFew = 4;

}  // namespace

bool CacheBudget::TakeFirst(size_t bytes) {
  if (threads_.load(std::memory_order_relaxed) <= kFewThreads &&
      !arena.pressed()) {
    return Take(bytes, limit() * kFactorOfFew);
  }
  // Not with what is live, which grows with the slabs that cached blocks pin.
  return Take(bytes, std::min(limit(), static_cast<int64_t>(kFloor)));
}

int64_t CacheBudget::limit() const {
  const size_t threads = std::clamp<size_t>(
      sharers_.load(std::memory_order_relaxed), 1, kMostThreads);
  const size_t live = arena.live_bytes();
  const size_t by_live = threads == 1
                             ? kFloorAlone + live / kShareOfLiveAlone
                             : threads * (kFloor + live / kShareOfLive);
  if (arena.pressed()) return kFloorPressed;
  return static_cast<int64_t>(std::min(by_live, arena.cache_bytes()));
}

}  // namespace hakmem
