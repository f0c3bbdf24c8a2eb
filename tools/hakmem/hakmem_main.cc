// hakmem: runs programs on hakmem, and tells about it. The subcommands stand in
// files of their own; see command.h.

#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tools/hakmem/command.h"
#include "tools/hakmem/suggest.h"

namespace hakmem::tools {
namespace {

extern const Command kHelpCommand;

const Command* const kCommands[] = {
    &kRunCommand,     &kTopCommand,     &kRecordCommand, &kReportCommand,
    &kOptionsCommand, &kVersionCommand, &kHelpCommand};

// The subcommand of that name; after a message, a null pointer.
const Command* FindCommand(absl::string_view name) {
  std::vector<absl::string_view> names;
  for (const Command* const command : kCommands) {
    if (name == command->name) return command;
    names.push_back(command->name);
  }
  const std::string hint = DidYouMean(name, "", names);
  std::fprintf(stderr, "hakmem: there is no command '%s'%s\n",
               std::string(name).c_str(),
               hint.empty() ? "; see `hakmem help`" : hint.c_str());
  return nullptr;
}

std::string Usage() {
  std::string text = "usage: hakmem command [argument...]\n\n";
  for (const Command* const command : kCommands) {
    absl::StrAppend(&text, "  hakmem ", command->name,
                    command->arguments[0] == '\0' ? "" : " ",
                    command->arguments, "\n      ", command->summary, "\n");
  }
  return text;
}

int ShowHelp(const Command& command) {
  std::printf("usage: hakmem %s%s%s\n\n%s\n", command.name,
              command.arguments[0] == '\0' ? "" : " ", command.arguments,
              command.summary);
  if (command.help[0] != '\0') std::printf("\n%s", command.help);
  return 0;
}

int Help(std::span<char* const> arguments) {
  if (arguments.empty()) {
    std::fputs(Usage().c_str(), stdout);
    return 0;
  }
  const Command* const command = FindCommand(arguments[0]);
  return command != nullptr ? ShowHelp(*command) : kExitUsage;
}

const Command kHelpCommand = {"help", "[command]",
                              "show this, or more about one command", "", Help};

int Main(std::span<char* const> arguments) {
  if (arguments.empty()) {
    std::fputs(Usage().c_str(), stderr);
    return kExitUsage;
  }
  absl::string_view name = arguments[0];
  if (name == "--help" || name == "-h") name = "help";
  if (name == "--version") name = "version";
  const Command* const command = FindCommand(name);
  if (command == nullptr) return kExitUsage;
  const std::span<char* const> rest = arguments.subspan(1);
  if (!rest.empty() && absl::string_view(rest[0]) == "--help") {
    return ShowHelp(*command);
  }
  return command->run(rest);
}

}  // namespace
}  // namespace hakmem::tools

int main(int argc, char** argv) {
  // A program may be started with no name at all.
  const size_t count = argc > 0 ? static_cast<size_t>(argc) - 1 : 0;
  const int status = hakmem::tools::Main({argv + (argc > 0), count});
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::perror("hakmem: cannot write to stdout");
    return status != 0 ? status : hakmem::tools::kExitFailed;
  }
  return status;
}
