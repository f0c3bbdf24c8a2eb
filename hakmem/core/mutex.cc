#include "hakmem/core/mutex.h"

#include <sched.h>
#include <valgrind/helgrind.h>
#include <valgrind/valgrind.h>

#include <new>

namespace hakmem {
namespace {

// Set while this thread is inside a contended absl::Mutex::Lock().
thread_local bool in_lock __attribute__((tls_model("initial-exec"))) = false;

}  // namespace

constinit std::atomic<bool> Mutex::special_{false};
constinit bool Mutex::on_valgrind_ = false;
constinit thread_local bool Mutex::in_fork_ = false;

void Mutex::DetectValgrind() {
  on_valgrind_ = RUNNING_ON_VALGRIND != 0;
  if (on_valgrind_) special_.store(true, std::memory_order_relaxed);
}

// All locks are held by the caller here, so nobody else is between Lock() and
// Unlock(), and it does not matter when others see the change.
void Mutex::BeginFork() {
  in_fork_ = true;
  special_.store(true, std::memory_order_relaxed);
}

void Mutex::EndFork() {
  special_.store(on_valgrind_, std::memory_order_relaxed);
  in_fork_ = false;
}

// The first contention of a thread makes Abseil set up an identity for it, and
// pthread_setspecific(), which that calls, allocates when the key is not among
// the first 32. That allocation comes back to here, possibly for the very lock
// that is being waited for, and has no identity to queue with yet: so it waits
// without queueing. The outer call holds nothing and is in no queue at that
// point, so whoever holds the lock goes on and lets go of it.
void Mutex::LockSlow() {
  if (in_fork_) return;
  if (!mu_.TryLock()) {
    if (in_lock) {
      while (!mu_.TryLock()) sched_yield();
    } else {
      in_lock = true;
      mu_.Lock();
      in_lock = false;
    }
  }
  if (on_valgrind_) {
    VALGRIND_HG_DISABLE_CHECKING(&mu_, sizeof(mu_));
    ANNOTATE_RWLOCK_ACQUIRED(this, 1);
  }
}

void Mutex::UnlockSlow() {
  if (in_fork_) return;
  if (on_valgrind_) ANNOTATE_RWLOCK_RELEASED(this, 1);
  mu_.Unlock();
}

void Mutex::Remake() { new (&mu_) absl::Mutex; }

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
