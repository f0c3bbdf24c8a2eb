// fork() where the C library's own malloc allows it: from a signal handler that
// interrupted malloc() in a process of one thread, and while other threads use
// its FILEs.

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/single_threaded.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace {

// Ends the test when it hangs.
constexpr unsigned kSeconds = 100;

constexpr int kSignals = 500;
constexpr int kForks = 200;

// Whether a child that does nothing ends as it should.
bool ForkOnce() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  if (child < 0) return false;
  int status = 0;
  pid_t waited = 0;
  do {
    waited = waitpid(child, &status, 0);
  } while (waited < 0 && errno == EINTR);
  return waited == child && status == 0;
}

volatile sig_atomic_t signals = 0;
volatile sig_atomic_t failures = 0;

void ForkInHandler(int) {
  const int saved_errno = errno;
  if (!ForkOnce()) failures = failures + 1;
  signals = signals + 1;
  errno = saved_errno;
}

// First of all, while the process has one thread.
TEST(ForkSignalTest, AHandlerForksWhereverItInterrupts) {
  ASSERT_TRUE(__libc_single_threaded);
  alarm(kSeconds);
  struct sigaction action = {};
  action.sa_handler = &ForkInHandler;
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(sigaction(SIGVTALRM, &action, nullptr), 0);
  // The process's own time: children do not use it up.
  const itimerval often = {{0, 1000}, {0, 1000}};
  ASSERT_EQ(setitimer(ITIMER_VIRTUAL, &often, nullptr), 0);

  // Of all sizes, and more than is cached, so that locks are held often.
  std::vector<void*> blocks(1000);
  std::minstd_rand random(1);
  while (signals < kSignals && failures == 0) {
    for (int i = 0; i < 2000; ++i) {
      void*& block = blocks[random() % blocks.size()];
      free(block);
      block = malloc(random() % (i % 100 == 0 ? 2000000 : 70000));
    }
    if (!ForkOnce()) failures = failures + 1;
  }
  const itimerval never = {};
  ASSERT_EQ(setitimer(ITIMER_VIRTUAL, &never, nullptr), 0);
  for (void* block : blocks) free(block);
  EXPECT_EQ(failures, 0);
  alarm(0);
}

// A thread that forks waits for the list of FILEs; who has that waits for a
// FILE; who has that allocates.
TEST(ForkSignalTest, DoesNotWaitForAFileWhoseOwnerAllocates) {
  alarm(kSeconds);
  std::atomic<bool> done(false);
  std::atomic<int> forks(0);
  std::vector<std::thread> threads;
  // Once for each fork. The lock of the list is given to whoever is there
  // first, and who takes it again and again mostly is: the thread that forks
  // had it five times a second with the C library's own malloc, where those who
  // have the FILEs sleep meanwhile.
  threads.emplace_back([&done, &forks] {
    for (int before = 0; !done; forks.wait(before), before = forks) {
      fflush(nullptr);
    }
  });
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&done] {
      FILE* const file = tmpfile();
      while (!done) {
        flockfile(file);
        for (size_t size = 10; size < 3000000; size *= 3) free(malloc(size));
        funlockfile(file);
      }
      fclose(file);
    });
  }
  int failed = 0;
  for (int i = 0; i < kForks; ++i) {
    failed += !ForkOnce();
    if (i + 1 == kForks) done = true;
    ++forks;
    forks.notify_one();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  alarm(0);
}

}  // namespace
