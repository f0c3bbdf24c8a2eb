#include "hakmem/core/readable_memory.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace hakmem {

// The words of a stack are other functions' variables, of any type, and lie in
// what AddressSanitizer keeps apart: so neither rule is to apply here.
[[gnu::no_sanitize("address", "thread")]] uint8_t ReadableMemory::Byte(
    uintptr_t address) const {
  return *reinterpret_cast<const volatile uint8_t*>(address);
}

[[gnu::no_sanitize("address", "thread")]] uint64_t ReadableMemory::Word(
    uintptr_t address) const {
  using AnyWord [[gnu::may_alias, gnu::aligned(1)]] = uint64_t;
  return *reinterpret_cast<const volatile AnyWord*>(address);
}

// The system looks at the set of signals before it sees that what is to be done
// with it is nonsense: EFAULT where the page cannot be read, EINVAL where it
// can. Unlike process_vm_readv() that is not a right which a program may lack.
bool ReadableMemory::Probe(uintptr_t page) {
  constexpr int kNonsense = -1;
  constexpr size_t kSignalSetBytes = 8;  // the kernel's, not the C library's
  const int saved_errno = errno;
  const bool readable =
      syscall(SYS_rt_sigprocmask, kNonsense, page << kPageShift, nullptr,
              kSignalSetBytes) != 0 &&
      errno == EINVAL;
  errno = saved_errno;
  if (readable) known_[page % kKnown] = page + 1;
  return readable;
}

}  // namespace hakmem
