// Time in milliseconds.

#ifndef TOOLS_HAKMEM_CLOCK_H_
#define TOOLS_HAKMEM_CLOCK_H_

#include <time.h>

#include <cstdint>

namespace hakmem::tools {

inline int64_t MillisecondsOf(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

// Goes on evenly, whatever is done to the time of day.
inline int64_t MonotonicMilliseconds() {
  return MillisecondsOf(CLOCK_MONOTONIC);
}

// Since 1970.
inline int64_t WallMilliseconds() { return MillisecondsOf(CLOCK_REALTIME); }

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_CLOCK_H_
