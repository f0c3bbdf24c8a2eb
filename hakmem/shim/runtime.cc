// What the self-contained libraries would otherwise need the C++ run time for:
// one function that Abseil's locks call to learn how long spinning is worth
// while. Its name is local to those libraries (see self_contained.bzl), so the
// program's own stays what it is. It says how many processors this process may
// use, which was asked when the library was loaded: the C library's
// get_nprocs() reads a file, and that takes 60 us on some virtual machines.

#include <thread>

#include "hakmem/core/arena.h"

unsigned int std::thread::hardware_concurrency() noexcept {
  return hakmem::arena.processors();
}
