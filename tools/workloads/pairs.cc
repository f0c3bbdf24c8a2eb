#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// Allocates, and frees what was allocated `live` blocks earlier.
uint64_t Pairs(Random random, uint64_t pairs, uint64_t live, uint64_t least,
               uint64_t most) {
  uint64_t bytes = 0;
  std::vector<char*> ring(live, nullptr);
  size_t at = 0;
  for (uint64_t i = 0; i < pairs; ++i) {
    const uint64_t size = random.Between(least, most);
    char* block = NewBlock(size);
    bytes += size;
    if (live > 0) {
      std::swap(block, ring[at]);
      if (++at == live) at = 0;
    }
    std::free(block);
  }
  for (char* const block : ring) std::free(block);
  return bytes;
}

Figures Run(const Params& params) {
  const int threads = params.Int("threads");
  std::vector<uint64_t> bytes(static_cast<size_t>(threads));
  RunThreads(threads, [&](int index) {
    bytes[static_cast<size_t>(index)] = Pairs(
        Random(params["seed"], static_cast<uint64_t>(index)), params["pairs"],
        params["live"], params["min_size"], params["max_size"]);
  });
  Figures figures;
  figures.operations = params["pairs"] * static_cast<uint64_t>(threads);
  for (const uint64_t sum : bytes) figures.checksum += sum;
  return figures;
}

}  // namespace

Workload PairsWorkload() {
  return {"pairs",
          "malloc, then free of the block from --live calls ago",
          {ThreadsParam(1),
           {"min_size", 8, 1, 1 << 30, "least size of a block, in bytes"},
           {"max_size", 256, 1, 1 << 30, "greatest size"},
           {"live", 100, 0, 100000000, "blocks that are live at a time"},
           {"pairs", 50000000, 1, UINT64_MAX, "pairs a thread", true},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
