#include "hakmem/core/own_thread.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <latch>
#include <thread>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

constexpr int64_t kVeryLong = 1000000000;

std::atomic<int> runs{0};

TEST(OwnThreadTest, ThreadStartsAndStopsAsOftenAsItIsTold) {
  runs = 0;
  OwnThread thread([](OwnThread& self) {
    ++runs;
    while (self.IsToRun()) self.Nap(kVeryLong);
  });
  thread.Stop();
  EXPECT_FALSE(thread.IsToRun());
  for (int i = 1; i <= 20; ++i) {
    errno = 7;
    EXPECT_EQ(thread.Start(), 0);
    EXPECT_EQ(thread.Start(), 0);
    EXPECT_TRUE(thread.IsToRun());
    // Not to end before it has begun: then it need not run at all.
    while (runs < i) std::this_thread::yield();
    // Ends the nap.
    thread.Stop();
    EXPECT_EQ(errno, 7);
    EXPECT_FALSE(thread.IsToRun());
    EXPECT_EQ(runs, i);
  }
}

// Also while Start() has yet to return. A thread that is there before that, and
// does not wait for it, takes thousands of naps of no length.
TEST(OwnThreadTest, ThreadWaitsWhenItIsTo) {
  runs = 0;
  OwnThread thread([](OwnThread& self) {
    while (self.IsToRun()) {
      ++runs;
      self.Nap(kVeryLong);
    }
  });
  for (int i = 1; i <= 500; ++i) {
    ASSERT_EQ(thread.Start(), 0);
    while (runs < i) std::this_thread::yield();
    thread.Stop();
    ASSERT_EQ(runs, i);
  }
}

TEST(OwnThreadTest, ManyThreadsMayStartAndStopIt) {
  OwnThread thread([](OwnThread& self) {
    while (self.IsToRun()) self.Sleep(-1, [] { return false; });
  });
  constexpr int kThreads = 4;
  std::latch begin(kThreads);
  std::thread threads[kThreads];
  for (std::thread& t : threads) {
    t = std::thread([&] {
      begin.arrive_and_wait();
      for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(thread.Start(), 0);
        thread.Stop();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_FALSE(thread.IsToRun());
}

std::atomic<bool> work{false};
std::atomic<int> done{0};

// Each piece of work comes when the last is done, and so mostly when the thread
// is about to sleep. Were a call lost, this would wait for ever.
TEST(OwnThreadTest, ThreadWakesForAllWork) {
  work = false;
  done = 0;
  OwnThread thread([](OwnThread& self) {
    while (self.IsToRun()) {
      if (work.exchange(false)) ++done;
      self.Sleep(-1, [] { return work.load(); });
    }
  });
  ASSERT_EQ(thread.Start(), 0);
  for (int i = 0; i < 20000; ++i) {
    work = true;
    thread.Wake();
    while (done <= i) std::this_thread::yield();
  }
  thread.Stop();
}

TEST(OwnThreadTest, ThreadSleepsNoLongerThanItIsTo) {
  runs = 0;
  OwnThread thread([](OwnThread& self) {
    while (self.IsToRun()) {
      ++runs;
      self.Sleep(1, [] { return false; });
    }
  });
  ASSERT_EQ(thread.Start(), 0);
  while (runs < 5) std::this_thread::yield();
  thread.Stop();
}

sigset_t blocked;

TEST(OwnThreadTest, ThreadLeavesSignalsToTheProgram) {
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  runs = 0;
  OwnThread thread([](OwnThread&) {
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    ++runs;
  });
  ASSERT_EQ(thread.Start(), 0);
  while (runs == 0) std::this_thread::yield();
  thread.Stop();
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGPROF, SIGCHLD}) {
    EXPECT_EQ(sigismember(&blocked, number), 1) << number;
  }
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int number = 1; number < 32; ++number) {
    EXPECT_EQ(sigismember(&after, number), sigismember(&before, number));
  }
}

}  // namespace
}  // namespace hakmem
