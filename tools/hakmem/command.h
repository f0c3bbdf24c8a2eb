// What the command `hakmem` is made of: subcommands.

#ifndef TOOLS_HAKMEM_COMMAND_H_
#define TOOLS_HAKMEM_COMMAND_H_

#include <span>

namespace hakmem::tools {

// Exit statuses. `run` keeps to those of env, nice and nohup, so that a script
// can tell what went wrong before its program had begun from what the program
// itself exits with.
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitRunFailed = 125;
inline constexpr int kExitCannotRun = 126;
inline constexpr int kExitNotFound = 127;

struct Command {
  const char* name;
  const char* arguments;  // what follows the name, for people
  const char* summary;    // one line
  const char* help;       // the rest of `hakmem help NAME`; whole lines
  // Is given what follows the name, with a null pointer after the last of it,
  // and returns the exit status. Output goes to stdout; a mistake gets one line
  // on stderr.
  int (*run)(std::span<char* const> arguments);
};

extern const Command kOptionsCommand;
extern const Command kRecordCommand;
extern const Command kReportCommand;
extern const Command kRunCommand;
extern const Command kTopCommand;
extern const Command kVersionCommand;

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_COMMAND_H_
