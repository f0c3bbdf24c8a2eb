// Which file an address of code was loaded from.

#ifndef HAKMEM_CORE_MODULE_H_
#define HAKMEM_CORE_MODULE_H_

#include <cstddef>
#include <cstdint>

namespace hakmem {

struct Module {
  const char* file;  // its path; null when no file is known
  uint64_t offset;   // the address as the file has it
};

// The module that `address` lies in, which must not be unloaded meanwhile: so
// for an address that the calling thread will return to. `buffer` takes the
// path of the program itself, as far as it fits. Neither allocates nor takes a
// lock; keeps errno.
Module FindModule(const void* address, char* buffer, size_t buffer_bytes);

}  // namespace hakmem

#endif  // HAKMEM_CORE_MODULE_H_
