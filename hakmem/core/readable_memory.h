// Reads of memory that may not be there: what a broken stack or a broken table
// points to.

#ifndef HAKMEM_CORE_READABLE_MEMORY_H_
#define HAKMEM_CORE_READABLE_MEMORY_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace hakmem {

// Knows which pages of this process can be read, having asked the system about
// each. A question costs some hundred nanoseconds or more, so what is known of
// the thread's stack, one stretch of pages, is kept for the next call: for an
// eighth of a second. Who unmaps a stack that a thread ran on, has the thread
// run on another one in the same place and writes rubbish over its frames, all
// within that time, can mislead it; and who unmaps a page while it is read.
//
// Thread safety: an object belongs to one call. Allocates nothing, takes no
// lock, keeps errno; may be used in a signal handler that interrupted the use
// of another one.
class ReadableMemory {
 public:
  // `stack` is an address on the stack that is in use, or 0 where no stack is
  // to be read.
  explicit ReadableMemory(uintptr_t stack = 0);
  ~ReadableMemory();
  ReadableMemory(const ReadableMemory&) = delete;
  ReadableMemory& operator=(const ReadableMemory&) = delete;

  // Whether all of [address, address + bytes) can be read.
  bool Covers(uintptr_t address, size_t bytes) {
    if (bytes == 0) return true;
    const uintptr_t last = address + bytes - 1;
    if (last < address) return false;
    // Nearly always: without this look at both ends at once a sample takes 80
    // instructions more.
    const uintptr_t first_page = address >> kPageShift;
    const uintptr_t last_page = last >> kPageShift;
    if (first_page - stack_first_ < stack_pages_ &&
        last_page - stack_first_ < stack_pages_) {
      return true;
    }
    for (uintptr_t page = first_page; page <= last_page; ++page) {
      if (page - stack_first_ < stack_pages_) continue;
      if (known_[page % kKnown] != page + 1 && !Probe(page)) return false;
    }
    return true;
  }

  // Reads the word at `address`; false when it cannot be read.
  bool Load(uintptr_t address, uint64_t* value) {
    if (!Covers(address, sizeof(uint64_t))) return false;
    *value = Word(address);
    return true;
  }

  // What Covers() allows. The words of a stack are other functions' variables,
  // of any type, and lie in what AddressSanitizer keeps apart: so neither rule
  // is to apply here.
  __attribute__((no_sanitize("address", "thread"))) uint8_t Byte(
      uintptr_t address) const {
    return *reinterpret_cast<const volatile uint8_t*>(address);
  }
  __attribute__((no_sanitize("address", "thread"))) uint64_t Word(
      uintptr_t address) const {
    using AnyWord [[gnu::may_alias, gnu::aligned(1)]] = uint64_t;
    return *reinterpret_cast<const volatile AnyWord*>(address);
  }

 private:
  static constexpr int kPageShift = 12;
  static constexpr size_t kKnown = 16;

  bool Probe(uintptr_t page);

  // The stretch that the stack is in.
  uintptr_t stack_first_ = 0;
  uintptr_t stack_pages_ = 0;
  uint64_t kept_ = 0;  // what this thread had of it
  uint64_t now_ = 0;   // eighths of a second
  // The number of a page, plus 1, at that number modulo kKnown; 0 is none.
  std::array<uintptr_t, kKnown> known_{};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_READABLE_MEMORY_H_
