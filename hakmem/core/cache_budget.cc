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

// Each of more threads adds this much, up to so many: threads without room meet
// at the depots, and when these have none either at a pool's lock. When more
// threads added nothing, larson on 64 threads (one life, on two cores) took 14
// times as long as it does, and 12 times as long as tcmalloc. Twice as much is
// no faster, and 1,000 threads that wait hold 64 KiB each where they have 55.
constexpr size_t kFloorOfMany = 128 << 10;
constexpr size_t kMostOfMany = 64;

size_t Floor(size_t threads) {
  const size_t of_few = std::min(threads, kMostThreads);
  return of_few * kFloor +
         (std::min(threads, kMostOfMany) - of_few) * kFloorOfMany;
}

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
  const uint32_t threads = threads_.load(std::memory_order_relaxed);
  if (threads <= kFewThreads && !arena.pressed()) {
    return Take(bytes, limit() * kFactorOfFew);
  }
  return Take(bytes, LimitFor(threads) / 4 * 3);
}

int64_t CacheBudget::limit() const {
  return LimitFor(sharers_.load(std::memory_order_relaxed));
}

int64_t CacheBudget::LimitFor(size_t threads) const {
  if (arena.pressed()) return kFloorPressed;
  size_t live = arena.live_bytes();
  size_t limit = 0;
  if (threads <= 1) {
    limit = kFloorAlone + live / kShareOfLiveAlone;
  } else {
    // Much of what many threads seem to have live are slabs that what they have
    // cached pins: a bin may hold twice what it counts for.
    if (threads > kFewThreads) {
      live -=
          std::min(live, 2 * static_cast<size_t>(std::max<int64_t>(used(), 0)));
    }
    limit = Floor(threads) +
            std::min(threads, kMostThreads) * (live / kShareOfLive);
  }
  return static_cast<int64_t>(std::min(limit, arena.cache_bytes()));
}

}  // namespace hakmem
