#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tools/common/process.h"
#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// A tenth stays, the rest comes and goes, the same each time: an allocator that
// gives all of it back pays for fresh pages at every peak.
Figures Run(const Params& params) {
  const uint64_t peak = params["peak_mib"] << 20;
  Random random(params["seed"]);
  const auto draw = [&random, &params](uint64_t bytes) {
    std::vector<uint64_t> sizes;
    for (uint64_t sum = 0; sum < bytes; sum += sizes.back()) {
      sizes.push_back(random.Between(params["min_size"], params["max_size"]));
    }
    return sizes;
  };
  Figures figures;
  std::vector<char*> blocks;
  const auto allocate = [&figures,
                         &blocks](const std::vector<uint64_t>& sizes) {
    for (const uint64_t size : sizes) {
      blocks.push_back(NewBlock(size));
      TouchPages(blocks.back(), size);
      ++figures.operations;
      figures.checksum += size;
    }
  };
  const auto free_down_to = [&blocks](size_t count) {
    while (blocks.size() > count) {
      std::free(blocks.back());
      blocks.pop_back();
    }
  };
  allocate(draw(peak / 10));
  const size_t kept = blocks.size();
  const std::vector<uint64_t> sizes = draw(peak - peak / 10);
  blocks.reserve(kept + sizes.size());
  for (uint64_t i = 0; i < params["peaks"]; ++i) {
    allocate(sizes);
    free_down_to(kept);
  }
  figures.more.emplace_back("rss_at_end_kib",
                            static_cast<double>(ResidentKib()));
  free_down_to(0);
  return figures;
}

}  // namespace

Workload PeaksWorkload() {
  return {"peaks",
          "the same peak, reached and dropped to a tenth again and again",
          {{"peaks", 100, 1, UINT32_MAX, "how often", true},
           {"peak_mib", 128, 1, 1 << 20, "live bytes at the peak, in MiB"},
           {"min_size", 16, 1, 1 << 30, "least size of a block, in bytes"},
           {"max_size", 16384, 1, 1 << 30, "greatest size"},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
