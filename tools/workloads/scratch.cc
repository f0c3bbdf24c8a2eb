// After "cache-scratch" of Berger et al., "Hoard: a scalable memory allocator
// for multithreaded applications", ASPLOS 2000: an allocator that gives one
// thread the neighbour of another thread's block makes them share a line, and
// each write then waits for the other core.

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

Figures Run(const Params& params) {
  const int threads = params.Int("threads");
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  const uint64_t blocks = params["blocks"];
  const uint64_t writes = params["writes"];
  // Side by side in any allocator, and each goes to another thread.
  Random random(params["seed"]);
  std::vector<char*> first;
  for (int i = 0; i < threads; ++i) {
    first.push_back(NewBlock(random.Between(least, most)));
  }
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  RunThreads(threads, [&](int index) {
    Random own(params["seed"], static_cast<uint64_t>(index) + 1);
    std::free(first[static_cast<size_t>(index)]);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < blocks; ++i) {
      const uint64_t size = own.Between(least, most);
      char* const block = NewBlock(size);
      volatile char* const byte = block;
      *byte = 0;
      for (uint64_t j = 0; j < writes; ++j) {
        *byte = static_cast<char>(*byte + 1);
      }
      sum += static_cast<unsigned char>(*byte) + size;
      std::free(block);
    }
    sums[static_cast<size_t>(index)] = sum;
  });
  Figures figures;
  figures.operations = blocks * static_cast<uint64_t>(threads);
  for (const uint64_t sum : sums) figures.checksum += sum;
  return figures;
}

}  // namespace

Workload ScratchWorkload() {
  return {"scratch",
          "writes intensively to small blocks of which the first came from "
          "another thread",
          {ThreadsParam(4),
           {"min_size", 8, 1, 1 << 20, "least size of a block, in bytes"},
           {"max_size", 8, 1, 1 << 20, "greatest size"},
           {"blocks", 80000, 1, UINT64_MAX, "blocks a thread", true},
           {"writes", 1000, 0, UINT64_MAX, "writes a block"},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
