#include <barrier>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <semaphore>
#include <thread>
#include <vector>

#include "tools/common/process.h"
#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// Threads that each work for a moment and then wait for ever: what their caches
// hold meanwhile is nobody's. Few of them work at a time: where all may, the
// peak is what those have live whom the scheduler interrupts, and differs
// sixfold.
Figures Run(const Params& params) {
  const auto count = static_cast<std::ptrdiff_t>(params["threads"]);
  std::vector<uint64_t> sums(static_cast<size_t>(count));
  // Neither on the threads' stacks nor blocks of theirs.
  std::vector<char*> all(static_cast<size_t>(count) * params["blocks"]);
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(count));
  // All threads have begun; that has been measured; all have worked; so has
  // that.
  std::barrier step(count + 1);
  std::counting_semaphore<> turns(
      static_cast<std::ptrdiff_t>(params["at_once"]));
  const uint64_t base_kib = ResidentKib();
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    threads.emplace_back([&params, &step, &turns, &sums, &all, i] {
      step.arrive_and_wait();
      step.arrive_and_wait();
      Random random(params["seed"], static_cast<uint64_t>(i));
      const uint64_t number = params["blocks"];
      char** const blocks = &all[static_cast<size_t>(i) * number];
      turns.acquire();
      for (uint64_t j = 0; j < number; ++j) {
        const uint64_t size =
            random.Between(params["min_size"], params["max_size"]);
        blocks[j] = NewBlock(size);
        TouchPages(blocks[j], size);
        sums[static_cast<size_t>(i)] += size;
      }
      for (uint64_t j = 0; j < number; ++j) std::free(blocks[j]);
      turns.release();
      step.arrive_and_wait();
      step.arrive_and_wait();
    });
  }
  step.arrive_and_wait();
  const uint64_t begun_kib = ResidentKib();
  step.arrive_and_wait();
  step.arrive_and_wait();
  const uint64_t idle_kib = ResidentKib();
  step.arrive_and_wait();
  for (std::thread& thread : threads) thread.join();
  Figures figures;
  const auto each = [count](uint64_t from_kib, uint64_t to_kib) {
    return (static_cast<double>(to_kib) - static_cast<double>(from_kib)) /
           static_cast<double>(count);
  };
  figures.more = {{"rss_idle_kib", static_cast<double>(idle_kib)},
                  {"rss_each_kib", each(base_kib, idle_kib)},
                  {"cached_each_kib", each(begun_kib, idle_kib)}};
  for (const uint64_t sum : sums) figures.checksum += sum;
  figures.operations = static_cast<uint64_t>(count) * params["blocks"];
  return figures;
}

}  // namespace

Workload IdlersWorkload() {
  return {"idlers",
          "threads that each cached once and then wait: RSS for each of them",
          {{"threads", 1000, 1, 32768, "threads", true},
           {"at_once", 4, 1, 32768, "threads that work at the same time"},
           {"blocks", 200, 1, 1000000, "blocks of each"},
           {"min_size", 16, 1, 1 << 30, "least size of a block, in bytes"},
           {"max_size", 16384, 1, 1 << 30, "greatest size"},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
