// A thread's first wait for an absl::Mutex makes Abseil set up an identity for
// it, and with more than 32 pthread keys in the process the C library allocates
// for that. In a program whose malloc is hakmem this comes back to the locks of
// hakmem, possibly to the one that is being waited for. Here the calloc() below
// plays that malloc.

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include <atomic>
#include <functional>
#include <thread>

#include "absl/base/config.h"
#include "absl/base/internal/thread_identity.h"
#include "gtest/gtest.h"
#include "hakmem/core/core.h"
#include "hakmem/core/tiny_test_pool.h"

namespace hakmem {
namespace {

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || \
    defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_MEMORY_SANITIZER)
// calloc() is the sanitizer's.
constexpr bool kCanHook = false;
#else
constexpr bool kCanHook = true;
#endif

// What the next calloc() of this thread does first.
thread_local const std::function<void()>* hook = nullptr;

// Runs `contender` on a thread of its own, which waits for `mu`, and `inside`
// where the C library allocates during that wait. `mu` is free again only after
// that has begun.
void ContendFirst(Mutex& mu, const std::function<void()>& prepare,
                  const std::function<void()>& contender,
                  const std::function<void()>& inside)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  std::atomic<bool> ready{false};
  std::atomic<bool> locked{false};
  std::atomic<bool> entered{false};
  int times = 0;
  std::thread thread([&] {
    prepare();
    const std::function<void()> on_calloc = [&] {
      ++times;
      entered.store(true);
      inside();
    };
    ready.store(true);
    while (!locked.load()) sched_yield();
    hook = &on_calloc;
    contender();
    hook = nullptr;
  });
  while (!ready.load()) sched_yield();
  mu.Lock();
  locked.store(true);
  while (!entered.load()) sched_yield();
  mu.Unlock();
  thread.join();
  EXPECT_EQ(times, 1);
}

class MutexReentryTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!kCanHook) GTEST_SKIP() << "a sanitizer's calloc takes no hook";
    // The thread caches' key comes before them, so that it needs no memory.
    Free(Allocate());
    thread_cache.FlushBins();
    SlabBytesAfterRelease();
    // Abseil's own key, made at the first wait, comes after these.
    for (int i = 0; i < 40; ++i) {
      pthread_key_t key;
      ASSERT_EQ(pthread_key_create(&key, nullptr), 0);
    }
  }
};

TEST_F(MutexReentryTest, TheAllocationTakesTheLockThatIsWaitedFor) {
  static constinit Mutex mu;
  static int inner = 0;
  static int outer = 0;
  ContendFirst(
      mu, [] {},
      [] {
        MutexLock lock(mu);
        ++outer;
      },
      [] {
        MutexLock lock(mu);
        ++inner;
        // Another set-up within this one would lose its value.
        EXPECT_EQ(absl::base_internal::CurrentThreadIdentityIfPresent(),
                  nullptr);
      });
  EXPECT_EQ(inner, 1);
  EXPECT_EQ(outer, 1);
  MutexLock lock(mu);  // it is free
}

// The inner call must not find the bins half changed.
TEST_F(MutexReentryTest, TheAllocationComesInTheMiddleOfARefill) {
  static void* outer = nullptr;
  static void* inner = nullptr;
  ContendFirst(
      locked_pool.MutexOf(kClass),
      [] {
        // The thread's own set-up, which may allocate too, is done.
        Free(Allocate());
        thread_cache.FlushBins();
        cached_pool.DrainDepots();
      },
      [] {
        outer = Allocate();
        ASSERT_NE(outer, nullptr);
      },
      [] {
        inner = Allocate();
        ASSERT_NE(inner, nullptr);
      });
  EXPECT_NE(inner, outer);
  Free(inner);
  Free(outer);
  thread_cache.FlushBins();
  EXPECT_EQ(SlabBytesAfterRelease(), 0u);
}

TEST_F(MutexReentryTest, TheAllocationComesInTheMiddleOfAFlush) {
  static void* inner = nullptr;
  ContendFirst(
      locked_pool.MutexOf(kClass),
      [] {
        // Fewer blocks than a depot would take: the flush needs the lock.
        void* const block = Allocate();
        for (int i = 0; i < 12; ++i) ASSERT_NE(Allocate(), nullptr);
        Free(block);
      },
      [] { thread_cache.FlushBins(); }, [] { inner = Allocate(); });
  ASSERT_NE(inner, nullptr);
  // Twelve blocks are live, and the one of the inner call: all of them are
  // known, because the thread that ended kept none.
  uint32_t live = 0;
  const Span* const span = arena.SpanOf(inner);
  {
    MutexLock lock(locked_pool.MutexOf(kClass));
    const auto* const slab = static_cast<const Slab*>(span);
    live = slab->blocks() - slab->free_count;
  }
  EXPECT_EQ(live, 13u);
}

}  // namespace
}  // namespace hakmem

extern "C" {

void* __libc_calloc(size_t count, size_t size);

#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && \
    !defined(ABSL_HAVE_THREAD_SANITIZER) &&  \
    !defined(ABSL_HAVE_MEMORY_SANITIZER)
void* calloc(size_t count, size_t size) {
  if (hakmem::hook != nullptr) {
    const auto* const run = hakmem::hook;
    hakmem::hook = nullptr;
    (*run)();
  }
  return __libc_calloc(count, size);
}
#endif

}  // extern "C"
