// What the calling thread has counted of tracked blocks and not yet added to
// the cells that all threads share.
//
// A thread that tracks has a small table of slots, one for a site and a block
// size, in which it counts without locked instructions. What a slot holds goes
// to its cell when another pair needs the slot, when the bytes in it have come
// to differ by 64 KiB, every quarter of a second, and at the thread's end. So a
// reader of the cells alone is never far off, and with the slots of all threads
// added it is exact.

#ifndef HAKMEM_CORE_SITE_CACHE_H_
#define HAKMEM_CORE_SITE_CACHE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/observed.h"
#include "hakmem/core/site.h"
#include "hakmem/core/size_class.h"
#include "hakmem/core/tag.h"

namespace hakmem {

// Thread safety: written by its thread alone; others read the counts. Those of
// a slot without a key are 0.
struct alignas(64) SiteSlot {
  static constexpr uint32_t kNoKey = 0;

  // Site and twin in one; a twin is not 0.
  static constexpr uint32_t KeyOf(uint32_t site, SizeClass twin) {
    return site << 7 | twin;
  }

  uint32_t key;
  uint32_t cell;
  int32_t bytes;  // allocated less freed, since the last flush
  std::atomic<uint32_t> allocs;
  std::array<std::atomic<uint32_t>, kAgeBuckets> frees;  // by age
};

static_assert(kNumBins <= 128);

namespace site_cache_internal {

// The slot of threads that have none, which no pair has.
extern constinit SiteSlot no_slot;

}  // namespace site_cache_internal

// Thread safety: belongs to its thread. Others read the slots of the caches
// that are in the registry (thread_cache.cc) under its lock, which the owner
// takes to change the table. Invariant: a slot's cell is that of its key.
class SiteCache {
 public:
  constexpr SiteCache() = default;

  // The slot of a site and a twin if the table has it, or null.
  SiteSlot* Find(uint32_t site, SizeClass twin) {
    SiteSlot* const slot = &slots_[IndexOf(site, twin)];
    return slot->key == SiteSlot::KeyOf(site, twin) ? slot : nullptr;
  }

  // Counts a block that came or went, which a slot is there for. True when the
  // slot, or this cache, has to be looked after: then the caller ends with
  // LookAfter().
  bool CountAlloc(SiteSlot* slot, SizeClass twin) {
    Increment(slot->allocs);
    slot->bytes += static_cast<int32_t>(ClassSize(twin));
    return IsDue(slot);
  }
  bool CountFree(SiteSlot* slot, SizeClass twin, Tag tag) {
    Increment(slot->frees[AgeBucket(tag, tag_clock.now())]);
    slot->bytes -= static_cast<int32_t>(ClassSize(twin));
    return IsDue(slot);
  }
  void LookAfter(SiteSlot* slot);

  // The slot of the pair, or of kOtherSite where SiteTable::CellOf() says so;
  // another pair's that was in its place is flushed. Null when there is no
  // table: `may_keep` says whether this thread may make one.
  SiteSlot* Load(uint32_t* site, SizeClass twin, bool may_keep);

  // The site of an id that is no record's address, by the last ones looked up.
  uint32_t Find(SiteKind kind, uintptr_t id, bool may_keep);

  // Adds all that is in slots to their cells.
  void Flush();

  // Flush(), and no slots again.
  void Retire();

  // Calls fn(cell, allocs, frees by age) for the slots. For the holder of the
  // registry's lock.
  template <typename Fn>
  void ForEachSlot(Fn fn) const {
    for (uint32_t i = 0; i <= mask_; ++i) {
      const SiteSlot& slot = slots_[i];
      std::array<uint32_t, kAgeBuckets> frees;
      for (uint32_t age = 0; age < kAgeBuckets; ++age) {
        frees[age] = slot.frees[age].load(std::memory_order_relaxed);
      }
      fn(slot.cell, slot.allocs.load(std::memory_order_relaxed), frees);
    }
  }

 private:
  struct LastId {
    uintptr_t id;
    uint32_t site;
    SiteKind kind;
  };

  static constexpr int32_t kMostBytes = 64 << 10;

  uint32_t IndexOf(uint32_t site, SizeClass twin) const {
    return (twin + site * 37) & mask_;
  }
  // An increment by the only writer: no locked instruction.
  static void Increment(std::atomic<uint32_t>& count) {
    count.store(count.load(std::memory_order_relaxed) + 1,
                std::memory_order_relaxed);
  }
  bool IsDue(const SiteSlot* slot) {
    return static_cast<uint32_t>(slot->bytes + kMostBytes) > 2 * kMostBytes ||
           --until_clock_ == 0;
  }
  static void Flush(SiteSlot& slot);
  bool MakeTable(uint32_t slots);
  static void FreeTable(SiteSlot* slots, uint32_t mask);

  SiteSlot* slots_ = &site_cache_internal::no_slot;
  uint32_t mask_ = 0;
  uint32_t until_clock_ = 1;  // calls until the clock is looked at
  uint32_t interval_ = 1;     // what that was
  uint32_t misses_ = 0;       // since calls_ was
  uint64_t calls_ = 0;        // as of the last look at the clock
  uint64_t calls_at_misses_ = 0;
  uint64_t looked_ = 0;   // tick when the clock was looked at
  uint64_t flushed_ = 0;  // tick of the last Flush()
  LastId* last_ids_ = nullptr;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_SITE_CACHE_H_
