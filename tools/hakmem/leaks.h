// Leaks: what the library writes about blocks that are live at exit, made
// readable.

#ifndef TOOLS_HAKMEM_LEAKS_H_
#define TOOLS_HAKMEM_LEAKS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hakmem::tools {

struct Leak {
  uint64_t bytes = 0;
  uint64_t blocks = 0;
  std::string place;     // as the library writes it, or as people read it
  std::string module;    // of an address of code that has no name yet
  uint64_t address = 0;  // in that module
};

// What one process has written with HAKMEM_LEAKS.
struct LeakReport {
  std::vector<Leak> leaks;
  // Its last line was there: the process has come to its end.
  bool complete = false;
};

LeakReport ParseLeaks(absl::string_view text);

// Gives addresses of code their names, as far as there are any, adds up leaks
// of one line, and puts those with most bytes first. What the C and C++
// libraries keep on purpose until the end goes: buffers of stdio, the pool for
// exceptions that find no memory, what the loader has. Returns how many bytes
// that was.
uint64_t NameLeaks(LeakReport* report);

// "123 bytes in 2 blocks  file.cc:12 (Function)".
std::string FormatLeak(const Leak& leak);

// A folder into which the program, and the programs that it starts, write what
// they have leaked. It goes with the object.
class LeakFolder {
 public:
  static absl::StatusOr<std::unique_ptr<LeakFolder>> Create();
  ~LeakFolder();
  LeakFolder(const LeakFolder&) = delete;
  LeakFolder& operator=(const LeakFolder&) = delete;

  // What the value of HAKMEM_LEAKS is to be.
  std::string pattern() const { return path_ + "/%p"; }

  // What is in it, for people: first what `main` has leaked, then the processes
  // that it has made.
  std::string Read(pid_t main) const;

 private:
  explicit LeakFolder(std::string path) : path_(std::move(path)) {}

  const std::string path_;
};

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_LEAKS_H_
