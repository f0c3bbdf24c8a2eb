// For tests that do things before anybody else in the process has allocated.

#ifndef HAKMEM_SHIM_EARLY_H_
#define HAKMEM_SHIM_EARLY_H_

// Calls `function` before the constructors of any library or of the program:
// the C library's own set-up has only just begun. A program has at most one
// place that says this.
#define HAKMEM_RUN_BEFORE_CONSTRUCTORS(function)                           \
  __attribute__((section(".preinit_array"),                                \
                 used)) void (*const run_before_constructors)(int, char**, \
                                                              char**) =    \
      (function)

#endif  // HAKMEM_SHIM_EARLY_H_
