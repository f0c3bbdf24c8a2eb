#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

Figures Run(const Params& params) {
  Random random(params["seed"]);
  std::vector<char*> buffers(params["buffers"], nullptr);
  Figures figures;
  const auto replace = [&](char** slot) {
    std::free(*slot);
    const uint64_t size =
        random.Between(params["min_size"], params["max_size"]);
    *slot = NewBlock(size);
    TouchPages(*slot, size);
    ++figures.operations;
    figures.checksum += size;
  };
  for (char*& buffer : buffers) replace(&buffer);
  for (uint64_t i = 0; i < params["replacements"]; ++i) {
    replace(&buffers[random.Below(buffers.size())]);
  }
  for (char* const buffer : buffers) std::free(buffer);
  return figures;
}

}  // namespace

Workload LargeWorkload() {
  return {"large",
          "replaces random ones of a few large buffers; each is touched",
          {{"buffers", 20, 1, 10000, "live buffers"},
           {"min_size", 5 << 20, 1, uint64_t{1} << 32, "least size, in bytes"},
           {"max_size", 25 << 20, 1, uint64_t{1} << 32, "greatest size"},
           {"replacements", 2000, 1, UINT64_MAX, "how many", true},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
