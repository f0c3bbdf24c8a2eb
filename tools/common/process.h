// What a program can ask about its own process. Nothing here allocates, so
// that looking does not change what is looked at.

#ifndef TOOLS_COMMON_PROCESS_H_
#define TOOLS_COMMON_PROCESS_H_

#include <cstdint>

namespace hakmem::tools {

// Resident memory now and at its highest, in KiB; 0 if the system does not say.
//
// Read from /proc/self/status and not from getrusage(): the latter's maximum
// survives exec(), so that a program started by a larger one (a shell, Python)
// would report its parent's size.
uint64_t ResidentKib();
uint64_t PeakResidentKib();

// The name of the allocator that serves malloc() in this process, as far as it
// can be told: "hakmem", "mimalloc", "jemalloc", "tcmalloc", "tbbmalloc", …, or
// the file name of the library that provides malloc, or "libc". The returned
// string lives as long as the process.
const char* AllocatorName();

}  // namespace hakmem::tools

#endif  // TOOLS_COMMON_PROCESS_H_
