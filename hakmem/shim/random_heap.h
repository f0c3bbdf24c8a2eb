// For tests that use a heap as programs do.

#ifndef HAKMEM_SHIM_RANDOM_HEAP_H_
#define HAKMEM_SHIM_RANDOM_HEAP_H_

#include <malloc.h>
#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "hakmem/shim/start_process.h"

namespace hakmem {

// Xorshift (Marsaglia, Journal of Statistical Software 2003); not of 0.
inline uint64_t Next(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// A program of a kind: holds blocks of all sizes, resizes and frees them in no
// order, and looks after what is in them.
class Workload {
 public:
  // Sizes of up to `most` bytes, and so alignments.
  explicit constexpr Workload(uint64_t seed, size_t most = SIZE_MAX)
      : state_(seed | 1), most_(most) {}

  // Says how many allocations failed.
  int Run(int steps, bool may_fail) {
    int failures = 0;
    for (int step = 0; step < steps; ++step) {
      Slot& slot = slots_[Next(state_) % kSlots];
      const bool worked =
          slot.block == nullptr ? Fill(slot) : RenewOrFree(slot);
      if (!worked) {
        CHECK(errno == ENOMEM);
        CHECK(may_fail);
        ++failures;
      }
    }
    return failures;
  }

  void FreeAll() {
    for (Slot& slot : slots_) {
      if (slot.block != nullptr) Free(slot);
    }
  }

 private:
  struct Slot {
    unsigned char* block = nullptr;
    size_t size = 0;
    unsigned char mark = 0;
  };

  // Mostly small, now and then of megabytes.
  size_t SomeSize() {
    constexpr size_t kMost[] = {64,     200,    1000,    4000,    20000,
                                100000, 700000, 1500000, 3000000, 5000000};
    return 1 + Next(state_) %
                   std::min(kMost[Next(state_) % std::size(kMost)], most_);
  }

  bool Fill(Slot& slot) {
    const size_t size = SomeSize();
    void* block = nullptr;
    bool zero = false;
    errno = EXDEV;
    switch (Next(state_) % 4) {
      case 0:
        block = calloc(1, size);
        zero = true;
        break;
      case 1: {
        const int error = posix_memalign(
            &block,
            std::min(size_t{16} << Next(state_) % 14, std::bit_floor(most_)),
            size);
        CHECK(error == 0 || error == ENOMEM);
        CHECK(errno == (error == 0 ? EXDEV : ENOMEM));
        break;
      }
      default:
        block = malloc(size);
    }
    if (block == nullptr) return false;
    CHECK(errno == EXDEV);
    CHECK(malloc_usable_size(block) >= size);
    slot.block = static_cast<unsigned char*>(block);
    slot.size = size;
    for (size_t at = 0; zero && at < size; at = NextAt(at)) {
      CHECK(slot.block[at] == 0);
    }
    Mark(slot);
    return true;
  }

  bool RenewOrFree(Slot& slot) {
    if (Next(state_) % 3 != 0) {
      Free(slot);
      return true;
    }
    CheckMarks(slot, slot.size);
    const size_t size = SomeSize();
    errno = EXDEV;
    void* const block = realloc(slot.block, size);
    if (block == nullptr) {
      CHECK(size > slot.size);
      CheckMarks(slot, slot.size);
      return false;
    }
    CHECK(errno == EXDEV);
    slot.block = static_cast<unsigned char*>(block);
    CheckMarks(slot, std::min(size, slot.size));
    slot.size = size;
    Mark(slot);
    return true;
  }

  void Free(Slot& slot) {
    CheckMarks(slot, slot.size);
    errno = EXDEV;
    free(slot.block);
    CHECK(errno == EXDEV);
    slot.block = nullptr;
  }

  // Every byte of small blocks; of large ones the first ones and some of each
  // page.
  static size_t NextAt(size_t at) { return at < 512 ? at + 1 : at + 1021; }

  void Mark(Slot& slot) {
    slot.mark = static_cast<unsigned char>(Next(state_) | 1);
    for (size_t at = 0; at < slot.size; at = NextAt(at)) {
      slot.block[at] = static_cast<unsigned char>(slot.mark + at);
    }
  }

  void CheckMarks(const Slot& slot, size_t size) const {
    for (size_t at = 0; at < size; at = NextAt(at)) {
      CHECK(slot.block[at] == static_cast<unsigned char>(slot.mark + at));
    }
  }

  static constexpr int kSlots = 64;
  uint64_t state_;
  size_t most_;
  Slot slots_[kSlots];
};

}  // namespace hakmem

#endif  // HAKMEM_SHIM_RANDOM_HEAP_H_
