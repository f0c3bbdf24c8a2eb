#include "tools/hakmem/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "tools/hakmem/clock.h"
#include "tools/hakmem/screen.h"

namespace hakmem::tools {
namespace {

void Close(int& descriptor) {
  if (descriptor >= 0) close(descriptor);
  descriptor = -1;
}

// Reads exactly `size` bytes; false at the end of what there is.
bool ReadAll(int descriptor, void* buffer, size_t size) {
  for (;;) {
    const ssize_t got = read(descriptor, buffer, size);
    if (got < 0 && errno == EINTR) continue;
    return got == static_cast<ssize_t>(size);
  }
}

}  // namespace

Child::Child() {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &mask_before_);
  // Where it is ignored, as it may have been inherited, nobody can be waited
  // for.
  struct sigaction usual = {};
  usual.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &usual, &child_before_);
  signals_ = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
}

Child::~Child() {
  Close(go_[1]);
  if (pid_ > 0 && !reaped_) {
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Close(go_[0]);
  Close(error_[0]);
  Close(error_[1]);
  // What the terminal sent to both was for the program, which may have survived
  // it.
  signalfd_siginfo info;
  while (read(signals_, &info, sizeof(info)) > 0) {
  }
  Close(signals_);
  sigaction(SIGCHLD, &child_before_, nullptr);
  sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
}

absl::StatusOr<std::unique_ptr<Child>> Child::Create(const std::string& program,
                                                     char* const* arguments) {
  std::unique_ptr<Child> child(new Child);
  if (child->signals_ < 0 || pipe2(child->go_, O_CLOEXEC) != 0 ||
      pipe2(child->error_, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "cannot watch the program");
  }
  const pid_t parent = getpid();
  child->pid_ = fork();
  if (child->pid_ < 0) return absl::ErrnoToStatus(errno, "cannot fork");
  if (child->pid_ == 0) {
    // A signal that cannot be passed on ends both, as it would end one.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    child->Execute(program, arguments);
  }
  Close(child->go_[0]);
  Close(child->error_[1]);
  return child;
}

void Child::Execute(const std::string& program, char* const* arguments) {
  Close(go_[1]);
  char go;
  if (!ReadAll(go_[0], &go, 1)) _exit(0);
  sigaction(SIGCHLD, &child_before_, nullptr);
  sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
  // Of the exec family the one that gives a script without #! to the shell.
  execvp(program.c_str(), arguments);
  const int error = errno;
  const ssize_t put = write(error_[1], &error, sizeof(error));
  _exit(put == sizeof(error) ? 0 : 1);
}

int Child::Go() {
  const ssize_t put = write(go_[1], "g", 1);
  Close(go_[1]);
  int error = put == 1 ? 0 : errno;
  // Ends without an error when execve(2) closes it.
  int reported = 0;
  if (ReadAll(error_[0], &reported, sizeof(reported))) error = reported;
  Close(error_[0]);
  return error;
}

void Child::ServeSignal() {
  signalfd_siginfo info;
  if (read(signals_, &info, sizeof(info)) != sizeof(info)) return;
  const int signal = static_cast<int>(info.ssi_signo);
  const auto sender = static_cast<pid_t>(info.ssi_pid);
  if (signal == SIGCHLD || sender == getpid() || sender == pid_) return;
  if (info.ssi_code == SI_QUEUE) {
    sigval value;
    value.sival_ptr = reinterpret_cast<void*>(info.ssi_ptr);
    sigqueue(pid_, signal, value);
  } else if (info.ssi_code == SI_USER || info.ssi_code == SI_TKILL ||
             signal == SIGCONT) {
    kill(pid_, signal);
  }
}

std::optional<int> Child::Reap() {
  int status = 0;
  const pid_t got = waitpid(pid_, &status, WNOHANG | WUNTRACED);
  if (got != pid_) return std::nullopt;
  if (WIFSTOPPED(status)) {
    // Whoever waits for the command sees it stop. What lets it go on comes as
    // a signal to pass on.
    raise(SIGSTOP);
    return std::nullopt;
  }
  reaped_ = true;
  return status;
}

std::optional<int> Child::WaitFor(int64_t milliseconds) {
  const int64_t end = MonotonicMilliseconds() + milliseconds;
  for (;;) {
    const std::optional<int> status = Reap();
    if (status.has_value()) return status;
    int64_t left = -1;
    if (milliseconds >= 0) {
      left = std::clamp<int64_t>(end - MonotonicMilliseconds(), 0, INT_MAX);
    }
    pollfd waiting = {signals_, POLLIN, 0};
    const int ready = poll(&waiting, 1, static_cast<int>(left));
    if (ready > 0) ServeSignal();
    if (ready == 0) return Reap();
  }
}

int EndAs(int wait_status) {
  if (WIFSIGNALED(wait_status)) EndBySignal(WTERMSIG(wait_status));
  return WEXITSTATUS(wait_status);
}

}  // namespace hakmem::tools
