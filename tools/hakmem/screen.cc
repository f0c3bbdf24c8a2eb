#include "tools/hakmem/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "tools/hakmem/file.h"

namespace hakmem::tools {
namespace {

// xterm's control sequences, which every terminal of today obeys: the other
// screen, the cursor, and whether a line that is too long goes on in the next.
constexpr char kTake[] = "\x1b[?1049h\x1b[?25l\x1b[?7l";
constexpr char kGiveBack[] = "\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr char kHome[] = "\x1b[H";
constexpr char kClearLine[] = "\x1b[K";
constexpr char kClearRest[] = "\x1b[J";

// Where the system does not know the size.
constexpr Screen::Size kUsualSize = {80, 24};

constexpr int kSignals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM,
                            SIGTSTP, SIGCONT, SIGWINCH};

// Beside the object, for exit(), which may be called while it lives.
termios before;
bool taken = false;

void Write(const std::string& text) {
  // A terminal that is gone says so to the next poll().
  (void)WriteAll(STDOUT_FILENO, text);
}

void GiveBackTerminal() {
  if (!taken) return;
  taken = false;
  Write(kGiveBack);
  tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

}  // namespace

Screen::Screen() {
  tcgetattr(STDIN_FILENO, &before);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kSignals) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, &signals_before_);
  signals_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  std::atexit(GiveBackTerminal);
  Take();
}

Screen::~Screen() {
  GiveBack();
  close(signals_);
  sigprocmask(SIG_SETMASK, &signals_before_, nullptr);
}

void Screen::Take() {
  termios raw = before;
  // Not ISIG: Ctrl-C and Ctrl-Z go on to make signals.
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
  taken = true;
  Write(kTake);
}

void Screen::GiveBack() { GiveBackTerminal(); }

Screen::Size Screen::GetSize() const {
  winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 ||
      size.ws_row == 0) {
    return kUsualSize;
  }
  return {size.ws_col, size.ws_row};
}

void Screen::Show(const std::vector<std::string>& lines) {
  std::string text = kHome;
  for (size_t i = 0; i < lines.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : "\r\n", lines[i], kClearLine);
  }
  absl::StrAppend(&text, kClearRest);
  Write(text);
}

Screen::Event Screen::ReadSignal() {
  signalfd_siginfo info;
  if (read(signals_, &info, sizeof(info)) != sizeof(info)) {
    return {Event::Type::kTimeout, 0, 0};
  }
  const int signal = static_cast<int>(info.ssi_signo);
  if (signal == SIGWINCH || signal == SIGCONT) {
    return {Event::Type::kResize, 0, 0};
  }
  if (signal != SIGTSTP) return {Event::Type::kSignal, 0, signal};
  GiveBack();
  raise(SIGSTOP);
  // Who goes on in the background has to wait for the terminal.
  tcgetattr(STDIN_FILENO, &before);
  Take();
  return {Event::Type::kResize, 0, 0};
}

Screen::Event Screen::WaitFor(int milliseconds) {
  pollfd waiting[] = {{signals_, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  const int ready = poll(waiting, 2, milliseconds);
  if (ready <= 0) return {Event::Type::kTimeout, 0, 0};
  if (waiting[0].revents != 0) return ReadSignal();
  char key;
  const ssize_t got = read(STDIN_FILENO, &key, 1);
  if (got == 1) return {Event::Type::kKey, key, 0};
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
    return {Event::Type::kTimeout, 0, 0};
  }
  return {Event::Type::kHangup, 0, 0};
}

void EndBySignal(int signal) {
  // Whoever sent it wants no core of this program.
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  std::signal(signal, SIG_DFL);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, signal);
  raise(signal);
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
  // Not reached, but for a signal that does not end a program.
  _exit(128 + signal);
}

}  // namespace hakmem::tools
