#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// A bounded queue of batches. Its slots are allocated once: the workload is to
// measure the blocks and not the queue.
class Queue {
 public:
  Queue(size_t batches, size_t batch) : slots_(batches) {
    for (auto& slot : slots_) slot.reserve(batch);
  }

  // Swaps the batch in and an empty one out; waits while the queue is full.
  void Push(std::vector<char*>* batch) {
    std::unique_lock<std::mutex> lock(mutex_);
    not_full_.wait(lock, [this] { return used_ < slots_.size(); });
    batch->swap(slots_[(first_ + used_) % slots_.size()]);
    ++used_;
    not_empty_.notify_one();
  }

  // Swaps the oldest batch out and an empty one in; waits while there is none.
  // False when there will be no more.
  bool Pop(std::vector<char*>* batch) {
    std::unique_lock<std::mutex> lock(mutex_);
    not_empty_.wait(lock, [this] { return used_ > 0 || closed_; });
    if (used_ == 0) return false;
    batch->swap(slots_[first_]);
    first_ = (first_ + 1) % slots_.size();
    --used_;
    not_full_.notify_one();
    return true;
  }

  // One producer less; the last one closes the queue.
  void Leave(int* producers) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--*producers > 0) return;
    closed_ = true;
    not_empty_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable not_full_;
  std::condition_variable not_empty_;
  std::vector<std::vector<char*>> slots_;
  size_t first_ = 0;
  size_t used_ = 0;
  bool closed_ = false;
};

Figures Run(const Params& params) {
  const int producers = params.Int("producers");
  const int consumers = params.Int("consumers");
  const size_t batch_size = params["batch"];
  const uint64_t batches = params["batches"];
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  Queue queue(params["queue"], batch_size);
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
           {"batches", 50000, 1, UINT64_MAX, "batches a producer", true},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
