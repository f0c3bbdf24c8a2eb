// Reads of memory that may not be there: what a broken stack or a broken table
// points to.

#ifndef HAKMEM_CORE_READABLE_MEMORY_H_
#define HAKMEM_CORE_READABLE_MEMORY_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace hakmem {

// Knows which pages of this process can be read, having asked the system once
// about each. What it says holds until somebody unmaps the page: for the length
// of one call that reads its own thread's stack, not longer.
//
// Thread safety: belongs to one call. Allocates nothing, takes no lock, keeps
// errno; may be used in a signal handler.
class ReadableMemory {
 public:
  constexpr ReadableMemory() = default;

  // Whether all of [address, address + bytes) can be read.
  bool Covers(uintptr_t address, size_t bytes) {
    if (bytes == 0) return true;
    const uintptr_t last = address + bytes - 1;
    if (last < address) return false;
    for (uintptr_t page = address >> kPageShift; page <= last >> kPageShift;
         ++page) {
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

  uint8_t Byte(uintptr_t address) const;   // of what Covers() allows
  uint64_t Word(uintptr_t address) const;  // likewise

 private:
  static constexpr int kPageShift = 12;
  static constexpr size_t kKnown = 16;

  bool Probe(uintptr_t page);

  // The number of a page, plus 1, at that number modulo kKnown; 0 is none.
  std::array<uintptr_t, kKnown> known_{};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_READABLE_MEMORY_H_
