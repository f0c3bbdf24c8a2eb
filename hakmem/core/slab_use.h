// How a program uses the slabs of a class: how much of them, and how long.

#ifndef HAKMEM_CORE_SLAB_USE_H_
#define HAKMEM_CORE_SLAB_USE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/size_class.h"

namespace hakmem {

// Of a class and its twin together. Found out with some of the slabs, when they
// go, and so only as it was lately.
//
// Thread safety: every function may be called from any thread; none takes a
// lock. When several slabs come or go at once, one may be looked at sooner or
// later than its turn: it says what is worth doing, and nothing depends on it.
class alignas(64) SlabUse {
 public:
  constexpr SlabUse() = default;

  static SlabUse& Of(SizeClass size_class);

  // How much of the slabs of blocks above 32 KiB is resident when they go.
  // Neither is true as long as nothing is known.
  bool IsLittle() const {
    const uint8_t share = share_.load(std::memory_order_relaxed);
    return share != 0 && share < kWhole / 4 + 1;
  }
  bool IsMost() const {
    return share_.load(std::memory_order_relaxed) > kWhole / 4 * 3;
  }

  // Says of how many of the `pages` at `start`, a slab's that goes, nothing is
  // resident by what is known: 0 as long as nothing is. At times it asks the
  // system, for the first time after a few dozen slabs.
  uint32_t UnusedPages(const void* start, uint32_t pages);

  // Takes note of what a slab had resident, of so many pages.
  void NoteResident(size_t resident, size_t pages);

  // Counts the slabs that there are.
  void NoteMade();
  void NoteGone() { made_.fetch_sub(1, std::memory_order_relaxed); }

  // Whether there are so many that another one is little beside them.
  bool AreMany() const {
    return made_.load(std::memory_order_relaxed) >= kMany;
  }

  // Whether all of the pages at `start`, a new slab's of which none is there,
  // will soon be in use, by what became of others that were so. One of eight is
  // left as it is, and the system asked about it when the eighth after it is
  // made: false as long as nothing is known.
  bool FillsSoon(const void* start, size_t bytes);

  // Whether what a slab that has just been made has behind its last block may
  // stay: where those that returned it went soon, it is soon somebody else's.
  bool KeepsTail();

  // One that returned it has gone, in the same period of HAKMEM_DECAY_MS or
  // later.
  void NoteTail(bool soon);

 private:
  static constexpr uint32_t kWhole = 255;

  // A system call for so many slabs, more or less: what a program does in turns
  // is not to meet with that. Small programs have none, and so may run in a
  // sandbox that does not allow it.
  static constexpr uint8_t kUnasked = 32;

  // With 64 the workload "idle" has 0.6 % less at its peak, with 4 the same; in
  // time there is no difference.
  static constexpr uint32_t kMany = 16;

  // One of so many slabs is watched, and gets its pages one by one. With 4
  // "idle" spends 0.48 s in the system where it spends 0.31, with 32 0.26; but
  // then a class that is not filled any more is seen four times as late.
  static constexpr uint8_t kWatchedOf = 8;

  std::atomic<uint32_t> made_{0};          // that have not gone
  std::atomic<uint8_t> until_watched_{0};  // slabs until the next is watched
  std::atomic<bool> fills_{false};         // what the last one did
  std::atomic<const void*> watched_{nullptr};

  // Until the next is asked about.
  std::atomic<uint8_t> slabs_left_{kUnasked};
  std::atomic<uint8_t> share_{0};       // in 255ths; 0 while it is not known
  std::atomic<uint8_t> tails_left_{0};  // to be kept until the next returns it
  std::atomic<uint8_t> tails_kept_{0};  // each time
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_SLAB_USE_H_
