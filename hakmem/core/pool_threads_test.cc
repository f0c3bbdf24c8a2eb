// The suite that every variant of every pool passes, on several threads. It is
// also what TSan and Helgrind watch.

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <latch>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "hakmem/core/pool_test.h"

namespace hakmem {
namespace {

struct Block {
  void* start = nullptr;
  uint64_t owner = 0;
};

// A bounded queue between threads.
class Queue {
 public:
  void Put(Block block) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return blocks_.size() < kMost; });
    blocks_.push_back(block);
    changed_.notify_all();
  }
  Block Take() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return !blocks_.empty(); });
    const Block block = blocks_.front();
    blocks_.pop_front();
    changed_.notify_all();
    return block;
  }

 private:
  static constexpr size_t kMost = 100;
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<Block> blocks_;
};

class PoolThreadsTest : public PoolSuite {
 protected:
  static constexpr int kThreads = 4;

  // What a thread keeps live at most.
  static constexpr size_t kMostBytes = size_t{16} << 20;

  // Owners of a thread's blocks count from here.
  static uint64_t FirstOwner(int thread) {
    return (static_cast<uint64_t>(thread) + 1) << 32;
  }

  // The classes that `thread` of a test uses: few, so that threads meet.
  SizeClass AnyClass(std::mt19937& random) const {
    const SizeClass classes = pool_.geometry().classes();
    return first_class() + random() % 4 * (classes / 4);
  }

  void OnThreads(const std::function<void(int)>& fn, int count = kThreads) {
    std::vector<std::thread> threads;
    for (int t = 0; t < count; ++t) threads.emplace_back(fn, t);
    for (std::thread& thread : threads) thread.join();
  }

  // `threads` threads at a time put blocks into places, and free what was
  // there.
  void ExchangeAtRandom(int threads, int rounds);

  Block Allocate(SizeClass size_class, uint64_t owner) {
    void* const start = pool_.Allocate(size_class);
    EXPECT_NE(start, nullptr);
    Fill(start, owner);
    return {start, owner};
  }

  void CheckAndFree(Block block) {
    EXPECT_TRUE(IsFilled(block.start, block.owner)) << "it has two owners";
    pool_.Free(block.start);
  }
};

TEST_F(PoolThreadsTest, EachUsesBlocksOfItsOwn) {
  OnThreads([this](int thread) {
    std::mt19937 random(static_cast<uint32_t>(thread));
    uint64_t owner = FirstOwner(thread);
    std::vector<Block> live;
    size_t bytes = 0;
    for (int round = Rounds(40000); round > 0; --round) {
      // Waves, which move blocks through the depots: nothing else orders what
      // two threads do.
      const bool grow = round / 256 % 2 == 0;
      if (random() % 8 < (grow ? 7u : 1u) && bytes < kMostBytes) {
        const SizeClass c = AnyClass(random);
        live.push_back(Allocate(c, ++owner));
        bytes += ClassSize(c);
      } else if (!live.empty()) {
        std::swap(live[random() % live.size()], live.back());
        bytes -= ClassSize(arena.ClassOf(live.back().start));
        CheckAndFree(live.back());
        live.pop_back();
      }
    }
    for (const Block block : live) CheckAndFree(block);
  });
}

TEST_F(PoolThreadsTest, OneAllocatesAnotherFrees) {
  Queue queues[kThreads / 2];
  OnThreads([this, &queues](int thread) {
    Queue& queue = queues[thread / 2];
    const int rounds = Rounds(20000);
    if (thread % 2 == 0) {
      std::mt19937 random(static_cast<uint32_t>(thread));
      for (int round = 1; round <= rounds; ++round) {
        queue.Put(Allocate(AnyClass(random),
                           FirstOwner(thread) + static_cast<uint64_t>(round)));
      }
    } else {
      for (int round = 0; round < rounds; ++round) CheckAndFree(queue.Take());
    }
  });
}

void PoolThreadsTest::ExchangeAtRandom(int threads, int rounds) {
  struct Place {
    std::mutex mu;
    Block block;
  };
  std::array<Place, 64> places;
  std::latch all_have_begun(threads);
  OnThreads(
      [&](int thread) {
        std::mt19937 random(static_cast<uint32_t>(thread));
        uint64_t owner = FirstOwner(thread);
        CheckAndFree(Allocate(AnyClass(random), ++owner));
        all_have_begun.arrive_and_wait();
        for (int round = rounds; round > 0; --round) {
          Block block = Allocate(AnyClass(random), ++owner);
          Place& place = places[random() % places.size()];
          {
            const std::lock_guard<std::mutex> lock(place.mu);
            std::swap(block, place.block);
          }
          if (block.start != nullptr) CheckAndFree(block);
        }
      },
      threads);
  for (const Place& place : places) {
    if (place.block.start != nullptr) CheckAndFree(place.block);
  }
}

TEST_F(PoolThreadsTest, BlocksAreExchangedAtRandom) {
  ExchangeAtRandom(kThreads, Rounds(40000));
}

// Not all of them have room for bins.
TEST_F(PoolThreadsTest, ManyThreadsExchangeBlocksAtRandom) {
  if (Mutex::on_valgrind()) {
    GTEST_SKIP()
        << "TSan runs this; Helgrind reports what Abseil and the C library "
           "do when so many threads begin at once";
  }
  ExchangeAtRandom(10 * kThreads, Rounds(4000));
}

// Larson & Krishnan's server: each thread leaves its blocks to a successor and
// ends, so that blocks and the caches of threads outlive each other.
TEST_F(PoolThreadsTest, ThreadsLeaveTheirBlocksToOthers) {
  OnThreads([this](int line) {
    std::vector<Block> blocks;
    uint64_t owner = FirstOwner(line);
    std::mt19937 random(static_cast<uint32_t>(line));
    for (int generation = 0; generation < 6; ++generation) {
      std::thread([this, &blocks, &owner, &random] {
        while (blocks.size() < 40) {
          blocks.push_back(Allocate(AnyClass(random), ++owner));
        }
        for (int round = Rounds(4000); round > 0; --round) {
          Block& block = blocks[random() % blocks.size()];
          CheckAndFree(block);
          block = Allocate(AnyClass(random), ++owner);
        }
      }).join();
    }
    for (const Block block : blocks) CheckAndFree(block);
  });
}

// Memory is taken back from the pool while it is in use.
TEST_F(PoolThreadsTest, MemoryIsReleasedInBetween) {
  OnThreads([this](int thread) {
    std::mt19937 random(static_cast<uint32_t>(thread));
    uint64_t owner = FirstOwner(thread);
    std::vector<Block> live;
    for (int round = Rounds(500); round > 0; --round) {
      for (int i = 0; i < 20; ++i) {
        live.push_back(Allocate(AnyClass(random), ++owner));
      }
      for (const Block block : live) CheckAndFree(block);
      live.clear();
      if (round % 4 == 0) ReleaseAll();
      if (round % 16 == 0) arena.Purge(0);
    }
  });
}

}  // namespace
}  // namespace hakmem
