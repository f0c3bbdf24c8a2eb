// What the self-contained libraries would otherwise need the C++ run time for:
// one function that Abseil's locks call to learn how long spinning is worth
// while. Its name is local to those libraries (see self_contained.bzl), so the
// program's own stays what it is.

#include <sys/sysinfo.h>

#include <thread>

unsigned int std::thread::hardware_concurrency() noexcept {
  return static_cast<unsigned int>(get_nprocs());
}
