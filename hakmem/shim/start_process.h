// For tests of what holds for a whole process, from its first call on.

#ifndef HAKMEM_SHIM_START_PROCESS_H_
#define HAKMEM_SHIM_START_PROCESS_H_

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hakmem/shim/hakmem.h"

// Ends the process where the condition does not hold.
#define CHECK(condition)                                            \
  do {                                                              \
    if (!(condition)) hakmem::Fail(__FILE__, __LINE__, #condition); \
  } while (false)

namespace hakmem {

[[noreturn]] inline void Fail(const char* file, int line,
                              const char* condition) {
  // Nothing of stdio that may allocate.
  char text[256];
  const int size = std::snprintf(text, sizeof(text), "%s:%d: %s (errno %d)\n",
                                 file, line, condition, errno);
  if (write(STDERR_FILENO, text, static_cast<size_t>(size)) < 0) _exit(2);
  _exit(1);
}

// Runs this program once more, with these variables ("NAME=VALUE") and no
// others and, unless 0, this limit of address space; returns its exit status,
// 1000 and the signal that ended it, or -1.
inline int StartProcess(const std::vector<const char*>& environment,
                        size_t address_space = 0) {
  std::vector<char*> variables;
  for (const char* const variable : environment) {
    variables.push_back(const_cast<char*>(variable));
  }
  variables.push_back(nullptr);
  const rlimit limit = {address_space, RLIM_INFINITY};
  // The child only waits for its own image, and this process may have a large
  // one.
  const pid_t child = vfork();
  if (child == 0) {
    if (address_space != 0 && setrlimit(RLIMIT_AS, &limit) != 0) _exit(4);
    char program[] = "test";
    char* const arguments[] = {program, nullptr};
    execve("/proc/self/exe", arguments, variables.data());
    _exit(5);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// What a test runs in a process of its own, by name.
using Part = std::pair<std::string_view, void (*)()>;

// To be called by a constructor of the program: runs the part that StartPart()
// has started it for, in place of main(). It ends with status 0 if the part
// returns.
inline void RunPart(std::span<const Part> parts) {
  const char* const part = std::getenv("PART");
  if (part == nullptr) return;
  for (const auto& [name, body] : parts) {
    if (name != part) continue;
    body();
    _exit(0);
  }
  Fail(__FILE__, __LINE__, part);
}

// As StartProcess(), for that part.
inline int StartPart(std::string_view part,
                     std::vector<const char*> environment = {},
                     size_t address_space = 0) {
  const std::string variable = "PART=" + std::string(part);
  environment.insert(environment.begin(), variable.c_str());
  return StartProcess(environment, address_space);
}

// What hak_stats_get() says.
inline hak_stats Stats() {
  hak_stats stats;
  CHECK(hak_stats_get(&stats, sizeof(stats)) == 0);
  return stats;
}

}  // namespace hakmem

#endif  // HAKMEM_SHIM_START_PROCESS_H_
