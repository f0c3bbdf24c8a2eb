// hakmem run: starts a program with libhakmem.so preloaded.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "hakmem/core/options.h"
#include "tools/hakmem/child.h"
#include "tools/hakmem/command.h"
#include "tools/hakmem/format.h"
#include "tools/hakmem/leaks.h"
#include "tools/hakmem/library.h"
#include "tools/hakmem/option_name.h"
#include "tools/hakmem/program.h"
#include "tools/hakmem/recorder.h"
#include "tools/hakmem/suggest.h"

namespace hakmem::tools {
namespace {

int Fail(int exit_status, absl::string_view message) {
  std::fprintf(stderr, "hakmem: run: %s\n", std::string(message).c_str());
  return exit_status;
}

absl::Status UnknownOption(absl::string_view argument, absl::string_view name) {
  std::vector<std::string> known = {"record"};
  for (const OptionInfo& option : OptionTable()) {
    known.push_back(OptionName(option));
  }
  const std::vector<absl::string_view> names(known.begin(), known.end());
  const std::string hint = DidYouMean(name, "--", names);
  return absl::InvalidArgumentError(absl::StrCat(
      "there is no option '", argument, "'",
      hint.empty() ? "; `hakmem options` lists those that there are" : hint));
}

// Sets the environment variable of `argument`, --name=value, if that is an
// option with a value that the library will take.
absl::Status ApplyOption(absl::string_view argument) {
  const size_t equals = argument.find('=');
  const absl::string_view name =
      absl::StripPrefix(argument.substr(0, equals), "--");
  const OptionInfo* const option = FindOption(name);
  if (option == nullptr) {
    return UnknownOption(argument.substr(0, equals), name);
  }
  const std::string flag = absl::StrCat("--", OptionName(*option));
  const std::string text = equals != absl::string_view::npos
                               ? std::string(argument.substr(equals + 1))
                               : SwitchedOn(*option);
  if (text.empty() && equals == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " needs a value: ", flag, "=",
                     FormatDefault(*option)));
  }
  Options ignored;
  switch (SetOption(*option, text, ignored)) {
    case OptionError::kNone:
      break;
    case OptionError::kNoNumber:
      return absl::InvalidArgumentError(absl::StrCat(
          flag, ": '", text,
          "' is not a decimal number with an optional K, M, G or T"));
    case OptionError::kOutOfRange:
      return absl::InvalidArgumentError(
          absl::StrCat(flag, ": ", text, " is out of range, which is ",
                       FormatValues(*option)));
    case OptionError::kNoWord:
      return absl::InvalidArgumentError(
          absl::StrCat(flag, ": '", text, "' is not ", FormatValues(*option)));
  }
  if (setenv(std::string(option->name).c_str(), text.c_str(), 1) != 0) {
    return absl::ErrnoToStatus(errno, "cannot set the environment");
  }
  return absl::OkStatus();
}

// Puts `library` in front of what is preloaded already, so that its malloc is
// the one that is found.
absl::Status Preload(const std::string& library) {
  if (library.find_first_of(" :") != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "LD_PRELOAD cannot name a path with spaces or colons: ", library));
  }
  std::string value = library;
  const char* const others = std::getenv("LD_PRELOAD");
  if (others != nullptr && others[0] != '\0') {
    absl::StrAppend(&value, ":", others);
  }
  if (setenv("LD_PRELOAD", value.c_str(), 1) != 0) {
    return absl::ErrnoToStatus(errno, "cannot set the environment");
  }
  return absl::OkStatus();
}

int ExitStatus(const absl::Status& status) {
  return absl::IsNotFound(status) ? kExitNotFound : kExitCannotRun;
}

// What the command does beside starting the program.
struct Watch {
  std::optional<RecordPlace> record;
  bool leaks = false;
  bool has_sites = false;  // --sites is given

  bool stays() const { return record.has_value() || leaks; }
};

// Takes a switch that is the command's own; false if it is none of them.
absl::StatusOr<bool> ApplySwitch(absl::string_view argument, Watch* watch) {
  const size_t equals = argument.find('=');
  const absl::string_view name = argument.substr(0, equals);
  // With a value it is the library's own option.
  if (argument == "--leaks") {
    watch->leaks = true;
    return true;
  }
  if (name == "--sites") watch->has_sites = true;
  if (name != "--record") return false;
  if (equals == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        "--record needs a file: --record=FILE or --record=FILE,SECONDS");
  }
  const absl::StatusOr<RecordPlace> place =
      ParseRecordPlace(std::string(argument.substr(equals + 1)));
  if (!place.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--record: ", place.status().message()));
  }
  watch->record = *place;
  return true;
}

int CannotExecute(const std::string& program, int error) {
  return Fail(error == ENOENT ? kExitNotFound : kExitCannotRun,
              absl::StrCat(program, ": ", std::strerror(error)));
}

// Tells what became of a recording. The program has run, so that is no failure
// of `run`.
void TellAboutRecording(const Recorder& recorder, const absl::Status& status) {
  if (!status.ok()) {
    (void)Fail(0,
               absl::StrCat("the recording is incomplete: ", status.message()));
  } else if (recorder.moments() == 0) {
    (void)Fail(0, absl::StrCat(recorder.path(),
                               " has no snapshot: the program ended too soon, "
                               "or gave way to one that is not on hakmem"));
  }
}

std::string HowItEnded(int wait_status) {
  return WIFSIGNALED(wait_status)
             ? absl::StrCat("the program died by ",
                            SignalName(WTERMSIG(wait_status)))
             : absl::StrCat("the program exited with ",
                            WEXITSTATUS(wait_status));
}

// Has the program count its blocks by who allocates them, and write into a new
// folder, which is returned, what it has not freed.
absl::StatusOr<std::unique_ptr<LeakFolder>> AskForLeaks(const Watch& watch) {
  absl::StatusOr<std::unique_ptr<LeakFolder>> folder = LeakFolder::Create();
  if (!folder.ok()) return folder.status();
  if (setenv("HAKMEM_LEAKS", (*folder)->pattern().c_str(), 1) != 0 ||
      (!watch.has_sites && setenv("HAKMEM_SITES", "caller", 0) != 0)) {
    return absl::ErrnoToStatus(errno, "cannot set the environment");
  }
  return folder;
}

// Runs the program as a child and watches it.
int RunWatched(const std::string& program, std::span<char* const> words,
               const Watch& watch) {
  std::unique_ptr<LeakFolder> leaks;
  if (watch.leaks) {
    absl::StatusOr<std::unique_ptr<LeakFolder>> folder = AskForLeaks(watch);
    if (!folder.ok()) return Fail(kExitRunFailed, folder.status().message());
    leaks = *std::move(folder);
  }
  absl::StatusOr<std::unique_ptr<Child>> child =
      Child::Create(program, words.data());
  if (!child.ok()) return Fail(kExitRunFailed, child.status().message());
  std::unique_ptr<Recorder> recorder;
  absl::Status recorded;
  if (watch.record.has_value()) {
    const absl::StatusOr<Process> process = Process::Open((*child)->pid());
    if (!process.ok()) return Fail(kExitRunFailed, process.status().message());
    absl::StatusOr<std::unique_ptr<Recorder>> created =
        Recorder::Create(watch.record->path, *process, watch.record->interval,
                         std::vector<std::string>(words.begin(), words.end()));
    if (!created.ok()) return Fail(kExitRunFailed, created.status().message());
    recorder = *std::move(created);
  }
  const int error = (*child)->Go();
  if (error != 0) return CannotExecute(program, error);
  std::optional<int> status;
  while (!status.has_value()) {
    const bool goes_on = recorder != nullptr && recorded.ok();
    if (goes_on) recorded = recorder->Look();
    // That it ended is seen by who waits for it.
    if (absl::IsNotFound(recorded)) recorded = absl::OkStatus();
    status = (*child)->WaitFor(
        goes_on && recorded.ok() ? std::max<int64_t>(recorder->Wait(), 1) : -1);
  }
  if (recorder != nullptr) {
    if (recorded.ok()) recorded = recorder->Finish(HowItEnded(*status));
    TellAboutRecording(*recorder, recorded);
    recorder.reset();
  }
  const pid_t pid = (*child)->pid();
  child->reset();
  if (leaks != nullptr) std::fputs(leaks->Read(pid).c_str(), stderr);
  // Ending by a signal runs no destructor.
  leaks.reset();
  return EndAs(*status);
}

int Run(std::span<char* const> arguments) {
  Watch watch;
  size_t next = 0;
  for (; next < arguments.size() && arguments[next][0] == '-'; ++next) {
    const absl::string_view argument = arguments[next];
    if (argument == "--") {
      ++next;
      break;
    }
    const absl::StatusOr<bool> taken = ApplySwitch(argument, &watch);
    if (!taken.ok()) return Fail(kExitRunFailed, taken.status().message());
    if (*taken) continue;
    const absl::Status applied = ApplyOption(argument);
    if (!applied.ok()) return Fail(kExitRunFailed, applied.message());
  }
  if (next == arguments.size()) {
    return Fail(kExitRunFailed,
                "no program to run is named; see `hakmem help run`");
  }
  const absl::StatusOr<std::string> library = FindLibrary();
  if (!library.ok()) return Fail(kExitRunFailed, library.status().message());
  const absl::StatusOr<std::string> program = FindProgram(arguments[next]);
  if (!program.ok()) {
    return Fail(ExitStatus(program.status()), program.status().message());
  }
  const absl::Status preloadable = CheckPreload(*program);
  if (!preloadable.ok()) {
    return Fail(ExitStatus(preloadable), preloadable.message());
  }
  const absl::Status preloaded = Preload(*library);
  if (!preloaded.ok()) return Fail(kExitRunFailed, preloaded.message());
  if (watch.stays()) {
    return RunWatched(*program, arguments.subspan(next), watch);
  }
  // Of the exec family the one that gives a script without #! to the shell.
  execvp(program->c_str(), arguments.data() + next);
  return CannotExecute(*program, errno);
}

}  // namespace

const Command kRunCommand = {
    "run", "[--option=value...] [--] program [argument...]",
    "run a program on hakmem",
    "Starts the program with libhakmem.so preloaded, in front of what\n"
    "LD_PRELOAD names already, and with the options in its environment, where\n"
    "what it starts finds both too. `hakmem options` lists the options. A\n"
    "program on which preloading would have no effect is not started.\n"
    "\n"
    "--record=FILE[,SECONDS]  record its memory and sites, every second or as\n"
    "                         often as said, for `hakmem report`\n"
    "--leaks                  show at its end what it has not freed, by line;\n"
    "                         with --sites=caller unless sites are said\n"
    "\n"
    "With either of these the command stays as the parent of the program, and\n"
    "passes signals on to it.\n"
    "\n"
    "The exit status is the program's; or 127 if there is no such program, "
    "126\n"
    "if it cannot be run or preloaded, and 125 if hakmem itself fails.\n"
    "\n"
    "    hakmem run --retain_bytes=0 -- sort words.txt\n"
    "    hakmem run --leaks -- make-report\n",
    Run};

}  // namespace hakmem::tools
