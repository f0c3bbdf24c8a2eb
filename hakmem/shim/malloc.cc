// malloc and its family, as C, POSIX and glibc's manual describe them, over the
// heap. A program's calls come here when it links hakmem or runs with it
// preloaded.

#include <malloc.h>
#include <stdlib.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/os.h"
#include "hakmem/shim/export.h"
#include "hakmem/shim/heap.h"

namespace heap = hakmem::heap;

namespace {

void* FailWith(int error) {
  errno = error;
  return nullptr;
}

}  // namespace

extern "C" {

HAKMEM_EXPORT void* malloc(size_t size) noexcept {
  return heap::Allocate(size);
}

HAKMEM_EXPORT void free(void* ptr) noexcept { heap::Free(ptr); }

HAKMEM_EXPORT void* calloc(size_t count, size_t size) noexcept {
  return heap::AllocateZeroed(count, size);
}

HAKMEM_EXPORT void* realloc(void* ptr, size_t size) noexcept {
  return heap::Reallocate(ptr, size);
}

HAKMEM_EXPORT void* reallocarray(void* ptr, size_t count,
                                 size_t size) noexcept {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) return FailWith(ENOMEM);
  return heap::Reallocate(ptr, bytes);
}

HAKMEM_EXPORT int posix_memalign(void** out, size_t alignment,
                                 size_t size) noexcept {
  if (!std::has_single_bit(alignment) || alignment % sizeof(void*) != 0) {
    return EINVAL;
  }
  const int saved_errno = errno;
  void* const block = heap::AllocateAligned(alignment, size);
  // The error is the return value. POSIX leaves errno open, and there are
  // programs that look there, as glibc sets it when memory runs out.
  if (block == nullptr) return ENOMEM;
  errno = saved_errno;
  *out = block;
  return 0;
}

HAKMEM_EXPORT void* aligned_alloc(size_t alignment, size_t size) noexcept {
  if (!std::has_single_bit(alignment)) return FailWith(EINVAL);
  return heap::AllocateAligned(alignment, size);
}

HAKMEM_EXPORT void* memalign(size_t alignment, size_t size) noexcept {
  // As glibc does: what is no power of two is rounded up to one.
  if (alignment > PTRDIFF_MAX) return FailWith(EINVAL);
  return heap::AllocateAligned(std::bit_ceil(alignment), size);
}

HAKMEM_EXPORT void* valloc(size_t size) noexcept {
  return heap::AllocateAligned(hakmem::os::kPageSize, size);
}

HAKMEM_EXPORT void* pvalloc(size_t size) noexcept {
  constexpr size_t kPage = hakmem::os::kPageSize;
  if (size > PTRDIFF_MAX) return FailWith(ENOMEM);
  const size_t pages = size == 0 ? 1 : (size + kPage - 1) / kPage;
  return heap::AllocateAligned(kPage, pages * kPage);
}

HAKMEM_EXPORT size_t malloc_usable_size(void* ptr) noexcept {
  return heap::UsableSize(ptr);
}

}  // extern "C"
