// For tests of what holds for a whole process, from its first call on.

#ifndef HAKMEM_SHIM_START_PROCESS_H_
#define HAKMEM_SHIM_START_PROCESS_H_

#include <sys/wait.h>
#include <unistd.h>

#include <initializer_list>
#include <vector>

namespace hakmem {

// Runs this program once more, with these variables ("NAME=VALUE") and no
// others; returns its exit status, 1000 and the signal that ended it, or -1.
inline int StartProcess(std::initializer_list<const char*> environment) {
  std::vector<char*> variables;
  for (const char* const variable : environment) {
    variables.push_back(const_cast<char*>(variable));
  }
  variables.push_back(nullptr);
  // The child only waits for its own image, and this process may have a large
  // one.
  const pid_t child = vfork();
  if (child == 0) {
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
