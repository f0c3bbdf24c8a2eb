// What the thread caches and depots of all pools may hold together.

#ifndef HAKMEM_CORE_CACHE_BUDGET_H_
#define HAKMEM_CORE_CACHE_BUDGET_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/demand.h"
#include "hakmem/core/observed.h"

namespace hakmem {

// Counts bytes of blocks: for threads the room in their magazines, used or not,
// for depots what is there. The limit follows what is live and how many threads
// share it, so that caches stay a small part of a small heap, up to
// HAKMEM_CACHE_BYTES. A thread shares it from when it wants more than the first
// few blocks of a bin: one that starts others and waits for them does not. And
// who waits for a lock spins (mutex.h) while each thread has a processor.
//
// Thread safety: every function may be called from any thread. A relaxed
// counter: the limit is kept to within what threads are adding at the moment.
class CacheBudget {
 public:
  // Of what is live a thread adds this part to the limit, for threads'
  // magazines; for depots the part that is their pool's (PoolGeometry).
  static constexpr size_t kShareOfLive = 16;

  // Counts in `used`.
  explicit constexpr CacheBudget(std::atomic<int64_t>& used) : used_(used) {}

  // For a thread's magazines to grow. False, and nothing taken, when that would
  // go over the limit. Threads leave a quarter to the depots: where they do
  // not, what one thread frees and another allocates goes through a pool's
  // lock. With it the other way round the workload "mixed" took 1.1 times as
  // long and had 40 MiB at its peak instead of 34, and larson with 32 KiB to 1
  // MiB on four threads waited for locks twice as often.
  bool TakeForThread(size_t bytes) { return Take(bytes, limit() / 4 * 3); }

  // For a magazine to wait in a depot.
  bool TakeForDepot(size_t bytes, size_t share = kShareOfLive) {
    return Take(bytes, limit(share));
  }

  // The same where depots may also have, beside the limit, what the program is
  // to want back: as much as it has less than at its last peak, or than one
  // part in `divisor` of that, and as it lately wanted back of what had gone to
  // the system (Arena::regretted()). That leaves the others their limits.
  bool TakeForPeak(size_t bytes, size_t divisor = 1,
                   size_t share = kShareOfLive);

  // For the first few blocks of a bin. A few threads may go over the limit with
  // them; of many, each may be idle for ever.
  bool TakeFirst(size_t bytes);

  // For the first few blocks of a thread's first bins, limit or not.
  void Force(size_t bytes) {
    used_.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }

  // What is there for a peak goes first.
  void Return(size_t bytes) {
    used_.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
    if (for_peak() != 0) [[unlikely]]
      ReturnForPeak(static_cast<int64_t>(bytes));
  }

  // For every thread that has a cache from now on, and that has one no more.
  void AddThread() { CountThreads(1); }
  void RemoveThread() { CountThreads(-1); }

  // Likewise for every thread that shares the limit.
  void AddSharer() { sharers_.fetch_add(1, std::memory_order_relaxed); }
  void RemoveSharer() { sharers_.fetch_sub(1, std::memory_order_relaxed); }

  // What so many threads may have together on so many processors, however
  // little is live.
  static size_t Floor(size_t threads, uint32_t processors);

  int64_t used() const { return used_.load(std::memory_order_relaxed); }
  int64_t limit(size_t share = kShareOfLive) const;

 private:
  void CountThreads(int32_t change);
  int64_t LimitFor(size_t threads, size_t share) const;
  int64_t LimitForPeak(size_t divisor, size_t share);
  void ReturnForPeak(int64_t bytes);
  int64_t for_peak() const { return for_peak_.load(std::memory_order_relaxed); }
  bool Take(size_t bytes, int64_t limit) {
    const auto wanted = static_cast<int64_t>(bytes);
    // Those who would not get it do not take the count from the others.
    const int64_t most = limit + for_peak();
    if (used() + wanted > most) return false;
    if (used_.fetch_add(wanted, std::memory_order_relaxed) + wanted <= most) {
      return true;
    }
    used_.fetch_sub(wanted, std::memory_order_relaxed);
    return false;
  }

  std::atomic<int64_t>& used_;
  std::atomic<uint32_t> threads_{0};
  std::atomic<uint32_t> sharers_{0};
  // Of what is used, at most what was taken beyond the limit for a peak.
  std::atomic<int64_t> for_peak_{0};
  RecentLevels levels_;  // of what the program has
};

// Counts where those who look from outside find it, on a cache line of its own.
extern constinit CacheBudget cache_budget;

}  // namespace hakmem

#endif  // HAKMEM_CORE_CACHE_BUDGET_H_
