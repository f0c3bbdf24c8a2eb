// hakmem options: the table of options, as core compiles it into the library.

#include "hakmem/core/options.h"

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "tools/hakmem/command.h"
#include "tools/hakmem/option_name.h"

namespace hakmem::tools {
namespace {

int Options(std::span<char* const> arguments) {
  if (!arguments.empty()) {
    std::fprintf(stderr, "hakmem: options takes no arguments, not '%s'\n",
                 arguments[0]);
    return kExitUsage;
  }
  std::string text;
  for (const OptionInfo& option : OptionTable()) {
    absl::StrAppend(&text, "--", OptionName(option), "=",
                    FormatDefault(option), "  (", option.name, ", ",
                    FormatValues(option), ")\n    ", option.meaning, "\n");
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

const Command kOptionsCommand = {
    "options", "",
    "list the options that a program takes, each with its default",
    "Each option is shown as `hakmem run` takes it, at its default, with its\n"
    "name in the environment, what it may be, and what it means. Numbers are\n"
    "decimal, with an optional K, M, G or T (powers of 1024); a path has a "
    "slash\n"
    "in it, and a %p in it becomes the number of the process.\n",
    Options};

}  // namespace hakmem::tools
