// Threads' lives: locks whose set-up calls back into malloc, first calls before
// any constructor, destructors that allocate, and many short threads.

#include <pthread.h>
#include <stdlib.h>

#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/early.h"
#include "hakmem/shim/hakmem.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Values of pthread keys after the first 32 live in memory that
// pthread_setspecific() gets from calloc().
constexpr int kKeys = 40;

void* early_blocks[4];
bool early_worked = false;

void BeforeConstructors(int, char**, char**) {
  for (int i = 0; i < kKeys; ++i) {
    pthread_key_t key;
    if (pthread_key_create(&key, nullptr) != 0) abort();
  }
  early_blocks[0] = malloc(100);
  early_blocks[1] = calloc(1, 20000);
  early_blocks[2] = realloc(malloc(200000), 300000);
  early_blocks[3] = aligned_alloc(4096, 3 * kMiB);
  free(malloc(50));
  early_worked = true;
  for (void* const block : early_blocks) {
    if (block == nullptr) early_worked = false;
  }
  if (early_worked) std::memset(early_blocks[3], 0x42, 3 * kMiB);
}

HAKMEM_RUN_BEFORE_CONSTRUCTORS(&BeforeConstructors);

hak_stats Stats() {
  hak_stats stats;
  EXPECT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
  return stats;
}

void RunThreads(int count, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

// A block of any pool or above, with a mark at both ends.
class Marked {
 public:
  explicit Marked(size_t size) : size_(size) {
    bytes_ = static_cast<char*>(malloc(size));
    if (bytes_ == nullptr) abort();
    bytes_[0] = bytes_[size - 1] = static_cast<char>(size);
  }
  Marked(const Marked&) = delete;
  Marked& operator=(const Marked&) = delete;
  ~Marked() {
    if (bytes_[0] != static_cast<char>(size_) ||
        bytes_[size_ - 1] != static_cast<char>(size_)) {
      abort();
    }
    free(bytes_);
  }

 private:
  char* bytes_;
  size_t size_;
};

constexpr size_t kSizesOfAllPools[] = {8,     100,   1000,  3000,
                                       30000, 70000, 600000};

void UseAllPools() {
  for (const size_t size : kSizesOfAllPools) Marked block(size);
}

TEST(EarlyTest, TheFirstCallsCameBeforeAnyConstructor) {
  ASSERT_TRUE(early_worked);
  const auto* const bytes = static_cast<const char*>(early_blocks[1]);
  for (int i = 0; i < 20000; ++i) ASSERT_EQ(bytes[i], 0);
  EXPECT_EQ(static_cast<const char*>(early_blocks[3])[3 * kMiB - 1], 0x42);
  for (void* const block : early_blocks) free(block);
}

// Blocks above 32 KiB, of which calloc() does not fill what nobody had yet:
// used here, and given back by threads that did not allocate them.
TEST(ThreadTest, CallocClearsLargeBlocksThatOthersUsed) {
  std::atomic<unsigned char*> shared[32] = {};
  RunThreads(4, [&shared](int seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    for (int step = 0; step < 3000; ++step) {
      const size_t size = 33000 + random() % (random() % 8 + 1) * 40000;
      const bool zero = random() % 2 == 0;
      auto* const block =
          static_cast<unsigned char*>(zero ? calloc(1, size) : malloc(size));
      for (size_t i = 0; i < size; i += 1021) {
        if (zero && block[i] != 0) abort();
        block[i] = 0xa5;
      }
      free(shared[random() % std::size(shared)].exchange(block));
      if (step % 500 == 0) hak_release_memory(0);
    }
  });
  for (std::atomic<unsigned char*>& block : shared) free(block.load());
}

// New threads wait for a lock for the first time while it is held, and while
// they hold another themselves: each first wait makes Abseil set the thread up,
// which calls calloc() because of the keys above.
TEST(ReentryTest, FirstContentionOfEachThreadCallsBack) {
  constexpr int kThreads = 8;
  for (int round = 0; round < 60; ++round) {
    std::barrier start(kThreads);
    RunThreads(kThreads, [&start](int index) {
      start.arrive_and_wait();
      if (index < 2) {
        // Holds the arena's lock for long: returning memory to the system.
        for (int i = 0; i < 10; ++i) {
          const size_t size = 40 * kMiB;
          auto* const block = static_cast<char*>(malloc(size));
          for (size_t at = 0; at < size; at += 1 * kMiB) block[at] = 1;
          free(block);
        }
        return;
      }
      // Each block of these wants a slab: the arena's lock within the pool's.
      std::vector<void*> blocks;
      for (int i = 0; i < 40; ++i) {
        for (const size_t size : {size_t{1000}, size_t{30000}, 600000ul}) {
          for (int j = 0; j < (size == 1000 ? 30 : 2); ++j) {
            blocks.push_back(malloc(size));
          }
        }
      }
      for (void* const block : blocks) free(block);
    });
  }
}

TEST(ReentryTest, PoolLocksContended) {
  constexpr int kThreads = 8;
  for (int round = 0; round < 30; ++round) {
    std::barrier start(kThreads);
    RunThreads(kThreads, [&start](int) {
      start.arrive_and_wait();
      // Waiting makes system calls; errno is the program's all the same.
      for (int i = 0; i < 300; ++i) {
        errno = EXDEV;
        UseAllPools();
        ASSERT_EQ(errno, EXDEV);
      }
    });
  }
}

// Allocates in its destructor, after which the thread's cache goes.
struct AllocatesWhenDestroyed {
  ~AllocatesWhenDestroyed() {
    UseAllPools();
    free(kept);
  }
  void* kept = malloc(500);
};
thread_local AllocatesWhenDestroyed allocates_when_destroyed;

pthread_key_t rounds_key;
std::atomic<int> rounds_run{0};

// Sets its key again, so that the C library comes round once more, up to
// PTHREAD_DESTRUCTOR_ITERATIONS times.
void AllocateInRounds(void* value) {
  UseAllPools();
  auto* const left = static_cast<int*>(value);
  rounds_run.fetch_add(1, std::memory_order_relaxed);
  if (--*left > 0) {
    auto* const next = static_cast<int*>(malloc(sizeof(int)));
    *next = *left;
    pthread_setspecific(rounds_key, next);
  }
  free(left);
}

TEST(ThreadEndTest, DestructorsOfAllKindsMayAllocate) {
  ASSERT_EQ(pthread_key_create(&rounds_key, &AllocateInRounds), 0);
  constexpr int kThreads = 20;
  constexpr int kRounds = 3;
  RunThreads(kThreads, [](int) {
    EXPECT_NE(allocates_when_destroyed.kept, nullptr);
    auto* const left = static_cast<int*>(malloc(sizeof(int)));
    *left = kRounds;
    pthread_setspecific(rounds_key, left);
    UseAllPools();
  });
  EXPECT_EQ(rounds_run.load(), kThreads * kRounds);
}

// The heap once what threads have left in caches is gone: how much that is, and
// how much the threads had at once, is a matter of their luck.
hak_stats StatsAtRest() {
  hak_release_memory(0);
  return Stats();
}

TEST(ThreadEndTest, TenThousandShortThreadsLeaveNothingBehind) {
  const auto generation = [] {
    std::atomic<void*> handed_over{nullptr};
    RunThreads(10, [&handed_over](int) {
      EXPECT_NE(allocates_when_destroyed.kept, nullptr);
      UseAllPools();
      std::vector<void*> blocks;
      for (const size_t size : kSizesOfAllPools) {
        for (int i = 0; i < 8; ++i) blocks.push_back(malloc(size));
      }
      for (void* const block : blocks) free(block);
      // One block a thread is freed by another.
      free(handed_over.exchange(malloc(2000)));
    });
    free(handed_over.load());
  };
  for (int i = 0; i < 100; ++i) generation();
  const hak_stats warm = StatsAtRest();
  for (int i = 0; i < 900; ++i) generation();
  const hak_stats end = StatsAtRest();
  // A slab is a matter of luck, too. A lost block of 100 bytes a thread would
  // be fourteen.
  EXPECT_LE(end.slab_bytes, warm.slab_bytes + 64 * 1024);
  EXPECT_LE(end.large_bytes, warm.large_bytes);
  EXPECT_LE(end.metadata_bytes, warm.metadata_bytes + 16 * 1024);
  // As much as all ten may have at once.
  EXPECT_LE(end.committed_bytes, warm.committed_bytes + 128 * kMiB);
}

// Whole magazines left behind, not just a block.
TEST(ThreadEndTest, WhatAThreadHadCachedIsThereForOthers) {
  const auto fill_and_free = [] {
    std::vector<void*> blocks(20000);
    for (void*& block : blocks) block = malloc(512);
    for (void* const block : blocks) free(block);
  };
  std::thread(fill_and_free).join();
  const hak_stats first = StatsAtRest();
  for (int i = 0; i < 50; ++i) std::thread(fill_and_free).join();
  EXPECT_LE(StatsAtRest().slab_bytes, first.slab_bytes + 256 * 1024);
}

}  // namespace
