#include "hakmem/core/module.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include "hakmem/core/os.h"

namespace hakmem {

Module FindModule(const void* address, char* buffer, size_t buffer_bytes) {
  const ErrnoKeeper keeper;
  dl_find_object found;
  // The one question about modules that glibc answers without a lock, since
  // unwinding asks it for every frame.
  if (_dl_find_object(const_cast<void*>(address), &found) != 0) {
    return {nullptr, 0};
  }
  const link_map* const map = found.dlfo_link_map;
  if (map == nullptr) return {nullptr, 0};
  const uint64_t offset = reinterpret_cast<uintptr_t>(address) - map->l_addr;
  if (map->l_name != nullptr && map->l_name[0] != '\0') {
    return {map->l_name, offset};
  }
  const ssize_t length = readlink("/proc/self/exe", buffer, buffer_bytes - 1);
  if (length <= 0) return {nullptr, offset};
  buffer[length] = '\0';
  return {buffer, offset};
}

}  // namespace hakmem
