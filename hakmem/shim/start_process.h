// For tests of what holds for a whole process, from its first call on.

#ifndef HAKMEM_SHIM_START_PROCESS_H_
#define HAKMEM_SHIM_START_PROCESS_H_

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <vector>

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

}  // namespace hakmem

#endif  // HAKMEM_SHIM_START_PROCESS_H_
