// As //tools:larson, but a fixed amount of work in place of a fixed time, so
// that a faster allocator ends sooner.

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// Aligned so that two chains share no line.
struct alignas(128) Chain {
  Random random{0};
  std::vector<char*> blocks;
  uint64_t bytes = 0;
};

Figures Run(const Params& params) {
  const int threads = params.Int("threads");
  const int lives = params.Int("lives");
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  const uint64_t replacements = params["replacements"];
  std::vector<Chain> chains(static_cast<size_t>(threads));
  for (size_t i = 0; i < chains.size(); ++i) {
    chains[i].random = Random(params["seed"], i);
    for (uint64_t j = 0; j < params["blocks"]; ++j) {
      const uint64_t size = chains[i].random.Between(least, most);
      chains[i].blocks.push_back(NewBlock(size));
      chains[i].bytes += size;
    }
  }
  RunChains(threads, lives, [&](int index, int) {
    Chain& chain = chains[static_cast<size_t>(index)];
    Random random = chain.random;
    char** const blocks = chain.blocks.data();
    const uint64_t count = chain.blocks.size();
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < replacements; ++i) {
      char*& block = blocks[random.Below(count)];
      std::free(block);
      const uint64_t size = random.Between(least, most);
      block = NewBlock(size);
      bytes += size;
    }
    chain.random = random;
    chain.bytes += bytes;
  });
  Figures figures;
  for (Chain& chain : chains) {
    for (char* const block : chain.blocks) std::free(block);
    figures.operations += replacements * static_cast<uint64_t>(lives);
    figures.checksum += chain.bytes;
  }
  return figures;
}

}  // namespace

Workload LarsonWorkload() {
  return {
      "larson",
      "replaces random blocks of an array, which goes from thread to thread",
      {ThreadsParam(4),
       {"min_size", 8, 1, 1 << 30, "least size of a block, in bytes"},
       {"max_size", 1000, 1, 1 << 30, "greatest size"},
       {"blocks", 5000, 1, 100000000, "live blocks a thread"},
       {"replacements", 500000, 1, UINT32_MAX,
        "a thread replaces as many, then ends"},
       {"lives", 12, 1, 1000000, "threads one after the other, for each array",
        true},
       SeedParam()},
      &Run,
      {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
