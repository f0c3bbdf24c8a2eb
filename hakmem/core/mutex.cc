#include "hakmem/core/mutex.h"

#include <sched.h>
#include <valgrind/helgrind.h>
#include <valgrind/valgrind.h>

#include <cerrno>
#include <new>

#include "absl/base/internal/thread_identity.h"

namespace hakmem {
constinit bool Mutex::on_valgrind_ = false;
constinit thread_local bool Mutex::in_fork_ = false;
constinit thread_local bool Mutex::in_thread_set_up_ = false;
constinit thread_local uint32_t Mutex::held_ = 0;

void Mutex::DetectValgrind() { on_valgrind_ = RUNNING_ON_VALGRIND != 0; }

// The first contention of a thread makes Abseil set up an identity for it, and
// pthread_setspecific(), which that calls, allocates when the key is not among
// the first 32. That allocation comes back to here, possibly for the very lock
// that is being waited for, and has no identity to queue with yet: so it waits
// without queueing. The outer call is in no queue at that point, and must not
// hold a lock either, which the allocation might need: a thread that does, and
// has no identity, waits without queueing as well.
void Mutex::LockSlow() {
  if (in_fork_) return;
  const int saved_errno = errno;
  const bool may_queue =
      !in_thread_set_up_ &&
      (held_ == 0 ||
       absl::base_internal::CurrentThreadIdentityIfPresent() != nullptr);
  if (may_queue) {
    const ThreadSetUp scope;
    mu_.Lock();
  } else {
    while (!mu_.TryLock()) sched_yield();
  }
  errno = saved_errno;
  ++held_;
  if (on_valgrind_) NoteAcquired();
}

void Mutex::NoteAcquired() {
  VALGRIND_HG_DISABLE_CHECKING(&mu_, sizeof(mu_));
  ANNOTATE_RWLOCK_ACQUIRED(this, 1);
}

void Mutex::NoteReleasing() { ANNOTATE_RWLOCK_RELEASED(this, 1); }

void Mutex::Remake() {
  if (!enabled_) return;
  new (&mu_) absl::Mutex;
  --held_;
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
