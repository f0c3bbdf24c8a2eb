// hakmem record: records what a running program does with its memory.

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tools/hakmem/command.h"
#include "tools/hakmem/flags.h"
#include "tools/hakmem/format.h"
#include "tools/hakmem/observer.h"
#include "tools/hakmem/recorder.h"

namespace hakmem::tools {
namespace {

int Fail(int exit_status, absl::string_view message) {
  std::fprintf(stderr, "hakmem: record: %s\n", std::string(message).c_str());
  return exit_status;
}

// The signals that end a recording, and not the program that is recorded.
class EndSignals {
 public:
  EndSignals() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      sigaddset(&signals, signal);
    }
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    descriptor_ = signalfd(-1, &signals, SFD_CLOEXEC);
  }
  ~EndSignals() { close(descriptor_); }
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

  // True if one came within so many milliseconds.
  bool WaitFor(int64_t milliseconds) const {
    pollfd waiting = {descriptor_, POLLIN, 0};
    return poll(&waiting, 1,
                static_cast<int>(std::min<int64_t>(milliseconds, 86400000))) >
           0;
  }

 private:
  int descriptor_;
};

int Record(std::span<char* const> arguments) {
  Flag flags[] = {{"--interval", "-i", true, {}}};
  const absl::StatusOr<std::vector<std::string>> rest =
      ParseFlags(arguments, flags);
  if (!rest.ok()) return Fail(kExitUsage, rest.status().message());
  if (rest->size() != 2) {
    return Fail(kExitUsage,
                "takes the number of a process and the name of a file; see "
                "`hakmem help record`");
  }
  const absl::StatusOr<int> pid = ParsePid((*rest)[0]);
  if (!pid.ok()) return Fail(kExitUsage, pid.status().message());
  const absl::StatusOr<int64_t> interval =
      ParseSeconds(flags[0].value.value_or("1"));
  if (!interval.ok()) return Fail(kExitUsage, interval.status().message());

  const absl::StatusOr<Process> process = Process::Open(*pid);
  if (!process.ok()) return Fail(kExitFailed, process.status().message());
  // Before the file is there: nothing is lost by a process that is none.
  const absl::StatusOr<Observer> observer = Observer::Attach(*process);
  if (!observer.ok() && !absl::IsUnavailable(observer.status())) {
    return Fail(kExitFailed, observer.status().message());
  }
  const EndSignals signals;
  const absl::StatusOr<std::unique_ptr<Recorder>> recorder =
      Recorder::Create((*rest)[1], *process, *interval, {});
  if (!recorder.ok()) return Fail(kExitFailed, recorder.status().message());
  absl::Status status;
  bool ended = false;
  do {
    status = (*recorder)->Look();
    ended = absl::IsNotFound(status);
  } while (status.ok() && !signals.WaitFor((*recorder)->Wait()));
  if (!status.ok() && !ended) return Fail(kExitFailed, status.message());
  status = (*recorder)->Finish(ended ? "the program ended"
                                     : "the recording was ended");
  if (!status.ok()) return Fail(kExitFailed, status.message());
  std::fprintf(stderr, "hakmem: record: %s has %s snapshots%s\n",
               (*recorder)->path().c_str(),
               FormatCount((*recorder)->moments()).c_str(),
               ended ? "; the program ended" : "");
  return 0;
}

}  // namespace

const Command kRecordCommand = {
    "record", "[--interval=SECONDS] pid file",
    "record what a running program does with its memory",
    "Looks at a program that runs on hakmem, every second, and writes its "
    "memory\n"
    "and its sites to a file for `hakmem report`, until the program ends or\n"
    "until Ctrl-C. The program goes on meanwhile and notices nothing. Looking\n"
    "takes the right to trace it: the same user, or root. The format of the\n"
    "file, lines of JSON, is in docs/watching.md.\n"
    "\n"
    "--interval=SECONDS, -i  how often to look; 1\n"
    "\n"
    "    hakmem record 4711 server.rec && hakmem report server.rec\n",
    Record};

}  // namespace hakmem::tools
