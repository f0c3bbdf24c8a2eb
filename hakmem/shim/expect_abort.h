// For tests of what ends the program.

#ifndef HAKMEM_SHIM_EXPECT_ABORT_H_
#define HAKMEM_SHIM_EXPECT_ABORT_H_

#include <csignal>
#include <cstdio>
#include <string>

#include "gtest/gtest.h"

namespace hakmem {

// The compiler knows what free() is for, and would warn or take pairs out.
inline void* Launder(void* pointer) {
  asm volatile("" : "+r"(pointer));
  return pointer;
}

// The whole of stderr: one line, with `what` and the address in it.
inline auto IsLine(const std::string& what, const void* address) {
  char text[32];
  std::snprintf(text, sizeof(text), "%p", address);
  return testing::MatchesRegex("hakmem: [^\n]*" + what + "[^\n]* at " + text +
                               "\n");
}

}  // namespace hakmem

// That the statement ends a program with such a line, by SIGABRT.
#define EXPECT_ABORT(statement, what, address)             \
  EXPECT_EXIT(statement, testing::KilledBySignal(SIGABRT), \
              ::hakmem::IsLine(what, address))

#endif  // HAKMEM_SHIM_EXPECT_ABORT_H_
