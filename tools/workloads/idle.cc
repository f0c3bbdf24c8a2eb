#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tools/common/process.h"
#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// Allocates up to a peak, frees nine tenths, and then does nothing: no call
// that would give the allocator an occasion to tidy up. The wait is what is
// measured here, and nothing is waited for.
Figures Run(const Params& params) {
  const int threads = params.Int("threads");
  const uint64_t share =
      (params["peak_mib"] << 20) / static_cast<uint64_t>(threads);
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  const bool scattered = params["scattered"] != 0;
  std::vector<std::vector<char*>> kept(static_cast<size_t>(threads));
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  std::vector<uint64_t> counts(static_cast<size_t>(threads));
  std::vector<std::vector<char*>> dropped(static_cast<size_t>(threads));
  const uint64_t base_kib = ResidentKib();
  RunThreads(threads, [&](int thread) {
    const size_t index = static_cast<size_t>(thread);
    Random random(params["seed"], index);
    uint64_t bytes = 0;
    while (bytes < share) {
      const uint64_t size = random.Between(least, most);
      char* const block = NewBlock(size);
      TouchPages(block, size);
      const bool keep =
          scattered ? random.Below(10) == 0 : bytes >= share - share / 10;
      (keep ? kept : dropped)[index].push_back(block);
      bytes += size;
      ++counts[index];
    }
    sums[index] = bytes;
  });
  const uint64_t peak_kib = ResidentKib();
  // Freed by the main thread, as a program does that drops a whole data set.
  for (auto& blocks : dropped) {
    for (char* const block : blocks) std::free(block);
  }
  Figures figures;
  figures.more.emplace_back("rss_before_kib", static_cast<double>(base_kib));
  figures.more.emplace_back("rss_peak_kib", static_cast<double>(peak_kib));
  figures.more.emplace_back("rss_0s_kib", static_cast<double>(ResidentKib()));
  const std::chrono::milliseconds wait(params["wait_ms"]);
  std::this_thread::sleep_for(wait / 5);
  figures.more.emplace_back("rss_1s_kib", static_cast<double>(ResidentKib()));
  std::this_thread::sleep_for(wait - wait / 5);
  figures.more.emplace_back("rss_5s_kib", static_cast<double>(ResidentKib()));
  for (auto& blocks : kept) {
    for (char* const block : blocks) std::free(block);
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    figures.operations += counts[i];
    figures.checksum += sums[i];
  }
  return figures;
}

}  // namespace

Workload IdleWorkload() {
  return {
      "idle",
      "peak, drop to a tenth, wait: RSS after 0, 1 and 5 s",
      {ThreadsParam(2),
       {"peak_mib", 256, 1, 1 << 20, "live bytes at the peak, in MiB", true},
       {"min_size", 16, 1, 1 << 30, "least size of a block, in bytes"},
       {"max_size", 16384, 1, 1 << 30, "greatest size"},
       {"scattered", 0, 0, 1,
        "1: what stays is spread over all that was; 0: it is the newest"},
       {"wait_ms", 5000, 0, 3600000,
        "how long to wait; the figure named 1s is taken after a fifth"},
       SeedParam()},
      &Run,
      {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
