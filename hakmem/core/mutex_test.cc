#include "hakmem/core/mutex.h"

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include "absl/base/config.h"
#include "absl/base/internal/thread_identity.h"
#include "absl/synchronization/internal/create_thread_identity.h"
#include "gtest/gtest.h"
#include "hakmem/core/arena.h"

// These tests hold locks in ways that no analysis follows.
#define UNCHECKED ABSL_NO_THREAD_SAFETY_ANALYSIS

namespace hakmem {
namespace {

class MutexTest : public testing::Test {
 protected:
  // The arena's set-up is what finds out about Valgrind.
  static void SetUpTestSuite() { ASSERT_TRUE(arena.EnsureReady()); }
};

// Whether another thread could take the lock just now.
bool IsFree(Mutex& mu) {
  // A child of a fork has this thread only, so the question waits for nobody.
  const pid_t child = fork();
  if (child == 0) {
    alarm(1);  // what waits for the lock ends by the signal
    MutexLock lock(mu);
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Whether threads that count under the lock lose nothing. Each calls
// before(thread, round) in front of every round.
template <typename Fn>
void ExpectOneThreadAtATime(Mutex& mu, int rounds, Fn before) {
  constexpr int kThreads = 4;
  int count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&mu, &count, rounds, before, t] {
      for (int i = 0; i < rounds; ++i) {
        before(t, i);
        MutexLock lock(mu);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, kThreads * rounds);
}

TEST_F(MutexTest, OneThreadAtATime) {
  static constinit Mutex mu;
  ExpectOneThreadAtATime(mu, 20000, [](int, int) {});
}

// Sleeps of a millisecond or longer, since the process began.
std::atomic<int> long_sleeps{0};

// By threads that have no identity yet, each of which waits in the queue of the
// others. Nothing that Abseil wants to know of them is worth a pause in which
// nobody can allocate.
TEST_F(MutexTest, NobodySleepsWithTheQueueLocked) {
  static constinit Mutex mu;
  constexpr int kThreads = 4;
  for (int round = 0; round < 20; ++round) {
    std::vector<std::thread> threads;
    std::atomic<int> waiting{0};
    {
      MutexLock lock(mu);
      for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&waiting] {
          waiting.fetch_add(1);
          MutexLock inner(mu);
        });
      }
      while (waiting.load() < kThreads) std::this_thread::yield();
      // They need not have come to the queue yet; some round they have.
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(long_sleeps.load(), 0);
}

// As in the child of a fork, where a new thread may find the identity of one
// that waited in the parent. The lock has to do without it.
TEST_F(MutexTest, AnIdentityThatWaitsElsewhereIsNotUsed) {
  static constinit Mutex mu;
  mu.Lock();
  std::atomic<bool> tries{false};
  std::atomic<bool> locked{false};
  std::thread other([&] {
    absl::base_internal::PerThreadSynch& synch =
        absl::synchronization_internal::GetOrCreateCurrentThreadIdentity()
            ->per_thread_synch;
    static char somewhere;
    auto* const waitp = reinterpret_cast<absl::SynchWaitParams*>(&somewhere);
    synch.waitp = waitp;
    tries.store(true);
    mu.Lock();
    locked.store(true);
    mu.Unlock();
    EXPECT_EQ(synch.waitp, waitp);
    synch.waitp = nullptr;
  });
  while (!tries.load()) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();
  EXPECT_FALSE(locked.load());
  mu.Unlock();
  other.join();
  EXPECT_TRUE(locked.load());
}

TEST_F(MutexTest, IsLockedFromLockToUnlock) {
  static constinit Mutex mu;
  EXPECT_TRUE(IsFree(mu));
  {
    MutexLock lock(mu);
    EXPECT_FALSE(IsFree(mu));
  }
  EXPECT_TRUE(IsFree(mu));
}

TEST_F(MutexTest, WithoutLockingNothingIsLocked) {
  static constinit Mutex mu(Mutex::Locking::kNone);
  MutexLock lock(mu);
  EXPECT_TRUE(IsFree(mu));
  EXPECT_TRUE(mu.TryLock());
}

struct TwoThatNeverLock {
  constexpr TwoThatNeverLock() {
    for (Mutex& mu : both) mu.NeverLock();
  }
  std::array<Mutex, 2> both;
};

TEST_F(MutexTest, ElementsOfAnArrayCanBeWithoutLocking) {
  static constinit TwoThatNeverLock two;
  for (Mutex& mu : two.both) {
    MutexLock lock(mu);
    EXPECT_TRUE(IsFree(mu));
  }
}

// Holds the lock, which nobody has, while another thread tries for it.
void TryWhileHeld(Mutex& mu, bool for_fork) UNCHECKED {
  if (for_fork) {
    mu.LockForFork();
  } else {
    EXPECT_TRUE(mu.TryLock());
  }
  EXPECT_FALSE(IsFree(mu));
  std::thread other([&mu]() UNCHECKED {
    errno = EXDEV;
    const bool second = mu.TryLock();
    EXPECT_FALSE(second);
    if (second) mu.Unlock();
    EXPECT_EQ(errno, EXDEV);
  });
  other.join();
  mu.Unlock();
  EXPECT_TRUE(IsFree(mu));
}

// Also where the lock is held for a fork: Lock() and Unlock() go another way
// then.
TEST_F(MutexTest, TryLockTakesItOrSaysSo) {
  static constinit Mutex mu;
  for (const bool for_fork : {false, true, false}) TryWhileHeld(mu, for_fork);
}

// Waiting threads that try for a while, as where each has a processor, and
// those that sleep at once keep each other out all the same.
TEST_F(MutexTest, WhoeverSpinsGetsTheLockToo) {
  static constinit Mutex mu;
  ExpectOneThreadAtATime(mu, 5000, [](int thread, int round) {
    if (thread == 0) Mutex::SetSpins(round % 2 == 0);
  });
  // One that has tried for as long as it does sleeps until the lock is free.
  Mutex::SetSpins(true);
  std::atomic<bool> tries{false};
  std::atomic<bool> locked{false};
  mu.Lock();
  std::thread other([&tries, &locked] {
    tries.store(true);
    mu.Lock();
    locked.store(true);
    mu.Unlock();
  });
  while (!tries.load()) std::this_thread::yield();
  for (int i = 0; i < 10000; ++i) std::this_thread::yield();
  EXPECT_FALSE(locked.load());
  mu.Unlock();
  other.join();
  EXPECT_TRUE(locked.load());
  Mutex::SetSpins(false);
}

// Between BeginFork() and EndFork() the forking thread passes through, as its
// fork handlers may allocate, and the lock stays taken for everybody else.
void PassThrough(Mutex& mu) UNCHECKED {
  mu.LockForFork();
  Mutex::BeginFork();
  mu.Lock();
  mu.Unlock();
  EXPECT_TRUE(mu.TryLock());
  mu.Unlock();
  Mutex::EndFork();
  EXPECT_FALSE(IsFree(mu)) << "the inner Unlock() let go of the outer's lock";
  mu.Unlock();
}

TEST_F(MutexTest, TheForkingThreadPassesThrough) {
  static constinit Mutex mu;
  PassThrough(mu);
  EXPECT_TRUE(IsFree(mu));
}

// A child of a fork that came while threads held the lock and waited for it.
void ForkWhileOthersWait(Mutex& mu) UNCHECKED {
  mu.LockForFork();
  std::vector<std::thread> waiters;
  for (int t = 0; t < 3; ++t) {
    waiters.emplace_back([&mu] { MutexLock lock(mu); });
  }
  // Whether they wait yet does not matter to what must hold, only to what may
  // go wrong; most of 50 rounds find some of them queued.
  for (int i = 0; i < 50; ++i) {
    std::this_thread::yield();
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);
      mu.Remake();
      mu.Lock();
      mu.Unlock();
      std::thread other([&mu] {
        for (int round = 0; round < 100; ++round) MutexLock lock(mu);
      });
      for (int round = 0; round < 100; ++round) MutexLock lock(mu);
      other.join();
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  mu.Unlock();
  for (std::thread& waiter : waiters) waiter.join();
}

TEST_F(MutexTest, RemakeMakesALockWhoeverWaitedForIt) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "TSan allows the child of a fork no threads";
#endif
  static constinit Mutex mu;
  ForkWhileOthersWait(mu);
  EXPECT_TRUE(IsFree(mu));
}

}  // namespace
}  // namespace hakmem

// In place of the C library's, for Abseil in this program.
extern "C" int nanosleep(const timespec* wanted, timespec* left) {
  if (wanted->tv_sec > 0 || wanted->tv_nsec >= 1000000) {
    hakmem::long_sleeps.fetch_add(1);
  }
  errno = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
  return errno == 0 ? 0 : -1;
}
