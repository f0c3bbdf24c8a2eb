// Threads that count behind an absl::Mutex: nothing for a checker to report.
#include <valgrind/helgrind.h>

#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace {

// An absl::Mutex that Helgrind sees as the lock it is.
class Lock {
 public:
  Lock() { VALGRIND_HG_MUTEX_INIT_POST(&mutex_, 0); }
  ~Lock() { VALGRIND_HG_MUTEX_DESTROY_PRE(&mutex_); }

  void Acquire() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    VALGRIND_HG_MUTEX_LOCK_PRE(&mutex_, 0);
    mutex_.Lock();
    VALGRIND_HG_MUTEX_LOCK_POST(&mutex_);
  }

  void Release() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    VALGRIND_HG_MUTEX_UNLOCK_PRE(&mutex_);
    mutex_.Unlock();
    VALGRIND_HG_MUTEX_UNLOCK_POST(&mutex_);
  }

 private:
  absl::Mutex mutex_;
};

Lock lock;
int counter = 0;

void Count() {
  for (int i = 0; i < 2000; ++i) {
    lock.Acquire();
    ++counter;
    // Somebody is made to wait, so that the lock's slow path runs too.
    if (i % 100 == 0) std::this_thread::yield();
    lock.Release();
  }
}

}  // namespace

int main() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(Count);
  for (std::thread& thread : threads) thread.join();
  return counter == 4 * 2000 ? 0 : 1;
}
