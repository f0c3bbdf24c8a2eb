#include "tools/workloads/workload.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace hakmem::tools {

Param SeedParam() {
  return {"seed", 1, 0, UINT64_MAX, "seed of the random numbers"};
}

Param ThreadsParam(uint64_t value) {
  return {"threads", value, 1, 1024, "threads that run at a time"};
}

uint64_t Params::operator[](const char* name) const {
  for (const Param& param : params_) {
    if (std::strcmp(param.name, name) == 0) return param.value;
  }
  std::fprintf(stderr, "workloads: no parameter '%s' was declared\n", name);
  std::abort();
}

const std::vector<Workload>& Workloads() {
  static const std::vector<Workload> workloads = {
      LarsonWorkload(),   PairsWorkload(),    TreeWorkload(),
      StringsWorkload(),  ProdconsWorkload(), MixedWorkload(),
      ThreadsWorkload(),  LargeWorkload(),    ScratchWorkload(),
      LeaklessWorkload(), ServerWorkload(),   IdleWorkload(),
      IdlersWorkload(),   PeaksWorkload()};
  return workloads;
}

}  // namespace hakmem::tools
