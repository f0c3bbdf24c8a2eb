// Memory for hakmem's own tables: slabs, spans, magazines. It lies beside the
// arena, never in it, so that no write of the program through a stray pointer
// into its own blocks reaches it.

#ifndef HAKMEM_CORE_METADATA_H_
#define HAKMEM_CORE_METADATA_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "hakmem/core/mutex.h"

namespace hakmem {

// Hands out pieces of one reserved region, in multiples of 64 bytes.
//
// Thread safety: all but Init() may be called from any thread; the lock is the
// last in the order of locks. Invariants:
//  1. A piece is aligned to 64 bytes, or to its size where that is a power of
//     two of at most 4096 bytes and it was never anything else.
//  2. Nothing is returned to the system: a stale read of a piece is a read of
//     valid memory (the lock-free stacks of magazines rely on it).
//  3. A piece's index, its offset in units of 64 bytes, is never 0.
class Metadata {
 public:
  static constexpr size_t kUnit = 64;
  static constexpr size_t kMaxPiece = 4096;

  constexpr Metadata() = default;

  // Takes the region over. Its memory is reserved and not accessible yet.
  void Init(char* region, size_t bytes);

  // A piece of `bytes` (a multiple of kUnit, at most kMaxPiece), contents
  // unspecified, or null when the region or the system's memory is used up.
  void* Allocate(size_t bytes);

  // Gives a piece back, to be handed out for the same size again.
  void Free(void* piece, size_t bytes);

  uint32_t IndexOf(const void* piece) const {
    return static_cast<uint32_t>((static_cast<const char*>(piece) - region_) /
                                 kUnit);
  }
  void* FromIndex(uint32_t index) const {
    return region_ + size_t{index} * kUnit;
  }

  // Bytes handed out so far, whether in use or waiting for reuse.
  size_t used_bytes() const { return used_.load(std::memory_order_relaxed); }

  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

 private:
  struct FreePiece {
    FreePiece* next;
  };

  // Set by Init() before anything else can reach this object.
  char* region_ = nullptr;
  size_t size_ = 0;

  Mutex mu_{Mutex::Locking::kInner};
  std::atomic<size_t> used_{0};
  size_t committed_ ABSL_GUARDED_BY(mu_) = 0;
  std::array<FreePiece*, kMaxPiece / kUnit + 1> free_ ABSL_GUARDED_BY(mu_){};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_METADATA_H_
