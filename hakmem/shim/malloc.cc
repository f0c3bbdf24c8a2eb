// malloc and its family, as C, POSIX and glibc's manual describe them, over the
// heap. A program's calls come here when it links hakmem or runs with it
// preloaded. What a function leaves to the implementation, and which names are
// not here, docs/compatibility.md says.

#include <malloc.h>
#include <stdlib.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/os.h"
#include "hakmem/shim/export.h"
#include "hakmem/shim/heap.h"

// C23's and glibc's, which this C library's headers do not declare.
extern "C" {
void free_sized(void* ptr, size_t size) noexcept;
void free_aligned_sized(void* ptr, size_t alignment, size_t size) noexcept;
void* __libc_malloc(size_t size) noexcept;
void __libc_free(void* ptr) noexcept;
void* __libc_calloc(size_t count, size_t size) noexcept;
void* __libc_realloc(void* ptr, size_t size) noexcept;
void* __libc_memalign(size_t alignment, size_t size) noexcept;
void* __libc_valloc(size_t size) noexcept;
void* __libc_pvalloc(size_t size) noexcept;
int __posix_memalign(void** out, size_t alignment, size_t size) noexcept;
void cfree(void* ptr) noexcept;
}

namespace heap = hakmem::heap;

namespace {

void* FailWith(int error) {
  errno = error;
  return nullptr;
}

// What has two names each stands here: one name must not call the other, which
// the program may have replaced by a function that calls the first.

int PosixMemalign(void** out, size_t alignment, size_t size,
                  const void* caller) {
  if (!std::has_single_bit(alignment) || alignment % sizeof(void*) != 0) {
    return EINVAL;
  }
  const int saved_errno = errno;
  void* const block = heap::AllocateAligned(alignment, size, caller);
  // The error is the return value. POSIX leaves errno open, and there are
  // programs that look there, as glibc sets it when memory runs out.
  if (block == nullptr) return ENOMEM;
  errno = saved_errno;
  *out = block;
  return 0;
}

void* Memalign(size_t alignment, size_t size, const void* caller) {
  // As glibc does: what is no power of two is rounded up to one, if there is
  // one.
  if (alignment > SIZE_MAX / 2 + 1) return FailWith(EINVAL);
  return heap::AllocateAligned(std::bit_ceil(alignment), size, caller);
}

void* Valloc(size_t size, const void* caller) {
  return heap::AllocateAligned(hakmem::os::kPageSize, size, caller);
}

void* Pvalloc(size_t size, const void* caller) {
  constexpr size_t kPage = hakmem::os::kPageSize;
  if (size > PTRDIFF_MAX) return FailWith(ENOMEM);
  const size_t pages = size == 0 ? 1 : (size + kPage - 1) / kPage;
  return heap::AllocateAligned(kPage, pages * kPage, caller);
}

}  // namespace

extern "C" {

HAKMEM_EXPORT_FAST void* malloc(size_t size) noexcept {
  return heap::Allocate(size);
}

HAKMEM_EXPORT_FAST void free(void* ptr) noexcept { heap::Free(ptr); }

HAKMEM_EXPORT void free_sized(void* ptr, size_t size) noexcept {
  heap::FreeSized(ptr, size, 1);
}

HAKMEM_EXPORT void free_aligned_sized(void* ptr, size_t alignment,
                                      size_t size) noexcept {
  heap::FreeSized(ptr, size, alignment);
}

HAKMEM_EXPORT void* calloc(size_t count, size_t size) noexcept {
  return heap::AllocateZeroed(count, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* realloc(void* ptr, size_t size) noexcept {
  return heap::Reallocate(ptr, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* reallocarray(void* ptr, size_t count,
                                 size_t size) noexcept {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) return FailWith(ENOMEM);
  return heap::Reallocate(ptr, bytes, __builtin_return_address(0));
}

HAKMEM_EXPORT int posix_memalign(void** out, size_t alignment,
                                 size_t size) noexcept {
  return PosixMemalign(out, alignment, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* aligned_alloc(size_t alignment, size_t size) noexcept {
  if (!std::has_single_bit(alignment)) return FailWith(EINVAL);
  return heap::AllocateAligned(alignment, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* memalign(size_t alignment, size_t size) noexcept {
  return Memalign(alignment, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* valloc(size_t size) noexcept {
  return Valloc(size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* pvalloc(size_t size) noexcept {
  return Pvalloc(size, __builtin_return_address(0));
}

HAKMEM_EXPORT size_t malloc_usable_size(void* ptr) noexcept {
  return heap::UsableSize(ptr);
}

// glibc's own names of the family, by which programs with a malloc of their own
// reach the system's. They have to be all of one heap: a block from one of them
// may come back by free().
HAKMEM_EXPORT void* __libc_malloc(size_t size) noexcept {
  return heap::Allocate(size);
}

HAKMEM_EXPORT void __libc_free(void* ptr) noexcept { heap::Free(ptr); }

HAKMEM_EXPORT void* __libc_calloc(size_t count, size_t size) noexcept {
  return heap::AllocateZeroed(count, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* __libc_realloc(void* ptr, size_t size) noexcept {
  return heap::Reallocate(ptr, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* __libc_memalign(size_t alignment, size_t size) noexcept {
  return Memalign(alignment, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* __libc_valloc(size_t size) noexcept {
  return Valloc(size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* __libc_pvalloc(size_t size) noexcept {
  return Pvalloc(size, __builtin_return_address(0));
}

HAKMEM_EXPORT int __posix_memalign(void** out, size_t alignment,
                                   size_t size) noexcept {
  return PosixMemalign(out, alignment, size, __builtin_return_address(0));
}

// free(), in programs linked before glibc 2.26.
HAKMEM_EXPORT void cfree(void* ptr) noexcept { heap::Free(ptr); }

}  // extern "C"
