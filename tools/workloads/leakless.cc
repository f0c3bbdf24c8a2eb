#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

#include "tools/common/process.h"
#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// One thread allocates everything. Each batch is freed by a new thread, while
// the next is being allocated. What those threads cache when they end must not
// be lost: resident memory would grow with every one of them.
Figures Run(const Params& params) {
  Random random(params["seed"]);
  Figures figures;
  std::vector<char*> batches[2];
  const uint64_t blocks = params["blocks"];
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  for (auto& batch : batches) batch.reserve(blocks);
  std::thread freeing;
  const uint64_t threads = params["threads"];
  uint64_t early_kib = 0;
  for (uint64_t i = 0; i < threads; ++i) {
    std::vector<char*>& batch = batches[i % 2];
    for (uint64_t j = 0; j < blocks; ++j) {
      const uint64_t size = random.Between(least, most);
      batch.push_back(NewBlock(size));
      ++figures.operations;
      figures.checksum += size;
    }
    if (freeing.joinable()) freeing.join();
    freeing = std::thread([&batch] {
      for (char* const block : batch) std::free(block);
      batch.clear();
    });
    if (i == threads / 10) early_kib = ResidentKib();
  }
  freeing.join();
  const uint64_t late_kib = ResidentKib();
  figures.more = {{"rss_after_tenth_kib", static_cast<double>(early_kib)},
                  {"rss_at_end_kib", static_cast<double>(late_kib)}};
  return figures;
}

}  // namespace

Workload LeaklessWorkload() {
  return {"leakless",
          "one thread allocates, and hundreds of threads over time free",
          {{"threads", 500, 1, 1000000, "threads that free, over time", true},
           {"blocks", 10000, 1, 100000000, "blocks for each to free"},
           {"min_size", 16, 1, 1 << 30, "least size of a block, in bytes"},
           {"max_size", 512, 1, 1 << 30, "greatest size"},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
