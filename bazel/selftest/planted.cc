// A program with one planted error a run, named by its argument:
// race, overflow (of the heap), integer (overflow), or locked for none.
#include <valgrind/helgrind.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

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

void Count(bool locked) {
  for (int i = 0; i < 2000; ++i) {
    if (locked) lock.Acquire();
    ++counter;
    // Somebody is made to wait, so that the lock's slow path runs too.
    if (i % 100 == 0) std::this_thread::yield();
    if (locked) lock.Release();
  }
}

void CountInThreads(bool locked) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(Count, locked);
  for (std::thread& thread : threads) thread.join();
}

void OverflowHeap() {
  volatile int size = 8;
  char* block = static_cast<char*>(malloc(size));
  if (block == nullptr) return;
  static_cast<volatile char*>(block)[size] = 1;
  free(block);
}

void OverflowInteger() {
  volatile int number = INT_MAX;
  number = number + 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view planted = argc == 2 ? argv[1] : "";
  if (planted == "locked") {
    CountInThreads(/*locked=*/true);
  } else if (planted == "race") {
    CountInThreads(/*locked=*/false);
  } else if (planted == "overflow") {
    OverflowHeap();
  } else if (planted == "integer") {
    OverflowInteger();
  } else {
    fprintf(stderr, "usage: %s locked|race|overflow|integer\n", argv[0]);
    return 2;
  }
  return 0;
}
