// The lock of every pool: absl::Mutex, made safe to use inside a malloc and
// explained to Helgrind.
//
// Thread safety: as absl::Mutex. Invariants:
//  1. The fast paths of allocation and free take no Mutex.
//  2. At most one Mutex of a class is held at a time, of whatever pool; below
//     it may be taken that of one part of the arena, and above it the pool's
//     own for purging. Only LockForFork() takes more.
//  3. A Mutex is never destroyed: the allocator outlives every destructor.

#ifndef HAKMEM_CORE_MUTEX_H_
#define HAKMEM_CORE_MUTEX_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "hakmem/core/os.h"

namespace hakmem {

class ABSL_LOCKABLE Mutex {
 public:
  // A pool that is built without its lock, to measure the lock's price, says
  // kNone. It may be used by one thread at a time.
  // kInner is for a lock that is taken while another one is held.
  enum class Locking { kFull, kInner, kNone };

  explicit constexpr Mutex(Locking locking = Locking::kFull)
      : mu_(absl::kConstInit),
        route_(locking == Locking::kNone ? Route::kNone : Route::kLong),
        inner_(locking == Locking::kInner) {}
  ~Mutex() {}

  // As if it had been made with kNone, which the elements of an array cannot be
  // told. Before its first use.
  constexpr void NeverLock() { route_ = Route::kNone; }

  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  // Lock() waits for the lock and keeps errno; Unlock() may change it when
  // others wait. Neither does anything on a thread between BeginFork() and
  // EndFork(): it holds all locks, and fork handlers of the program may
  // allocate.
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const Route route = GetRoute();
    if (route == Route::kShort) [[likely]] {
      if (!mu_.TryLock()) [[unlikely]]
        LockSlow();
    } else if (route != Route::kNone) {
      LockSlow();
    }
  }

  // Takes the lock if that takes no waiting; says whether it did. Keeps errno.
  bool TryLock()
      ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const Route route = GetRoute();
    if (route == Route::kShort) [[likely]]
      return mu_.TryLock();
    return route == Route::kNone || TryLockSlow();
  }

  void Unlock() ABSL_UNLOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const Route route = GetRoute();
    if (route == Route::kShort) [[likely]] {
      mu_.Unlock();
    } else if (route != Route::kNone) {
      UnlockSlow();
    }
  }

  // Says to the compiler's analysis that the lock is held here.
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}

  // Lock() before a fork: until Unlock(), or Remake() in the child, this thread
  // may lock and unlock again, between BeginFork() and EndFork().
  void LockForFork() ABSL_EXCLUSIVE_LOCK_FUNCTION();

  // To be called once all Mutexes are locked for the fork, and before any of
  // them is unlocked or made anew.
  static void BeginFork() { in_fork_ = true; }
  static void EndFork() { in_fork_ = false; }

  // In the child of a fork, in place of Unlock(): makes the lock anew. Whoever
  // waited for it in the parent does not exist here.
  void Remake();

  // While one of these exists, the thread is inside pthread_setspecific(),
  // which may call calloc() and is not re-entrant then: of two calls within
  // each other, for keys past the first 32, the inner one's value is lost. So
  // until it is gone nothing may come to another such call, and Lock() does
  // not.
  class ThreadSetUp {
   public:
    ThreadSetUp() : outer_(in_thread_set_up_) { in_thread_set_up_ = true; }
    ~ThreadSetUp() { in_thread_set_up_ = outer_; }
    ThreadSetUp(const ThreadSetUp&) = delete;
    ThreadSetUp& operator=(const ThreadSetUp&) = delete;

   private:
    const bool outer_;
  };
  static bool in_thread_set_up() { return in_thread_set_up_; }

  // Whether who waits is to try for some microseconds before it sleeps: where
  // every thread has a processor. Any thread may say so at any time.
  static void SetSpins(bool spins) {
    spins_.store(spins, std::memory_order_relaxed);
  }

  static bool spins() { return spins_.load(std::memory_order_relaxed); }

  // Asks once whether this process runs under Valgrind. Before the first
  // contention; by the arena's set-up.
  static void DetectValgrind();
  static bool on_valgrind() { return on_valgrind_; }

 private:
  // Hold the lock on return, or pass through: more than analysis follows.
  void LockSlow() ABSL_NO_THREAD_SAFETY_ANALYSIS;
  bool TryLockSlow() ABSL_NO_THREAD_SAFETY_ANALYSIS;
  bool Spin() ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void NoteLocked();
  void UnlockSlow() ABSL_NO_THREAD_SAFETY_ANALYSIS;

  // What Lock() and Unlock() have to do: one test of a byte beside the lock in
  // the usual case. In P0 this lock is a good part of the time that a call
  // takes: a flag of the whole process, with another cache line, made one
  // thread of larson 2 % slower.
  enum class Route : uint8_t {
    kShort,
    kLong,  // not locked before, under Valgrind, or a fork is under way
    kNone
  };

  Route GetRoute() {
    return std::atomic_ref(route_).load(std::memory_order_relaxed);
  }
  void SetRoute(Route route) {
    std::atomic_ref(route_).store(route, std::memory_order_relaxed);
  }

  // A union, so that no destructor runs at exit.
  union {
    absl::Mutex mu_;
  };
  Route route_;  // written by whoever has the lock, read by all
  bool inner_;

  static constinit bool on_valgrind_;
  static constinit std::atomic<bool> spins_;
  static constinit thread_local bool in_fork_
      __attribute__((tls_model("initial-exec")));
  static constinit thread_local bool in_thread_set_up_
      __attribute__((tls_model("initial-exec")));
};

// Holds the lock for its own lifetime, and keeps errno.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) {
    mu_.Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() {
    // While others contend Unlock() may sleep, which a signal cuts short.
    const ErrnoKeeper keeper;
    mu_.Unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

// The same for a caller who keeps errno anyway: in P0 every call of the program
// takes a lock.
class ABSL_SCOPED_LOCKABLE PlainMutexLock {
 public:
  explicit PlainMutexLock(Mutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu)
      : mu_(mu) {
    mu_.Lock();
  }
  ~PlainMutexLock() ABSL_UNLOCK_FUNCTION() { mu_.Unlock(); }
  PlainMutexLock(const PlainMutexLock&) = delete;
  PlainMutexLock& operator=(const PlainMutexLock&) = delete;

 private:
  Mutex& mu_;
};

// Tells Helgrind, which does not know atomics, that everything before Release
// on `object` happened before everything after the Acquire that saw it. For
// the lock-free structures. Nothing outside of Valgrind.
void HelgrindRelease(const void* object);
void HelgrindAcquire(const void* object);
// Tells Helgrind that `size` bytes at `object` are atomics, not data.
void HelgrindIgnore(const void* object, size_t size);

}  // namespace hakmem

#endif  // HAKMEM_CORE_MUTEX_H_
