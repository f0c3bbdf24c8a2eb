#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

struct alignas(128) Chain {
  Random random{0};
  std::vector<char*> survivors;  // handed from thread to thread
  uint64_t bytes = 0;
};

// Every power of two up to `most` equally often, evenly within it: most blocks
// are small and most bytes are in large ones, as in real programs.
uint64_t LogSize(Random* random, uint64_t least, uint64_t most) {
  int octaves = 0;
  while ((least << (octaves + 1)) <= most) ++octaves;
  const uint64_t low = least
                       << random->Below(static_cast<uint64_t>(octaves) + 1);
  return random->Between(low, std::min(2 * low - 1, most));
}

// One short life: takes over the survivors, allocates blocks each of which
// takes the place of a random one, and leaves as many survivors as it found.
void Live(Chain* chain, const Params& params) {
  Random random = chain->random;
  const size_t survivors = params["survivors"];
  const uint64_t operations = params["operations"];
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  std::vector<char*> blocks(survivors + params["blocks"], nullptr);
  std::copy(chain->survivors.begin(), chain->survivors.end(), blocks.begin());
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < operations; ++i) {
    char*& slot = blocks[random.Below(blocks.size())];
    std::free(slot);
    const uint64_t size = LogSize(&random, least, most);
    slot = NewBlock(size);
    bytes += size;
  }
  chain->survivors.assign(blocks.begin(),
                          blocks.begin() + static_cast<ptrdiff_t>(survivors));
  for (size_t i = survivors; i < blocks.size(); ++i) std::free(blocks[i]);
  chain->random = random;
  chain->bytes += bytes;
}

Figures Run(const Params& params) {
  const int threads = params.Int("threads");
  const int lives = params.Int("lives");
  std::vector<Chain> chains(static_cast<size_t>(threads));
  for (size_t i = 0; i < chains.size(); ++i) {
    chains[i].random = Random(params["seed"], i);
  }
  RunChains(threads, lives, [&](int index, int) {
    Live(&chains[static_cast<size_t>(index)], params);
  });
  Figures figures;
  figures.operations = params["operations"] * static_cast<uint64_t>(threads) *
                       static_cast<uint64_t>(lives);
  for (Chain& chain : chains) {
    for (char* const block : chain.survivors) std::free(block);
    figures.checksum += chain.bytes;
  }
  return figures;
}

}  // namespace

Workload ThreadsWorkload() {
  return {
      "threads",
      "short-lived threads that pass survivors on",
      {ThreadsParam(4),
       {"lives", 500, 1, 1000000, "threads one after the other, of each", true},
       {"min_size", 16, 1, 1 << 30, "least size of a block, in bytes"},
       {"max_size", 1 << 20, 1, 1 << 30, "greatest size"},
       {"operations", 2000, 1, UINT64_MAX, "blocks a life"},
       {"blocks", 200, 1, 1000000, "live blocks a thread"},
       {"survivors", 50, 0, 1000000, "blocks that go to the next thread"},
       SeedParam()},
      &Run,
      {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
