#include "tools/common/process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace hakmem::tools {
namespace {

// The number behind `key` (with its colon) in /proc/self/status.
uint64_t StatusKib(const char* key) {
  const int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[8192];
  size_t length = 0;
  for (;;) {
    const ssize_t got = read(fd, text + length, sizeof(text) - 1 - length);
    if (got <= 0) break;
    length += static_cast<size_t>(got);
  }
  close(fd);
  text[length] = '\0';
  const char* line = strstr(text, key);
  return line == nullptr ? 0 : strtoull(line + strlen(key), nullptr, 10);
}

}  // namespace

uint64_t ResidentKib() { return StatusKib("\nVmRSS:"); }
uint64_t PeakResidentKib() { return StatusKib("\nVmHWM:"); }

const char* AllocatorName() {
  // Found by the library that the dynamic linker took malloc from, so that it
  // works for libraries nobody has thought of yet.
  Dl_info info;
  void* const address = dlsym(RTLD_DEFAULT, "malloc");
  if (address == nullptr || dladdr(address, &info) == 0 ||
      info.dli_fname == nullptr) {
    return "libc";
  }
  static const char* const kKnown[] = {
      "hakmem",   "mimalloc", "jemalloc",    "tcmalloc", "tbbmalloc",
      "snmalloc", "rpmalloc", "libhardened", "scudo",    "mesh"};
  const char* slash = strrchr(info.dli_fname, '/');
  const char* file = slash == nullptr ? info.dli_fname : slash + 1;
  for (const char* name : kKnown) {
    if (strstr(file, name) != nullptr) return name;
  }
  // No ".so": the program itself, which was linked with some malloc.
  if (strncmp(file, "libc.so", 7) == 0 || strstr(file, ".so") == nullptr) {
    return "libc";
  }
  static char name[128];
  snprintf(name, sizeof(name), "%s", file);
  return name;
}

}  // namespace hakmem::tools
