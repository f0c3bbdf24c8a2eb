#include "hakmem/core/mutex.h"

#include <sched.h>
#include <valgrind/helgrind.h>
#include <valgrind/valgrind.h>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <new>
#include <utility>

#include "absl/base/config.h"
#include "absl/base/internal/thread_identity.h"
#include "absl/synchronization/internal/create_thread_identity.h"

#ifdef ABSL_HAVE_THREAD_SANITIZER
// TSan takes the mmap() of a thread's identity for a write, and does not see
// the order in which Abseil's queue makes that identity known to the thread
// which posts to it: Abseil tells it to look away inside of its lock. The one
// function excused is Abseil's, it calls none of ours.
extern "C" [[gnu::visibility("default")]] const char*
__tsan_default_suppressions() {
  return "race:^absl::*::synchronization_internal::Waiter::Post()\n";
}
#endif

namespace hakmem {
namespace {

// How often a thread tries for a lock before it sleeps, and what it waits in
// between: 30 to 80 microseconds in all.
constexpr int kTries = 500;
constexpr int kPauses = 4;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Abseil keeps what a thread waits with on that thread's stack, and whoever
// wakes it writes there, in an order that Helgrind does not see. The stack
// below `frame` is nobody's now: what uses it next is not in a race with the
// waker.
void ForgetStackBelow(void* frame) {
  constexpr size_t kDepth = 4096;
  VALGRIND_HG_CLEAN_MEMORY(static_cast<char*>(frame) - kDepth, kDepth);
}

// Waits for the lock in Abseil's queue. Who comes second to a queue looks up
// its thread's priority there, at most once a second, and for how long that is
// the first one in the process measures the processor's clock: asleep, for
// milliseconds, with the queue locked, and for as long as signals come before a
// sleep ends. All threads are alike in here, so none looks.
void Queue(absl::Mutex& mu) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  int64_t& next_look =
      absl::synchronization_internal::GetOrCreateCurrentThreadIdentity()
          ->per_thread_synch.next_priority_read_cycles;
  // Abseil hands identities of ended threads on in a way that Helgrind does not
  // see.
  HelgrindIgnore(&next_look, sizeof(next_look));
  const int64_t saved =
      std::exchange(next_look, std::numeric_limits<int64_t>::max());
  mu.Lock();
  next_look = saved;
}

}  // namespace

constinit bool Mutex::on_valgrind_ = false;
constinit std::atomic<bool> Mutex::spins_{false};
constinit thread_local bool Mutex::in_fork_ = false;
constinit thread_local bool Mutex::in_thread_set_up_ = false;

void Mutex::DetectValgrind() {
  on_valgrind_ = RUNNING_ON_VALGRIND != 0;
  HelgrindIgnore(&spins_, sizeof(spins_));
}

// The first contention of a thread makes Abseil set up an identity for it, and
// pthread_setspecific(), which that calls, allocates when the key is not among
// the first 32. That allocation comes back to here, possibly for the very lock
// that is being waited for, and has no identity to queue with yet: so it waits
// without queueing. The outer call is in no queue at that point, and must not
// hold a lock either, which the allocation might need: so at the locks that are
// taken below others a thread without an identity waits without queueing too.
//
// An identity that is waiting says the same: the thread is inside a lock, or it
// is not its own. The C library keeps the keys' values of a thread that was
// running their destructors at a fork, and gives them in the child to the
// thread that is made on that stack. Abseil would end the program.
void Mutex::LockSlow() {
  if (in_fork_) return;
  if (!mu_.TryLock() && !Spin()) {
    const int saved_errno = errno;
    const absl::base_internal::ThreadIdentity* const identity =
        absl::base_internal::CurrentThreadIdentityIfPresent();
    // Abseil orders what others write there in a way that Helgrind does not
    // see.
    if (identity != nullptr) {
      HelgrindIgnore(&identity->per_thread_synch.waitp, sizeof(void*));
    }
    const bool may_queue = identity != nullptr
                               ? identity->per_thread_synch.waitp == nullptr
                               : !in_thread_set_up_ && !inner_;
    if (may_queue) {
      const ThreadSetUp scope;
      Queue(mu_);
      if (on_valgrind_) ForgetStackBelow(__builtin_frame_address(0));
    } else {
      while (!mu_.TryLock()) sched_yield();
    }
    errno = saved_errno;
  }
  NoteLocked();
}

// Abseil's own tries take about a microsecond. To sleep and to be woken takes
// ten times as long as a pool's lock is held, and more in a virtual machine;
// and while one who was woken is on the way, all others queue behind it.
bool Mutex::Spin() {
  if (!spins()) return false;
  for (int tries = kTries; tries != 0; --tries) {
    for (int i = 0; i < kPauses; ++i) Pause();
    if (mu_.TryLock()) return true;
  }
  return false;
}

bool Mutex::TryLockSlow() {
  if (in_fork_) return true;
  if (!mu_.TryLock()) return false;
  NoteLocked();
  return true;
}

void Mutex::NoteLocked() {
  if (RUNNING_ON_VALGRIND) {
    VALGRIND_HG_DISABLE_CHECKING(&mu_, sizeof(mu_) + sizeof(route_));
    ANNOTATE_RWLOCK_ACQUIRED(this, 1);
  } else {
    SetRoute(Route::kShort);
  }
}

void Mutex::UnlockSlow() {
  if (in_fork_) return;
  if (RUNNING_ON_VALGRIND) ANNOTATE_RWLOCK_RELEASED(this, 1);
  mu_.Unlock();
}

void Mutex::LockForFork() {
  Lock();
  if (GetRoute() != Route::kNone) {
    SetRoute(Route::kLong);
  }
}

void Mutex::Remake() {
  if (GetRoute() != Route::kNone) {
    new (&mu_) absl::Mutex;
  }
}

void HelgrindRelease([[maybe_unused]] const void* object) {
  if (Mutex::on_valgrind()) ANNOTATE_HAPPENS_BEFORE(object);
}

void HelgrindAcquire([[maybe_unused]] const void* object) {
  if (Mutex::on_valgrind()) ANNOTATE_HAPPENS_AFTER(object);
}

void HelgrindIgnore([[maybe_unused]] const void* object,
                    [[maybe_unused]] size_t size) {
  if (Mutex::on_valgrind()) VALGRIND_HG_DISABLE_CHECKING(object, size);
}

}  // namespace hakmem
