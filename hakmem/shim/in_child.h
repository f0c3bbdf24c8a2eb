// For tests of what the child of a fork finds.

#ifndef HAKMEM_SHIM_IN_CHILD_H_
#define HAKMEM_SHIM_IN_CHILD_H_

#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "gtest/gtest.h"

namespace hakmem {

// Runs `body` in a child, expects it to return true there, and waits for the
// child, which ends without the program's exit handlers. One that hangs is
// ended after a minute, so that it does not outlive the test.
inline void InChild(const std::function<bool()>& body) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    _exit(body() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace hakmem

#endif  // HAKMEM_SHIM_IN_CHILD_H_
