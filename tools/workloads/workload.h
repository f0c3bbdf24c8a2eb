// What a workload is: a name, parameters with defaults, and a function that
// does a fixed amount of work on the malloc of this process. workloads_main.cc
// makes the command line out of it.

#ifndef TOOLS_WORKLOADS_WORKLOAD_H_
#define TOOLS_WORKLOADS_WORKLOAD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hakmem::tools {

// One flag of a workload.
struct Param {
  const char* name;
  uint64_t value;  // the default
  uint64_t least;
  uint64_t most;
  const char* help;
  // Multiplied by --scale: the amount of work, not its shape.
  bool scaled = false;
};

// Every workload has these two, among its own.
Param SeedParam();
Param ThreadsParam(uint64_t value);

// The parameters as the user gave them. Ends the program when asked for one
// that the workload did not declare: a mistake in the workload.
class Params {
 public:
  explicit Params(std::vector<Param> params) : params_(std::move(params)) {}

  // Compares names: not for the loop that is timed.
  uint64_t operator[](const char* name) const;
  int Int(const char* name) const { return static_cast<int>((*this)[name]); }

 private:
  std::vector<Param> params_;
};

// What a workload found out. `operations` and `checksum` depend on the
// parameters only, not on the allocator or on timing, so that two runs can be
// shown to have done the same.
struct Figures {
  uint64_t operations = 0;  // blocks allocated, unless the workload says other
  uint64_t checksum = 0;
  std::vector<std::pair<std::string, double>> more;  // figures of its own
};

struct Workload {
  const char* name;
  const char* summary;
  std::vector<Param> params;
  Figures (*run)(const Params& params);
  // Pairs of parameters of which the first has to be at most the second.
  std::vector<std::pair<const char*, const char*>> ordered = {};
};

// All workloads, in the order in which they are listed.
const std::vector<Workload>& Workloads();

// Each in a file of its own.
Workload LarsonWorkload();
Workload PairsWorkload();
Workload TreeWorkload();
Workload StringsWorkload();
Workload ProdconsWorkload();
Workload MixedWorkload();
Workload ThreadsWorkload();
Workload LargeWorkload();
Workload ScratchWorkload();
Workload LeaklessWorkload();
Workload ServerWorkload();
Workload IdleWorkload();
Workload IdlersWorkload();
Workload PeaksWorkload();

}  // namespace hakmem::tools

#endif  // TOOLS_WORKLOADS_WORKLOAD_H_
