// The terminal as a program of a whole screen has it.

#ifndef TOOLS_HAKMEM_SCREEN_H_
#define TOOLS_HAKMEM_SCREEN_H_

#include <csignal>
#include <cstddef>
#include <string>
#include <vector>

namespace hakmem::tools {

// Takes stdin and stdout, which have to be a terminal, over: keys arrive one by
// one and are not shown, what was on the screen comes back at the end. Signals
// that would end or stop the program reach it as events while this lives, so
// that the terminal is never left as it should not be. One at a time.
class Screen {
 public:
  struct Size {
    size_t columns;
    size_t rows;
  };

  // What WaitFor() returns.
  struct Event {
    enum class Type { kTimeout, kKey, kResize, kSignal, kHangup } type;
    char key;    // of kKey
    int signal;  // of kSignal: the program should end, by that signal
  };

  Screen();
  // Gives the terminal back as it was.
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  Size GetSize() const;

  // Shows the lines, which are as wide as the window at most, from its top.
  void Show(const std::vector<std::string>& lines);

  // Waits for up to so many milliseconds. Stopping (Ctrl-Z) and going on are
  // served here; after it the screen is to be shown again, as after kResize.
  Event WaitFor(int milliseconds);

 private:
  void Take();
  void GiveBack();
  Event ReadSignal();

  int signals_;  // a descriptor of signalfd(2)
  sigset_t signals_before_;
};

// Ends the calling program by the signal, as if it had not been caught.
[[noreturn]] void EndBySignal(int signal);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_SCREEN_H_
