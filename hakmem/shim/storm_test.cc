// More threads and more forks than any program should have. Not for a machine
// that has other things to do, so it runs only when asked for.

#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <latch>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/all_pools.h"
#include "hakmem/shim/hakmem.h"

namespace {

using hakmem::Stats;
using hakmem::UseAllPools;

constexpr size_t kMiB = size_t{1} << 20;
// Ends a child that hangs, so that it does not outlive the test.
constexpr unsigned kChildSeconds = 300;

// 16 threads that fork, of children that start threads and fork again, while
// four others allocate.
TEST(StormTest, ForksFromManyThreads) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (int i = 0; i < 4; ++i) {
    busy.emplace_back([&stop] {
      while (!stop.load()) UseAllPools();
    });
  }
  std::vector<std::thread> forking;
  for (int i = 0; i < 16; ++i) {
    forking.emplace_back([] {
      for (int j = 0; j < 60; ++j) {
        UseAllPools();
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
          alarm(kChildSeconds);
          UseAllPools();
          std::thread other(&UseAllPools);
          const pid_t grandchild = fork();
          if (grandchild == 0) {
            UseAllPools();
            _exit(0);
          }
          other.join();
          int status = 1;
          waitpid(grandchild, &status, 0);
          _exit(WIFSIGNALED(status) ? 100 + WTERMSIG(status)
                                    : WEXITSTATUS(status));
        }
        int status = 1;
        const pid_t waited = waitpid(child, &status, 0);
        EXPECT_EQ(waited, child);
        EXPECT_EQ(status, 0);
      }
    });
  }
  for (std::thread& thread : forking) thread.join();
  stop.store(true);
  for (std::thread& thread : busy) thread.join();
}

// Generations of 2,000 threads that are all there at once, 10,000 in all.
TEST(StormTest, TenThousandThreads) {
  constexpr int kThreads = 2000;
  const auto generation = [] {
    std::latch all_are_here(kThreads);
    std::vector<pthread_t> threads(kThreads);
    pthread_attr_t attributes;
    ASSERT_EQ(pthread_attr_init(&attributes), 0);
    ASSERT_EQ(pthread_attr_setstacksize(&attributes, 128 * 1024), 0);
    for (pthread_t& thread : threads) {
      const auto body = [](void* latch) -> void* {
        UseAllPools();
        static_cast<std::latch*>(latch)->arrive_and_wait();
        for (int i = 0; i < 5; ++i) UseAllPools();
        return nullptr;
      };
      ASSERT_EQ(pthread_create(&thread, &attributes, body, &all_are_here), 0);
    }
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
  };
  // What the generation had for itself is gone by then, too.
  const auto left_by = [&generation] {
    generation();
    hak_release_memory(0);
    return Stats();
  };
  const hak_stats first = left_by();
  for (int i = 0; i < 3; ++i) left_by();
  const hak_stats last = left_by();
  EXPECT_LE(last.slab_bytes, first.slab_bytes + 4 * kMiB);
  EXPECT_LE(last.large_bytes, first.large_bytes);
  EXPECT_EQ(last.free_dirty_bytes, 0u);
  EXPECT_LE(last.metadata_bytes, 2 * first.metadata_bytes);
}

}  // namespace
