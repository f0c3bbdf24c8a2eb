// The rows of unwind tables that were used before.

#ifndef HAKMEM_CORE_UNWIND_CACHE_H_
#define HAKMEM_CORE_UNWIND_CACHE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hakmem {

// A row of the usual shape in two words: the CFA is a register and an offset,
// the registers that a call preserves are saved in multiples of 8 below it, and
// the return address is right below it.
struct CompactRow {
  // In this order from the lowest byte on: rbx, rbp, r12 to r15. 0 stands for a
  // register that is as the caller left it, n for one saved at CFA - 8 * n.
  static constexpr std::array<uint8_t, 6> kSaved = {3, 6, 12, 13, 14, 15};
  // Bits of `shape` above the CFA's offset (32), register (4) and depth (8).
  static constexpr int kRegisterShift = 32;
  static constexpr int kDepthShift = 36;
  static constexpr uint64_t kOutermost = uint64_t{1} << 44;

  uint64_t shape;
  uint64_t saved;

  int32_t cfa_offset() const { return static_cast<int32_t>(shape); }
  uint32_t cfa_register() const {
    return static_cast<uint32_t>(shape >> kRegisterShift) & 15;
  }
  // How many words below the CFA it takes to have all of them.
  uint32_t depth() const {
    return static_cast<uint32_t>(shape >> kDepthShift) & 255;
  }
  bool outermost() const { return (shape & kOutermost) != 0; }
};

// Rows by address. What belongs to an object that was unloaded is told from
// what now lies in its place by the object's tag.
//
// Thread safety: any function from any thread, also in a signal handler that
// interrupted one of them: an entry that is being written is a miss, and one
// that somebody else is writing is not written. Lock-free: each entry has a
// number that is odd while it changes (a sequence lock).
class UnwindCache {
 public:
  constexpr UnwindCache() = default;

  bool Find(uintptr_t pc, uint32_t tag, CompactRow* row) const {
    const size_t index = IndexOf(pc);
    return Read(entries_[index], pc, tag, row) ||
           Read(entries_[index ^ 1], pc, tag, row);
  }

  // For what Find() has not found.
  void Put(uintptr_t pc, uint32_t tag, const CompactRow& row) {
    Entry& entry = EntryFor(pc);
    uint32_t even = entry.sequence.load(std::memory_order_relaxed) & ~1u;
    if (!entry.sequence.compare_exchange_strong(even, even + 1,
                                                std::memory_order_acquire)) {
      return;
    }
    std::atomic_thread_fence(std::memory_order_release);
    entry.pc.store(pc, std::memory_order_relaxed);
    entry.tag.store(tag, std::memory_order_relaxed);
    entry.shape.store(row.shape, std::memory_order_relaxed);
    entry.saved.store(row.saved, std::memory_order_relaxed);
    entry.sequence.store(even + 2, std::memory_order_release);
  }

 private:
  static constexpr int kBits = 11;

  struct Entry {
    std::atomic<uint32_t> sequence{0};
    std::atomic<uint32_t> tag{0};
    std::atomic<uintptr_t> pc{0};
    std::atomic<uint64_t> shape{0};
    std::atomic<uint64_t> saved{0};
  };

  static bool Read(const Entry& entry, uintptr_t pc, uint32_t tag,
                   CompactRow* row) {
    const uint32_t before = entry.sequence.load(std::memory_order_acquire);
    const uintptr_t key = entry.pc.load(std::memory_order_relaxed);
    const uint32_t owner = entry.tag.load(std::memory_order_relaxed);
    row->shape = entry.shape.load(std::memory_order_relaxed);
    row->saved = entry.saved.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    return (before & 1) == 0 && key == pc && owner == tag &&
           entry.sequence.load(std::memory_order_relaxed) == before;
  }

  // A row has two places, so that two frames of one stack are not in each
  // other's way: where every row had one, that was so in one process of some
  // hundred, and there each capture read both from the tables. It takes the
  // place that changed less often, and so not always the same.
  Entry& EntryFor(uintptr_t pc) {
    Entry& one = entries_[IndexOf(pc)];
    Entry& other = entries_[IndexOf(pc) ^ 1];
    if (one.pc.load(std::memory_order_relaxed) == pc) return one;
    if (other.pc.load(std::memory_order_relaxed) == pc) return other;
    return other.sequence.load(std::memory_order_relaxed) <
                   one.sequence.load(std::memory_order_relaxed)
               ? other
               : one;
  }

  static size_t IndexOf(uintptr_t pc) {
    return static_cast<size_t>(pc * 0x9E3779B97F4A7C15u >> (64 - kBits));
  }

  // The two places of a row are one cache line.
  alignas(64) std::array<Entry, size_t{1} << kBits> entries_{};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_UNWIND_CACHE_H_
