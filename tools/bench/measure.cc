// measure: runs a command and reports how long it took and how large it became.
//
//   measure FD TIMEOUT_S [NAME=VALUE ...] -- COMMAND [ARGUMENT ...]
//
// Writes one JSON object to the open file descriptor FD. The variables are set
// in the command's environment only, so that a preloaded allocator is not
// measured in this program too. After TIMEOUT_S seconds the command's whole
// process group is killed.
//
// A program of its own, small and linked statically, because a process starts
// with the peak resident memory of the process that it was forked from: started
// by Python, `true` would seem to need as much as Python does.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace {

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) +
         static_cast<double>(now.tv_nsec) * 1e-9;
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_usec) * 1e-6;
}

[[noreturn]] void Fail(const char* message) {
  std::fprintf(stderr, "measure: %s\n", message);
  std::exit(2);
}

// The child's side. Tells the parent through `report` why exec() failed.
[[noreturn]] void Become(char** variables, char** command, int report,
                         const sigset_t& mask) {
  setpgid(0, 0);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  for (; std::strcmp(*variables, "--") != 0; ++variables) putenv(*variables);
  execvp(command[0], command);
  const int error = errno;
  const ssize_t written = write(report, &error, sizeof(error));
  _exit(written == sizeof(error) ? 127 : 126);
}

// Waits for a child to end, for an order to stop, or for the deadline. True if
// the child has ended.
bool WaitForEnd(const sigset_t& signals, double deadline) {
  for (;;) {
    const double left = deadline - Now();
    if (left <= 0) return false;
    timespec wait;
    wait.tv_sec = static_cast<time_t>(left);
    wait.tv_nsec =
        static_cast<long>((left - static_cast<double>(wait.tv_sec)) * 1e9);
    const int signal = sigtimedwait(&signals, nullptr, &wait);
    if (signal == SIGCHLD) return true;
    if (signal > 0) return false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  int dashes = 3;
  while (dashes < argc && std::strcmp(argv[dashes], "--") != 0) ++dashes;
  if (dashes + 1 >= argc) {
    Fail("usage: measure FD TIMEOUT_S [NAME=VALUE ...] -- COMMAND ...");
  }
  const int result_fd = std::atoi(argv[1]);
  const double timeout = std::atof(argv[2]);
  if (fcntl(result_fd, F_SETFD, FD_CLOEXEC) != 0 || timeout <= 0) {
    Fail("FD has to be an open file descriptor and TIMEOUT_S above 0");
  }
  // Blocked and waited for, so that none can come between a look and a wait.
  sigset_t signals, old_mask;
  sigemptyset(&signals);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) {
    sigaddset(&signals, signal);
  }
  sigprocmask(SIG_BLOCK, &signals, &old_mask);
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) Fail("no pipe");

  const double start = Now();
  const pid_t child = fork();
  if (child < 0) Fail("cannot fork");
  if (child == 0) {
    Become(argv + 3, argv + dashes + 1, report[1], old_mask);
  }
  setpgid(child, child);  // by both, whoever comes first
  const bool ended = WaitForEnd(signals, start + timeout);
  const double stop = Now();
  // Also when it ended by itself: nothing that it left running may disturb the
  // next measurement.
  kill(-child, SIGKILL);
  int status = 0;
  rusage usage = {};
  while (wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  close(report[1]);
  int exec_error = 0;
  if (read(report[0], &exec_error, sizeof(exec_error)) < 0) exec_error = 0;

  dprintf(result_fd,
          "{\"wall_s\": %.6f, \"cpu_s\": %.6f, \"rss_kib\": %ld, "
          "\"timeout\": %s, \"exit\": %d, \"signal\": %d, "
          "\"exec_error\": %d}\n",
          stop - start, Seconds(usage.ru_utime) + Seconds(usage.ru_stime),
          usage.ru_maxrss, ended ? "false" : "true",
          WIFEXITED(status) ? WEXITSTATUS(status) : -1,
          WIFSIGNALED(status) ? WTERMSIG(status) : 0, exec_error);
  return 0;
}
