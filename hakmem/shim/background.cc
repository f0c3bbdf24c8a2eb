#include "hakmem/shim/background.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "hakmem/core/core.h"
#include "hakmem/shim/stage.h"

namespace hakmem::heap {
namespace {

// In milliseconds. What has become free is gone after four rounds: the depot's
// look at what is there, a second one that finds it still there, and the same
// for the slabs and the arena; with the sleep before the first one that is
// 0.65 s. What was kept because it had been wanted back before takes longer,
// half of it a second.
constexpr int64_t kLongestSleep = 250;
constexpr int64_t kAftermath = 10000;

// Its stack holds no more than a few frames; the program's thread-local storage
// is in there too.
constexpr size_t kStackBytes = 256 << 10;

enum class State : uint32_t { kStopped, kStarting, kRunning, kStopping };

// The futex that the thread sleeps on. A word and no lock: pthread_create()
// allocates, and no lock may be held then.
constinit std::atomic<State> state{State::kStopped};
constinit pthread_t thread;
static_assert(sizeof(state) == sizeof(uint32_t));

void Sleep(int64_t milliseconds) {
  const struct timespec duration = {
      .tv_sec = static_cast<time_t>(milliseconds / 1000),
      .tv_nsec = static_cast<long>(milliseconds % 1000 * 1000000)};
  syscall(SYS_futex, &state, FUTEX_WAIT_PRIVATE, State::kRunning, &duration,
          nullptr, 0);
}

bool IsToRun() {
  const State now = state.load(std::memory_order_acquire);
  return now == State::kStarting || now == State::kRunning;
}

void* Run(void*) {
  pthread_setname_np(pthread_self(), "hakmem");
  const auto period = arena.decay_period();
  size_t work = 0;
  size_t live = 0;
  int64_t busy_until = 0;
  while (IsToRun()) {
    const int64_t now = os::CoarseMilliseconds();
    if (arena.work() != work || arena.live_bytes() != live) {
      work = arena.work();
      live = arena.live_bytes();
      busy_until = now + kAftermath;
    }
    if (now < busy_until) Tidy(now);
    Sleep(now < busy_until ? period : std::max(period, kLongestSleep));
  }
  return nullptr;
}

// A thread for which no signal of the program's is meant.
int Create() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  int error = pthread_create(&thread, &attributes, &Run, nullptr);
  pthread_attr_destroy(&attributes);
  // With much thread-local storage that stack is too small.
  if (error != 0) error = pthread_create(&thread, nullptr, &Run, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error;
}

// Brings the state from one to the other, waiting while somebody else is
// starting or stopping the thread; false when it is `settled`, not `from`.
bool Enter(State from, State settled, State to) {
  for (;;) {
    State now = from;
    if (state.compare_exchange_strong(now, to, std::memory_order_acq_rel)) {
      return true;
    }
    if (now == settled) return false;
    sched_yield();
  }
}

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
  if (!Enter(State::kStopped, State::kRunning, State::kStarting)) return 0;
  const ErrnoKeeper keeper;
  const int error = Create();
  state.store(error == 0 ? State::kRunning : State::kStopped,
              std::memory_order_release);
  return error;
}

void StopBackground() {
  if (!Enter(State::kRunning, State::kStopped, State::kStopping)) return;
  const ErrnoKeeper keeper;
  syscall(SYS_futex, &state, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  pthread_join(thread, nullptr);
  state.store(State::kStopped, std::memory_order_release);
}

// Whoever was starting or stopping it does not exist here either, unless it is
// this thread, inside of pthread_create(); then it is not running yet.
void RestartBackgroundInChild() {
  const bool had_one = IsToRun();
  state.store(State::kStopped, std::memory_order_relaxed);
  if (had_one) StartBackground();
}

}  // namespace hakmem::heap
