#include <algorithm>
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

// How many blocks a thread collects before it hands them to another: seldom
// enough that the lock does not show.
constexpr size_t kPost = 64;

// When so many wait in an inbox, because its thread has no processor or has
// ended, whoever comes next frees them. What is live, and so the peak of
// resident memory, would otherwise depend on the scheduler.
constexpr size_t kInboxMost = 16 * kPost;

// Blocks that other threads want this thread to free.
struct alignas(128) Inbox {
  std::mutex mutex;
  std::vector<char*> blocks;
};

// The lesser of two even numbers: small sizes are the most frequent, and the
// frequency falls linearly to zero at `most`.
uint64_t FallingSize(Random* random, uint64_t least, uint64_t most) {
  return std::min(random->Between(least, most), random->Between(least, most));
}

void FreeAll(std::vector<char*>* blocks) {
  for (char* const block : *blocks) std::free(block);
  blocks->clear();
}

uint64_t Mix(int index, std::vector<Inbox>* inboxes, const Params& params) {
  const uint64_t least = params["min_size"];
  const uint64_t most = params["max_size"];
  const uint64_t foreign = params["foreign_percent"];
  const uint64_t operations = params["operations"];
  Random random(params["seed"], static_cast<uint64_t>(index));
  std::vector<char*> blocks(params["blocks"], nullptr);
  std::vector<char*> outgoing;
  std::vector<char*> incoming;
  outgoing.reserve(kPost);
  Inbox& own = (*inboxes)[static_cast<size_t>(index)];
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < operations; ++i) {
    const uint64_t size = FallingSize(&random, least, most);
    char*& slot = blocks[random.Below(blocks.size())];
    if (slot != nullptr && random.Below(100) < foreign) {
      outgoing.push_back(slot);
    } else {
      std::free(slot);
    }
    slot = NewBlock(size);
    bytes += size;
    if (outgoing.size() == kPost) {
      Inbox& to = (*inboxes)[random.Below(inboxes->size())];
      {
        std::lock_guard<std::mutex> lock(to.mutex);
        to.blocks.insert(to.blocks.end(), outgoing.begin(), outgoing.end());
        if (to.blocks.size() >= kInboxMost) incoming.swap(to.blocks);
      }
      outgoing.clear();
      FreeAll(&incoming);
      {
        std::lock_guard<std::mutex> lock(own.mutex);
        incoming.swap(own.blocks);
      }
      FreeAll(&incoming);
    }
  }
  FreeAll(&outgoing);
  FreeAll(&blocks);
  return bytes;
}

Figures Run(const Params& params) {
  const int threads = params.Int("threads");
  std::vector<Inbox> inboxes(static_cast<size_t>(threads));
  std::vector<uint64_t> bytes(static_cast<size_t>(threads));
  RunThreads(threads, [&](int index) {
    bytes[static_cast<size_t>(index)] = Mix(index, &inboxes, params);
  });
  for (Inbox& inbox : inboxes) FreeAll(&inbox.blocks);
  Figures figures;
  figures.operations = params["operations"] * static_cast<uint64_t>(threads);
  for (const uint64_t sum : bytes) figures.checksum += sum;
  return figures;
}

}  // namespace

Workload MixedWorkload() {
  return {"mixed",
          "random sizes, small ones more often, part freed by another thread",
          {ThreadsParam(4),
           {"min_size", 8, 1, 1 << 30, "least size of a block, in bytes"},
           {"max_size", 16384, 1, 1 << 30, "greatest size"},
           {"blocks", 1000, 1, 10000000, "live blocks a thread"},
           {"foreign_percent", 25, 0, 100,
            "share of blocks that a random other thread frees"},
           {"operations", 1500000, 1, UINT64_MAX, "blocks a thread", true},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
