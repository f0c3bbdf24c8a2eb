// fork(), and what is like it, while other threads allocate.

#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <latch>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/observed.h"
#include "hakmem/shim/all_pools.h"
#include "hakmem/shim/early.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/in_child.h"

extern char** environ;

namespace {

using hakmem::InChild;
using hakmem::kSizes;
using hakmem::Stats;
using hakmem::UseAllPools;

constexpr size_t kMiB = size_t{1} << 20;
// Ends a child that hangs, so that it does not outlive the test.
constexpr unsigned kChildSeconds = 60;

// What runs at fork in a program's own handlers, of which some were registered
// before hakmem's and some after.
std::atomic<int> handler_calls[6];

template <int kIndex>
void Handler() {
  UseAllPools();
  handler_calls[kIndex].fetch_add(1, std::memory_order_relaxed);
}

// Of each part of the arena more than its half is taken, where there are such
// parts: so all of them come into use.
constexpr int kParts = 4;
const bool has_parts = [] {
  if (getenv("HAKMEM_ARENA_PARTS") == nullptr) return false;
  void* blocks[4 * kParts];
  for (void*& block : blocks) block = malloc(1024 * kMiB);
  for (void* const block : blocks) free(block);
  return true;
}();

void BeforeConstructors(int, char**, char**) {
  pthread_atfork(&Handler<0>, &Handler<1>, &Handler<2>);
}

HAKMEM_RUN_BEFORE_CONSTRUCTORS(&BeforeConstructors);

// Threads that allocate and free until the object goes.
class Busy {
 public:
  explicit Busy(int threads) {
    std::latch started(threads);
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this, &started] {
        UseAllPools();
        started.count_down();
        while (!stop_.load(std::memory_order_relaxed)) UseAllPools();
      });
    }
    started.wait();
  }
  ~Busy() {
    stop_.store(true);
    for (std::thread& thread : threads_) thread.join();
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

TEST(ForkTest, PartsOfTheArenaAreInUseIfThereAreAny) {
  for (int i = 0; i < kParts; ++i) {
    const bool used = hak_observed.parts[i].committed_bytes != 0;
    EXPECT_EQ(used, i == 0 || has_parts) << i;
  }
}

TEST(ForkTest, ChildAllocatesAndFreesWhatTheParentAllocated) {
  const Busy busy(3);
  std::vector<void*> blocks;
  for (const size_t size : kSizes) {
    for (int i = 0; i < 20; ++i) blocks.push_back(malloc(size));
  }
  InChild([&blocks] {
    for (void* const block : blocks) free(block);
    for (int i = 0; i < 100; ++i) UseAllPools();
    return true;
  });
  for (void* const block : blocks) free(block);
}

// Threads free blocks into their caches and then wait, while the program
// forks. The child has no such threads: it must find their blocks.
TEST(ForkTest, ChildReusesWhatOtherThreadsHadCached) {
  constexpr int kThreads = 8;
  constexpr size_t kSize = 20000;
  constexpr int kBlocks = 50;
  UseAllPools();  // as the handlers of fork() do
  const size_t without = Stats().slab_bytes;
  std::latch cached(kThreads);
  std::latch end(1);
  std::vector<std::thread> threads;
  std::barrier allocated(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      std::vector<void*> blocks(kBlocks);
      for (void*& block : blocks) block = malloc(kSize);
      allocated.arrive_and_wait();
      for (void* const block : blocks) free(block);
      cached.count_down();
      end.wait();
    });
  }
  cached.wait();
  // Room for all of it once, with what rounding takes, not twice.
  InChild([without] {
    std::vector<void*> blocks(kThreads * kBlocks);
    for (void*& block : blocks) block = malloc(kSize);
    return Stats().slab_bytes <=
           without + kThreads * kBlocks * kSize * 9 / 8 + kMiB;
  });
  end.count_down();
  for (std::thread& thread : threads) thread.join();
}

TEST(ForkTest, ChildForksAndTheGrandchildToo) {
  const Busy busy(2);
  InChild([] {
    UseAllPools();
    // Threads again, in the child.
    const Busy more(2);
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      alarm(kChildSeconds);
      UseAllPools();
      const pid_t last = fork();
      if (last == 0) {
        UseAllPools();
        _exit(0);
      }
      int status = 1;
      waitpid(last, &status, 0);
      _exit(status == 0 ? 0 : 1);
    }
    int status = 1;
    waitpid(grandchild, &status, 0);
    return status == 0;
  });
}

TEST(ForkTest, AnyThreadMayFork) {
  const Busy busy(2);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int j = 0; j < 10; ++j) {
        UseAllPools();
        InChild([] {
          UseAllPools();
          std::thread(&UseAllPools).join();
          return true;
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The handlers of the program that were registered first run while hakmem's
// locks are held.
TEST(ForkTest, HandlersOfTheProgramMayAllocate) {
  ASSERT_EQ(pthread_atfork(&Handler<3>, &Handler<4>, &Handler<5>), 0);
  const Busy busy(4);
  for (std::atomic<int>& calls : handler_calls) calls.store(0);
  for (int i = 0; i < 20; ++i) {
    InChild([] {
      UseAllPools();
      return handler_calls[2].load() == 1 && handler_calls[5].load() == 1;
    });
  }
  for (const int index : {0, 1, 3, 4}) {
    EXPECT_EQ(handler_calls[index].load(), 20) << index;
  }
}

TEST(ForkTest, HundredsOfForksWhileFourThreadsAllocate) {
  const Busy busy(4);
  // That threads come to the locks in between is a matter of luck, and takes
  // minutes where others use the machine.
  const int forks = has_parts ? 100 : 400;
  for (int i = 0; i < forks; ++i) {
    InChild([i] {
      UseAllPools();
      // Locks that were held at the fork are contended again.
      if (i % 8 == 0) {
        const Busy more(2);
        UseAllPools();
      }
      return true;
    });
  }
}

// Threads begin and end all the time, so forks hit every moment of that.
TEST(ForkTest, ForksWhileThreadsComeAndGo) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> makers;
  for (int i = 0; i < 2; ++i) {
    makers.emplace_back([&stop] {
      while (!stop.load()) std::thread(&UseAllPools).join();
    });
  }
  for (int i = 0; i < 200; ++i) {
    InChild([] {
      UseAllPools();
      std::thread(&UseAllPools).join();
      return true;
    });
  }
  stop.store(true);
  for (std::thread& maker : makers) maker.join();
}

TEST(ForkTest, ForkingDoesNotLeak) {
  const auto forks = [](int count) {
    for (int i = 0; i < count; ++i) InChild([] { return true; });
  };
  forks(5);
  const hak_stats before = Stats();
  forks(50);
  EXPECT_EQ(Stats().slab_bytes, before.slab_bytes);
  EXPECT_EQ(Stats().metadata_bytes, before.metadata_bytes);
}

TEST(VforkTest, TheParentIsAsBefore) {
  const Busy busy(3);
  for (int i = 0; i < 50; ++i) {
    void* const block = malloc(1000);
    const pid_t child = vfork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      execl("/bin/true", "true", static_cast<char*>(nullptr));
      _exit(127);
    }
    int status = 1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    free(block);
    UseAllPools();
  }
}

TEST(SpawnTest, PosixSpawnFromSeveralThreads) {
  const Busy busy(2);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([] {
      for (int j = 0; j < 20; ++j) {
        char name[] = "true";
        char* const arguments[] = {name, nullptr};
        pid_t child = 0;
        ASSERT_EQ(posix_spawn(&child, "/bin/true", nullptr, nullptr, arguments,
                              environ),
                  0);
        int status = 1;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
        UseAllPools();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
