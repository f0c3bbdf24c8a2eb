// A thread of hakmem's own.

#ifndef HAKMEM_CORE_OWN_THREAD_H_
#define HAKMEM_CORE_OWN_THREAD_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>

namespace hakmem {

// One that can be started and stopped any number of times. It has all signals
// blocked: none of the program's is meant for it.
//
// Thread safety: any function from any thread, but for those that say whose
// they are. Errno is kept.
class OwnThread {
 public:
  using Body = void (*)(OwnThread& self);

  // `body` is what it does, until IsToRun() says no more.
  constexpr explicit OwnThread(Body body) : body_(body) {}
  OwnThread(const OwnThread&) = delete;
  OwnThread& operator=(const OwnThread&) = delete;

  // Starts it, unless it is there; 0, or what pthread_create() said. Not from
  // inside the allocator: it allocates.
  int Start();

  // Ends it and waits until it has ended.
  void Stop();

  // In the child of a fork, which has no such thread: starts one if the parent
  // had one, and returns what Start() does.
  int RestartInChild();

  // Whether it has been started and not stopped since.
  bool IsToRun() const {
    const State now = state_.load(std::memory_order_acquire);
    return now != State::kStopped && now != State::kStopping;
  }

  // Ends its Sleep(), if it is in one that has begun before this; not its
  // Nap().
  void Wake() {
    if (state_.load(std::memory_order_seq_cst) == State::kAsleep) WakeSleeper();
  }

  // The thread's own: waits for so many milliseconds, or until Stop().
  void Nap(int64_t milliseconds);

  // The thread's own: the same, or until Wake(), for ever if `milliseconds` is
  // negative, unless `has_work()` says that there is something to do. What
  // makes it say so may be done by any thread that calls Wake() thereafter, in
  // sequentially consistent order.
  template <typename HasWork>
  void Sleep(int64_t milliseconds, HasWork has_work) {
    State now = State::kRunning;
    if (!state_.compare_exchange_strong(now, State::kAsleep)) return;
    if (!has_work()) Wait(State::kAsleep, milliseconds);
    now = State::kAsleep;
    state_.compare_exchange_strong(now, State::kRunning);
  }

 private:
  enum class State : uint32_t {
    kStopped,
    kStarting,
    kRunning,
    kAsleep,  // running, and to be woken
    kStopping
  };

  static void* Enter(void* self);
  int Create();
  void Wait(State state, int64_t milliseconds);
  void WakeSleeper();
  void WakeWaiting();

  const Body body_;
  // The futex that the thread waits on. A word and no lock: pthread_create()
  // allocates, and no lock may be held then.
  std::atomic<State> state_{State::kStopped};
  pthread_t thread_{};
  static_assert(sizeof(state_) == sizeof(uint32_t));
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_OWN_THREAD_H_
