// hakmem version: the version, and which library it is about.

#include <cstdio>
#include <string>

#include "absl/status/statusor.h"
#include "tools/hakmem/command.h"
#include "tools/hakmem/library.h"

namespace hakmem::tools {
namespace {

int Version(std::span<char* const> arguments) {
  if (!arguments.empty()) {
    std::fprintf(stderr, "hakmem: version takes no arguments, not '%s'\n",
                 arguments[0]);
    return kExitUsage;
  }
  std::printf("hakmem %s\n", HAKMEM_VERSION);
  const absl::StatusOr<std::string> library = FindLibrary();
  if (!library.ok()) {
    std::fflush(stdout);
    std::fprintf(stderr, "hakmem: %s\n",
                 std::string(library.status().message()).c_str());
    return kExitFailed;
  }
  std::printf("library %s\n", library->c_str());
  return 0;
}

}  // namespace

const Command kVersionCommand = {
    "version", "", "show the version, and the library that `run` preloads", "",
    Version};

}  // namespace hakmem::tools
