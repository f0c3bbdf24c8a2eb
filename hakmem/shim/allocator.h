// hakmem for C++ containers: an allocator and a memory resource over hakmem.h.
//
// For a program that wants some of its containers on hakmem's heap by name,
// whatever operator new may be:
//
//   std::vector<Order, hakmem::Allocator<Order>> orders;
//   std::pmr::unordered_map<int, Order> index(hakmem::SharedMemoryResource());
//
// There is one heap, so all allocators are equal, all resources are equal, and
// containers move and swap without copying their elements. Everything here may
// be used from any thread at any time. It needs C++17 and works with
// exceptions and RTTI switched off.

#ifndef HAKMEM_SHIM_ALLOCATOR_H_
#define HAKMEM_SHIM_ALLOCATOR_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory_resource>
#include <new>
#include <type_traits>

// By this name wherever the two headers lie: hakmem/shim in the sources, and
// include/hakmem once they are installed.
#include "hakmem.h"

namespace hakmem {
namespace allocator_internal {

#if defined(__cpp_exceptions)
template <typename Exception>
[[noreturn]] inline void Fail() {
  throw Exception();
}
#else
template <typename Exception>
[[noreturn]] inline void Fail() {
  std::fputs("hakmem: out of memory, and exceptions are off\n", stderr);
  std::abort();
}
#endif

// Returns a block of at least `bytes` bytes, aligned to the power of two
// `alignment`. When memory has run out it does what operator new does: it calls
// the program's new_handler and tries again, and throws std::bad_alloc where
// there is none.
[[nodiscard]] inline void* Allocate(std::size_t bytes, std::size_t alignment) {
  for (;;) {
    // What hak_alloc() promises for these sizes.
    const bool aligned_anyway =
        alignment <= 8 || (alignment <= 16 && bytes > 8);
    void* const block =
        aligned_anyway ? hak_alloc(bytes) : hak_aligned_alloc(alignment, bytes);
    if (block != nullptr) return block;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) Fail<std::bad_alloc>();
    handler();
  }
}

}  // namespace allocator_internal

// An allocator as [allocator.requirements] describes it, without state.
template <typename T>
class Allocator {
 public:
  using value_type = T;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;
  using is_always_equal = std::true_type;

  constexpr Allocator() noexcept = default;
  template <typename U>
  constexpr Allocator(const Allocator<U>&) noexcept {}  // NOLINT: implicit

  // Returns room for `count` objects, aligned as T is, beyond 16 bytes too.
  // Throws std::bad_array_new_length when their size does not fit into size_t,
  // and std::bad_alloc when memory has run out and no new_handler helps; where
  // exceptions are off, either ends the program with one line on stderr. A
  // count of 0 gives a pointer that has to be given back.
  [[nodiscard]] T* allocate(std::size_t count) {
    if (count > SIZE_MAX / sizeof(T)) {
      allocator_internal::Fail<std::bad_array_new_length>();
    }
    return static_cast<T*>(
        allocator_internal::Allocate(count * sizeof(T), alignof(T)));
  }

  // Gives back what allocate(), of any Allocator, returned.
  void deallocate(T* objects, std::size_t /*count*/) noexcept {
    hak_free(objects);
  }
};

template <typename T, typename U>
constexpr bool operator==(const Allocator<T>&, const Allocator<U>&) noexcept {
  return true;
}
template <typename T, typename U>
constexpr bool operator!=(const Allocator<T>&, const Allocator<U>&) noexcept {
  return false;
}

// The same heap as a std::pmr::memory_resource. allocate() throws
// std::bad_alloc when memory has run out, or ends the program where exceptions
// are off. The alignment has to be a power of two.
class MemoryResource final : public std::pmr::memory_resource {
 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    return allocator_internal::Allocate(bytes, alignment);
  }

  void do_deallocate(void* block, std::size_t /*bytes*/,
                     std::size_t /*alignment*/) override {
    hak_free(block);
  }

  bool do_is_equal(
      const std::pmr::memory_resource& other) const noexcept override {
#if defined(__cpp_rtti)
    return dynamic_cast<const MemoryResource*>(&other) != nullptr;
#else
    // Cannot ask what the other is: containers of two resources copy.
    return this == &other;
#endif
  }
};

// One resource for the whole program, which is never destroyed: also good for
// containers that outlive main(), and for std::pmr::set_default_resource().
inline MemoryResource* SharedMemoryResource() noexcept {
  alignas(MemoryResource) static unsigned char storage[sizeof(MemoryResource)];
  static MemoryResource* const resource = ::new (storage) MemoryResource;
  return resource;
}

}  // namespace hakmem

#endif  // HAKMEM_SHIM_ALLOCATOR_H_
