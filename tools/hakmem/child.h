// A program that runs as a child of the command, and is to look as if it ran in
// its place: signals that the command gets go to the program, stopping one
// stops the other, and the command ends as the program does.

#ifndef TOOLS_HAKMEM_CHILD_H_
#define TOOLS_HAKMEM_CHILD_H_

#include <sys/types.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hakmem::tools {

// One at a time. While it lives all signals are blocked in the command.
//
// What a terminal sends goes to the program by itself, as it does to the whole
// group of the terminal's job, and is not sent once more. A program that sends
// a signal to that group by kill(2) is not told apart from one that sends it to
// the command alone: the program then gets it twice.
class Child {
 public:
  // Makes the process, which waits until Go(). If the command ends before, it
  // ends too. It dies with the command.
  static absl::StatusOr<std::unique_ptr<Child>> Create(
      const std::string& program, char* const* arguments);
  // Ends the process if it still waits for Go().
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }

  // Lets the process execute the program; returns 0, or the errno of execvp(3),
  // with which the process has ended.
  int Go();

  // Serves signals for so many milliseconds, without an end if negative.
  // Returns what waitpid(2) says, as soon as the program has ended.
  std::optional<int> WaitFor(int64_t milliseconds);

 private:
  Child();

  void Execute(const std::string& program, char* const* arguments);
  void ServeSignal();
  std::optional<int> Reap();

  pid_t pid_ = -1;
  bool reaped_ = false;
  int signals_ = -1;  // a descriptor of signalfd(2)
  int go_[2] = {-1, -1};
  int error_[2] = {-1, -1};
  sigset_t mask_before_;
  struct sigaction child_before_;
};

// Ends the command as the program ended: returns its exit status, or does not
// return where it died by a signal.
int EndAs(int wait_status);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_CHILD_H_
