// workloads: programs that use malloc in the ways that programs do. See
// workload.h; --help lists them.

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "tools/workloads/command_line.h"
#include "tools/workloads/workload.h"

int main(int argc, char** argv) {
  using hakmem::tools::CommandLine;
  using hakmem::tools::Figures;
  const CommandLine line = hakmem::tools::ParseCommandLine(
      std::vector<std::string>(argv + 1, argv + argc));
  if (line.help) {
    std::fputs(hakmem::tools::HelpText(line.workload).c_str(), stdout);
    return 0;
  }
  if (!line.error.empty()) {
    std::fprintf(stderr, "workloads: %s\n", line.error.c_str());
    return 2;
  }
  const auto start = std::chrono::steady_clock::now();
  const Figures figures =
      line.workload->run(hakmem::tools::Params(line.params));
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  const std::string text = hakmem::tools::FormatFigures(
      *line.workload, figures, seconds.count(), line.json);
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    std::perror("workloads: cannot write the result");
    return 1;
  }
  return 0;
}
