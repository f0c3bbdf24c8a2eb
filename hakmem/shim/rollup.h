// For tests of what the system says of this process's memory.

#ifndef HAKMEM_SHIM_ROLLUP_H_
#define HAKMEM_SHIM_ROLLUP_H_

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

namespace hakmem {

// A line of /proc/self/smaps_rollup, in bytes; 0 where there is none. Allocates
// nothing: that may return memory, which hakmem has counted just before.
inline size_t Rollup(std::string_view key) {
  char text[4096];
  const int file = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
  const ssize_t length = read(file, text, sizeof(text) - 1);
  close(file);
  if (length <= 0) return 0;
  text[length] = '\0';
  for (const char* line = text; line != nullptr;) {
    if (std::strncmp(line, key.data(), key.size()) == 0 &&
        line[key.size()] == ':') {
      return std::strtoull(line + key.size() + 1, nullptr, 10) * 1024;
    }
    line = std::strchr(line, '\n');
    if (line != nullptr) ++line;
  }
  return 0;
}

}  // namespace hakmem

#endif  // HAKMEM_SHIM_ROLLUP_H_
