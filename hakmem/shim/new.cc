// operator new and delete over the heap.
//
// The allocator is built without exceptions and carries no C++ run time. When
// memory has run out, the handler to call and the exception to throw are those
// of the program's own run time, reached through weak references.
//
// The nothrow forms of new are left to that run time on purpose: by the
// standard ([new.delete.single], LWG 206) they call the forms below and turn
// any exception, also one that a new_handler throws, into a null pointer.

#include <cstddef>
#include <new>

#include "hakmem/core/report.h"
#include "hakmem/shim/export.h"
#include "hakmem/shim/heap.h"

namespace std {
[[gnu::weak]] new_handler get_new_handler() noexcept;
[[gnu::weak]] void __throw_bad_alloc();
}  // namespace std

namespace {

namespace heap = hakmem::heap;

// operator new as [new.delete.single] describes it: calls the program's
// handler and tries again, as long as there is one. An `alignment` of 0 stands
// for the default.
[[gnu::noinline]] void* NewSlow(size_t size, size_t alignment,
                                const void* caller) {
  for (;;) {
    void* const block = alignment == 0
                            ? heap::AllocateFor(size, caller)
                            : heap::AllocateAligned(alignment, size, caller);
    if (block != nullptr) return block;
    const std::new_handler handler =
        std::get_new_handler != nullptr ? std::get_new_handler() : nullptr;
    if (handler == nullptr) {
      if (std::__throw_bad_alloc != nullptr) std::__throw_bad_alloc();
      hakmem::Die("out of memory, and no C++ run time to throw bad_alloc,",
                  nullptr);
    }
    handler();
  }
}

// Where the fast path has found nothing. It may have counted the block: so this
// does not begin with it again.
[[gnu::noinline]] void* NewMissed(size_t size, const void* caller) {
  void* const block = heap::AllocateSlow(size, caller);
  return block != nullptr ? block : NewSlow(size, 0, caller);
}

[[gnu::always_inline]] inline void* New(size_t size) {
  if (size <= hakmem::kMaxTinySize) [[likely]] {
    const size_t bin = hakmem::thread_cache.SmallBin(size);
    void* const block = hakmem::thread_cache.Pop(bin);
    if (block != nullptr) [[likely]]
      return block;
    void* counted;
    if (hakmem::thread_cache.PopCounted(bin, &counted)) [[likely]]
      return counted;
    return NewMissed(size, __builtin_return_address(0));
  }
  return NewSlow(size, 0, __builtin_return_address(0));
}

}  // namespace

HAKMEM_EXPORT_FAST void* operator new(size_t size) { return New(size); }
HAKMEM_EXPORT_FAST void* operator new[](size_t size) { return New(size); }
HAKMEM_EXPORT void* operator new(size_t size, std::align_val_t alignment) {
  return NewSlow(size, static_cast<size_t>(alignment),
                 __builtin_return_address(0));
}
HAKMEM_EXPORT void* operator new[](size_t size, std::align_val_t alignment) {
  return NewSlow(size, static_cast<size_t>(alignment),
                 __builtin_return_address(0));
}

HAKMEM_EXPORT_FAST void operator delete(void* ptr) noexcept { heap::Free(ptr); }
HAKMEM_EXPORT_FAST void operator delete[](void* ptr) noexcept {
  heap::Free(ptr);
}
HAKMEM_EXPORT_FAST void operator delete(void* ptr, size_t size) noexcept {
  heap::FreeSized(ptr, size, 1);
}
HAKMEM_EXPORT_FAST void operator delete[](void* ptr, size_t size) noexcept {
  heap::FreeSized(ptr, size, 1);
}
HAKMEM_EXPORT void operator delete(void* ptr, std::align_val_t) noexcept {
  heap::Free(ptr);
}
HAKMEM_EXPORT void operator delete[](void* ptr, std::align_val_t) noexcept {
  heap::Free(ptr);
}
HAKMEM_EXPORT void operator delete(void* ptr, size_t size,
                                   std::align_val_t alignment) noexcept {
  heap::FreeSized(ptr, size, static_cast<size_t>(alignment));
}
HAKMEM_EXPORT void operator delete[](void* ptr, size_t size,
                                     std::align_val_t alignment) noexcept {
  heap::FreeSized(ptr, size, static_cast<size_t>(alignment));
}
HAKMEM_EXPORT void operator delete(void* ptr, const std::nothrow_t&) noexcept {
  heap::Free(ptr);
}
HAKMEM_EXPORT void operator delete[](void* ptr,
                                     const std::nothrow_t&) noexcept {
  heap::Free(ptr);
}
HAKMEM_EXPORT void operator delete(void* ptr, std::align_val_t,
                                   const std::nothrow_t&) noexcept {
  heap::Free(ptr);
}
HAKMEM_EXPORT void operator delete[](void* ptr, std::align_val_t,
                                     const std::nothrow_t&) noexcept {
  heap::Free(ptr);
}
