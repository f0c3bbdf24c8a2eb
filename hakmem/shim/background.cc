#include "hakmem/shim/background.h"

#include <algorithm>
#include <cerrno>

#include "hakmem/core/core.h"
#include "hakmem/shim/stage.h"

namespace hakmem::heap {
namespace {

// In milliseconds. What has become free is gone after four rounds: the depot's
// look at what is there, a second one that finds it still there, and the same
// for the slabs and the arena; with the sleep before the first one that is
// 0.65 s. What was kept because it had been wanted back before takes longer,
// half of it a second; and so does what goes later (HAKMEM_PURGE).
constexpr int64_t kLongestSleep = 250;
constexpr int64_t kAftermath = 10000;

void Run(OwnThread& self) {
  const auto period = arena.decay_period();
  const auto aftermath =
      std::max(kAftermath, 4 * Arena::kLaterPeriods * period);
  size_t work = 0;
  size_t live = 0;
  int64_t busy_until = 0;
  while (self.IsToRun()) {
    const int64_t now = os::CoarseMilliseconds();
    if (arena.work() != work || arena.live_bytes() != live) {
      work = arena.work();
      live = arena.live_bytes();
      busy_until = now + aftermath;
    }
    if (now < busy_until) Tidy(now);
    self.Nap(now < busy_until ? period : std::max(period, kLongestSleep));
  }
}

constinit OwnThread thread(&Run);

}  // namespace

void Tidy(int64_t now) {
  CachedPool::TidyWhatIsDue(now);
  tiny_pool.backend().Decay(now);
  l2_pool.backend().Decay(now);
  l25_pool.backend().Decay(now);
  arena.Decay(now);
}

int StartBackground() {
  // A library without locks is for one thread.
  if constexpr (HAKMEM_STAGE == HAKMEM_STAGE_UNLOCKED) return ENOTSUP;
  if (!arena.EnsureReady()) return ENOMEM;
  return thread.Start();
}

void StopBackground() { thread.Stop(); }

void RestartBackgroundInChild() { thread.RestartInChild(); }

}  // namespace hakmem::heap
