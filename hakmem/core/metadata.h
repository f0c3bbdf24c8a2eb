// Memory for hakmem's own tables: slabs, spans, magazines. It lies beside the
// arena, never in it, so that no write of the program through a stray pointer
// into its own blocks reaches it.

#ifndef HAKMEM_CORE_METADATA_H_
#define HAKMEM_CORE_METADATA_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/os.h"

namespace hakmem {

// Hands out pieces of one reserved region, in multiples of 64 bytes. Each part
// of the arena has one of these.
//
// A page of 4096 bytes is 64 units, so one word says which of them are free. A
// piece comes from the page whose largest hole fits it most tightly, holes
// being counted as the binary buddy system does (Knowlton, "A fast storage
// allocator", CACM 1965): powers of two, aligned to themselves. Free neighbours
// are one hole by having their bits side by side. So what one kind of table
// gives back serves any other.
//
// Thread safety: none of its own; the lock of the part guards it. Its sums may
// be read by any thread. Invariants:
//  1. A piece is aligned to 64 bytes, or to its size where that is a power of
//     two: a small magazine does not lie across two cache lines.
//  2. The region stays mapped: a stale read of a piece is a read of valid
//     memory, zeros at worst (the lock-free stacks of magazines rely on it).
//  3. No piece is where the region begins.
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

  // Gives a piece back. `bytes` is what it was allocated with.
  void Free(void* piece, size_t bytes);

  // Returns the memory of pages without a piece to the system; says how many
  // bytes.
  size_t Purge();

  // Bytes handed out and not given back.
  size_t used_bytes() const { return used_.load(std::memory_order_relaxed); }

  // Bytes that may be resident: of pages that were touched and not purged
  // since, and of the tables that describe them.
  size_t resident_bytes() const {
    return resident_.load(std::memory_order_relaxed);
  }

  // Calls fn(start, bytes) for what is accessible of the region.
  template <typename Fn>
  void ForEachAccessible(Fn fn) const {
    if (committed_ == 0) return;
    const size_t table = TableBytes(committed_);
    const size_t first = TableBytes(limit_);
    fn(region_, table);
    fn(region_ + first, committed_ * os::kPageSize - first);
  }

 private:
  // A page's largest hole is 2^order units; pages with none are in no list.
  // Whole pages are in one of two lists, by whether they may hold memory.
  static constexpr uint32_t kOrders = 6;
  static constexpr uint32_t kWholeDirty = kOrders;
  static constexpr uint32_t kWholeClean = kOrders + 1;
  static constexpr uint32_t kLists = kOrders + 2;
  static constexpr uint32_t kNoPage = 0;

  struct Page {
    uint64_t free;  // a bit a unit
    uint32_t next;
    uint32_t previous;
  };

  // Of the table of the first `pages` pages, in whole pages.
  static constexpr size_t TableBytes(uint32_t pages) {
    return (pages * sizeof(Page) + os::kPageSize - 1) & ~(os::kPageSize - 1);
  }
  static uint32_t ListFor(uint64_t free);
  void Link(uint32_t page, uint32_t list);
  void Unlink(uint32_t page, uint32_t list);
  uint32_t FindPage(uint32_t order);
  bool Grow();
  size_t PurgeWhole(uint32_t keep);
  void AddUsed(ptrdiff_t bytes);
  void AddResident(ptrdiff_t bytes);

  char* region_ = nullptr;
  Page* pages_ = nullptr;  // 1…limit_; 0 is no page
  uint32_t limit_ = 0;     // pages
  uint32_t committed_ = 0;
  uint32_t frontier_ = 0;  // pages that were ever used
  uint32_t whole_dirty_ = 0;
  std::array<uint32_t, kLists> lists_{};
  std::atomic<size_t> used_{0};
  std::atomic<size_t> resident_{0};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_METADATA_H_
