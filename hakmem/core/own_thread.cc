#include "hakmem/core/own_thread.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hakmem/core/mutex.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// Its stack holds no more than a few frames; the program's thread-local storage
// is in there too.
constexpr size_t kStackBytes = 256 << 10;

}  // namespace

void* OwnThread::Enter(void* self) {
  pthread_setname_np(pthread_self(), "hakmem");
  auto* const thread = static_cast<OwnThread*>(self);
  // It may get here first, and until the other is through no state says that it
  // is running, so that it could wait for nothing.
  while (thread->state_.load(std::memory_order_acquire) == State::kStarting) {
    thread->Wait(State::kStarting, -1);
  }
  thread->body_(*thread);
  return nullptr;
}

int OwnThread::Create() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  int error = pthread_create(&thread_, &attributes, &Enter, this);
  pthread_attr_destroy(&attributes);
  // With much thread-local storage that stack is too small.
  if (error != 0) error = pthread_create(&thread_, nullptr, &Enter, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error;
}

int OwnThread::Start() {
  HelgrindIgnore(&state_, sizeof(state_));
  HelgrindIgnore(&thread_, sizeof(thread_));
  for (;;) {
    State now = State::kStopped;
    if (state_.compare_exchange_strong(now, State::kStarting)) break;
    if (now == State::kRunning || now == State::kAsleep) return 0;
    sched_yield();  // somebody else is starting or stopping it
  }
  const ErrnoKeeper keeper;
  const int error = Create();
  state_.store(error == 0 ? State::kRunning : State::kStopped,
               std::memory_order_release);
  if (error == 0) WakeWaiting();
  return error;
}

void OwnThread::Stop() {
  for (;;) {
    State now = state_.load(std::memory_order_acquire);
    if (now == State::kStopped) return;
    if (now == State::kRunning || now == State::kAsleep) {
      if (state_.compare_exchange_strong(now, State::kStopping)) break;
    } else {
      sched_yield();
    }
  }
  const ErrnoKeeper keeper;
  WakeWaiting();
  pthread_join(thread_, nullptr);
  state_.store(State::kStopped, std::memory_order_release);
}

// Whoever was starting or stopping it does not exist here either, unless it is
// this thread, inside of pthread_create(); then it is not running yet.
int OwnThread::RestartInChild() {
  const bool had_one = IsToRun();
  state_.store(State::kStopped, std::memory_order_relaxed);
  return had_one ? Start() : 0;
}

void OwnThread::Nap(int64_t milliseconds) {
  Wait(State::kRunning, milliseconds);
}

// Unless it has another state by now.
void OwnThread::Wait(State state, int64_t milliseconds) {
  const struct timespec duration = {
      .tv_sec = static_cast<time_t>(milliseconds / 1000),
      .tv_nsec = static_cast<long>(milliseconds % 1000 * 1000000)};
  syscall(SYS_futex, &state_, FUTEX_WAIT_PRIVATE, state,
          milliseconds < 0 ? nullptr : &duration, nullptr, 0);
}

void OwnThread::WakeSleeper() {
  State now = State::kAsleep;
  if (!state_.compare_exchange_strong(now, State::kRunning)) return;
  const ErrnoKeeper keeper;
  WakeWaiting();
}

void OwnThread::WakeWaiting() {
  syscall(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace hakmem
