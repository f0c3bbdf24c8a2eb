// The command line of the workloads program.

#ifndef TOOLS_WORKLOADS_COMMAND_LINE_H_
#define TOOLS_WORKLOADS_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "tools/workloads/workload.h"

namespace hakmem::tools {

struct CommandLine {
  // Not empty: what the user did wrong.
  std::string error;
  bool help = false;
  bool json = false;
  // Null with `help`: help about the program.
  const Workload* workload = nullptr;
  // The workload's, with the user's values, scaled.
  std::vector<Param> params;
};

CommandLine ParseCommandLine(const std::vector<std::string>& arguments);

// What --help prints, for the program or for one workload.
std::string HelpText(const Workload* workload);

// The line that a run prints.
std::string FormatFigures(const Workload& workload, const Figures& figures,
                          double seconds, bool json);

}  // namespace hakmem::tools

#endif  // TOOLS_WORKLOADS_COMMAND_LINE_H_
