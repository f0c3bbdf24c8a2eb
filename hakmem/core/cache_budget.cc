#include "hakmem/core/cache_budget.h"

#include <algorithm>

#include "hakmem/core/arena.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/os.h"

namespace hakmem {

constinit CacheBudget cache_budget{hak_observed.cached_bytes};

namespace {

// A thread adds this much, up to four threads or as many as there are
// processors: with one thread alone a miss is a lock that nobody else wants, so
// a small cache does, and what is cached pins slabs that could go back.
constexpr size_t kFloor = size_t{2} << 20;
constexpr size_t kFewThreads = 4;

// And a part of what is live, up to four threads, or on more processors eight.
// On a larson of 32 KiB to 1 MiB four threads hit in their own magazines 91 %
// of the time with an eighth of what is live, 97.5 % with a quarter; with small
// blocks the floor does, and the share makes no difference. On 16 processors,
// larson with 2 to 32 KiB on as many threads did 2.7 times as much with a half
// of what is live as with a quarter, and as much with all of it.
//
// The depots of blocks up to 32 KiB may have an eighth. With a sixteenth, of
// which threads' magazines take three quarters, "mixed" came to one of two ends
// by the order in which its four threads got going: in some runs the depots
// were full, it went to the slabs 14,000 times in place of 3,000, and took 1.2
// times as long. With a twelfth half of these runs were still so. Those of
// larger blocks have a sixteenth: with an eighth "threads" has 20 MiB at its
// peak in place of 18.5.
constexpr size_t kMostShares = 8;

// As many as are at work at a time, or would be with a few processors more.
size_t WorkingThreads(size_t threads, uint32_t processors) {
  return std::min(threads, std::max<size_t>(kFewThreads, processors));
}

// Each of more threads adds this much, up to so many: threads without room meet
// at the depots, and when these have none either at a pool's lock. When more
// threads added nothing, larson on 64 threads (one life, on two cores) took 14
// times as long as it does, and 12 times as long as tcmalloc. Twice as much is
// no faster, and 1,000 threads that wait hold 64 KiB each where they have 55.
constexpr size_t kFloorOfMany = 128 << 10;
constexpr size_t kMostOfMany = 64;

// All threads together, where more is held than HAKMEM_SOFT_LIMIT says.
constexpr int64_t kFloorPressed = 256 << 10;

// A thread by itself. What goes round by magazines alone is handed out in
// another order each time, until neighbours in a tree are anywhere; the slabs
// put it in order again. With twice as much the workload "tree" takes 1.28
// times as long, waiting for memory, seven other trees 0.87 to 1.08 times, and
// "strings" has 37.5 MiB at its peak in place of 35.5. With half as much pairs
// of 8 to 256 bytes with 1000 live take 1.2 times as long.
constexpr size_t kFloorAlone = size_t{512} << 10;
constexpr size_t kShareOfLiveAlone = 64;

// So many threads, or as many as there are processors, are not too many to go
// over the limit and what a thread by itself has, by this factor: so one may
// begin with two blocks of any size.
constexpr uint32_t kNotMany = 16;
constexpr int64_t kFactorOfFirst = 4;

bool AreMany(size_t threads) {
  return threads > std::max(kNotMany, arena.processors());
}

// So much, or what HAKMEM_CACHE_BYTES says.
int64_t Allowed(size_t bytes) {
  return static_cast<int64_t>(std::min(bytes, arena.cache_bytes()));
}

}  // namespace

size_t CacheBudget::Floor(size_t threads, uint32_t processors) {
  const size_t full = WorkingThreads(threads, processors);
  const size_t small = std::min(threads, std::max(full, kMostOfMany)) - full;
  return full * kFloor + small * kFloorOfMany;
}

void CacheBudget::CountThreads(int32_t change) {
  const auto step = static_cast<uint32_t>(change);  // modulo 2^32
  const uint32_t now =
      threads_.fetch_add(step, std::memory_order_relaxed) + step;
  // Some more: one that waits for the others, and those that are about to end.
  const uint32_t most = arena.processors() + arena.processors() / 4;
  Mutex::SetSpins(now > 1 && now <= most);
}

bool CacheBudget::TakeFirst(size_t bytes) {
  const uint32_t threads = threads_.load(std::memory_order_relaxed);
  if (!AreMany(threads) && !arena.pressed()) {
    const size_t most = static_cast<size_t>(limit()) + kFloorAlone;
    return Take(bytes, Allowed(most) * kFactorOfFirst);
  }
  return Take(bytes, LimitFor(threads, kShareOfLive) / 4 * 3);
}

int64_t CacheBudget::limit(size_t share) const {
  return LimitFor(sharers_.load(std::memory_order_relaxed), share);
}

int64_t CacheBudget::LimitFor(size_t threads, size_t share) const {
  if (arena.pressed()) return kFloorPressed;
  size_t live = arena.live_bytes();
  size_t limit = 0;
  if (threads <= 1) {
    limit = kFloorAlone + live / kShareOfLiveAlone;
  } else {
    // Much of what many threads seem to have live are slabs that what they have
    // cached pins: a bin may hold twice what it counts for.
    if (AreMany(threads)) {
      live -=
          std::min(live, 2 * static_cast<size_t>(std::max<int64_t>(used(), 0)));
    }
    const uint32_t processors = arena.processors();
    const size_t working = WorkingThreads(threads, processors);
    limit = Floor(threads, processors) +
            std::min(working, kMostShares) * (live / share);
  }
  return Allowed(limit);
}

bool CacheBudget::TakeForPeak(size_t bytes, size_t divisor, size_t share) {
  if (TakeForDepot(bytes, share)) return true;
  const auto wanted = static_cast<int64_t>(bytes);
  if (used() + wanted > LimitForPeak(divisor, share)) return false;
  for_peak_.fetch_add(wanted, std::memory_order_relaxed);
  used_.fetch_add(wanted, std::memory_order_relaxed);
  return true;
}

void CacheBudget::ReturnForPeak(int64_t bytes) {
  int64_t now = for_peak();
  while (!for_peak_.compare_exchange_weak(
      now, std::max<int64_t>(0, now - bytes), std::memory_order_relaxed)) {
  }
}

int64_t CacheBudget::LimitForPeak(size_t divisor, size_t share) {
  const size_t regretted = arena.regretted().load(std::memory_order_relaxed);
  if (regretted == 0 || arena.pressed()) return 0;
  HelgrindIgnore(&levels_, sizeof(levels_));
  HelgrindIgnore(&for_peak_, sizeof(for_peak_));
  const size_t all = arena.demand().bytes();
  const auto cached = static_cast<size_t>(std::max<int64_t>(used(), 0));
  const size_t below =
      levels_.Below(all - std::min(all, cached), divisor, arena.decay_period(),
                    os::CoarseMilliseconds());
  return Allowed(static_cast<size_t>(limit(share)) +
                 std::min(regretted, below));
}

}  // namespace hakmem
