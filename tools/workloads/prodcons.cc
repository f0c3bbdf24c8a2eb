#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// A bounded queue of batches. Its slots are allocated once: the workload is to
// measure the blocks and not the queue.
//
// Nor is it to measure wake-ups, which take longer than a batch: the quicker
// side would wait at each. So who finds the queue full goes on when `wake` of
// its batches are gone, and who finds it empty when there are `wake`, or when
// there will be no more.
//
// Invariant: may_push_ or may_pop_. The first ends where the queue is full,
// which begins the second, and the other way round.
class Queue {
 public:
  // More than all of the batches count as all.
  Queue(size_t batches, size_t batch, size_t wake)
      : slots_(batches), wake_(std::min(batches, wake)) {
    for (auto& slot : slots_) slot.reserve(batch);
  }

  // Swaps the batch in and an empty one out.
  void Push(std::vector<char*>* batch) {
    std::unique_lock<std::mutex> lock(mutex_);
    Wait(lock, not_full_, may_push_);
    batch->swap(slots_[(first_ + used_) % slots_.size()]);
    if (++used_ == slots_.size()) may_push_ = false;
    if (used_ >= wake_) Allow(not_empty_, &may_pop_);
  }

  // Swaps the oldest batch out and an empty one in. False when there will be no
  // more.
  bool Pop(std::vector<char*>* batch) {
    std::unique_lock<std::mutex> lock(mutex_);
    Wait(lock, not_empty_, may_pop_);
    if (used_ == 0) return false;
    batch->swap(slots_[first_]);
    first_ = (first_ + 1) % slots_.size();
    if (--used_ == 0) may_pop_ = closed_;
    if (slots_.size() - used_ >= wake_) Allow(not_full_, &may_push_);
    return true;
  }

  // One producer less; the last one closes the queue.
  void Leave(int* producers) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--*producers > 0) return;
    closed_ = true;
    Allow(not_empty_, &may_pop_);
  }

  // How often a thread had to wait. For when all have ended.
  uint64_t waits() const { return waits_; }

 private:
  void Wait(std::unique_lock<std::mutex>& lock, std::condition_variable& until,
            const bool& may) {
    if (!may) ++waits_;
    until.wait(lock, [&may] { return may; });
  }

  // All that wait, since nobody says it to them again.
  static void Allow(std::condition_variable& until, bool* may) {
    if (std::exchange(*may, true)) return;
    until.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable not_full_;
  std::condition_variable not_empty_;
  std::vector<std::vector<char*>> slots_;
  const size_t wake_;
  size_t first_ = 0;
  size_t used_ = 0;
  uint64_t waits_ = 0;
  bool may_push_ = true;
  bool may_pop_ = false;
  bool closed_ = false;
};

Figures Run(const Params& params) {
  const int producers = params.Int("producers");
  const int consumers = params.Int("consumers");
  const size_t batch_size = params["batch"];
  const uint64_t batches = params["batches"];
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  Queue queue(params["queue"], batch_size, params["wake"]);
  std::vector<uint64_t> counts(static_cast<size_t>(producers + consumers), 0);
  std::vector<uint64_t> bytes(static_cast<size_t>(producers), 0);
  int left = producers;
  RunThreads(producers + consumers, [&](int index) {
    std::vector<char*> batch;
    batch.reserve(batch_size);
    uint64_t count = 0;
    if (index < producers) {
      Random random(params["seed"], static_cast<uint64_t>(index));
      uint64_t sum = 0;
      for (uint64_t i = 0; i < batches; ++i) {
        for (size_t j = 0; j < batch_size; ++j) {
          const uint64_t size = random.Between(least, most);
          sum += size;
          batch.push_back(NewBlock(size));
        }
        queue.Push(&batch);
      }
      bytes[static_cast<size_t>(index)] = sum;
      queue.Leave(&left);
    } else {
      while (queue.Pop(&batch)) {
        for (char* const block : batch) std::free(block);
        count += batch.size();
        batch.clear();
      }
    }
    counts[static_cast<size_t>(index)] = count;
  });
  Figures figures;
  for (const uint64_t count : counts) figures.operations += count;
  for (const uint64_t sum : bytes) figures.checksum += sum;
  figures.more = {{"waits", static_cast<double>(queue.waits())}};
  return figures;
}

}  // namespace

Workload ProdconsWorkload() {
  return {"prodcons",
          "some threads only allocate, others only free, batches through a "
          "queue",
          {{"producers", 2, 1, 1024, "threads that allocate"},
           {"consumers", 2, 1, 1024, "threads that free"},
           {"min_size", 64, 1, 1 << 30, "least size of a block, in bytes"},
           {"max_size", 64, 1, 1 << 30, "greatest size"},
           {"batch", 100, 1, 1000000, "blocks a batch"},
           {"queue", 64, 1, 1000000, "batches that may wait"},
           {"wake", 32, 1, 1000000,
            "batches to do or to fill for which a thread that waits goes on"},
           {"batches", 50000, 1, UINT64_MAX, "batches a producer", true},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
