// What control groups let this process have of the machine. In a container, or
// under a service manager's limits, the system shows a program all processors
// and all memory; how much of them it may use is in files of its groups.

#ifndef HAKMEM_CORE_CGROUP_H_
#define HAKMEM_CORE_CGROUP_H_

#include <cstddef>
#include <cstdint>

namespace hakmem {

// Without a limit as much as the types hold.
struct CgroupLimits {
  // How many processors' time there is, rounded up; at least 1.
  uint32_t processors = UINT32_MAX;
  size_t memory_bytes = SIZE_MAX;
};

// The least limits of the process's groups and of all groups that those are in,
// by version 1 and 2 of control groups. `memberships` is /proc/self/cgroup, or
// a file like it, and `root` where the hierarchies are mounted: /sys/fs/cgroup.
// What cannot be opened or makes no sense limits nothing. Neither allocates nor
// needs the C library to be set up; keeps errno; takes 9 KiB of stack.
CgroupLimits ReadCgroupLimits(const char* memberships, const char* root);

}  // namespace hakmem

#endif  // HAKMEM_CORE_CGROUP_H_
