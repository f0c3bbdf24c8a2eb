// What the calling thread has of the sites that it allocates and frees for:
// counts that it has not yet added to the cells that all threads share, and
// some free blocks of each.
//
// A thread that tracks has a table of slots, one for a site and a block size. A
// slot holds some blocks that are free and have the site's tag already, so that
// handing one out is a pop and a count, and taking one back a look at whose it
// is and a push: neither writes a tag, looks at a clock or needs a locked
// instruction. A pair that is busy is an owner (locked_pool.h): whose a block
// of it is the arena's owner map says at once, by the pair's key; for a block
// of any other it is a look at the tag. How many blocks are live follows from
// how many the slot was given and how many it holds. What was counted goes to
// the cell when the slot is wanted for another pair, when the bytes have come
// to differ by 64 KiB, after 4096 allocations, and at the thread's end. So a
// reader of the cells alone is never far off, and with the slots of all threads
// added it is exact.
//
// The busiest owners have a bin of their own in the thread cache, to which
// their number in the class map leads (size_class.h). A slot of such an owner
// is open while that bin has its blocks: then a free is the fast path of free
// and knows nothing of sites, and what was freed follows from how many blocks
// are there. A slow path closes the slot first, and opens it again at its end.
//
// What an owner's slots have too much of or too little they exchange over its
// depot (CachedPool::StoreOwned()), with the tags that the blocks have. A
// thread that ends leaves the whole table, counts flushed, to the next thread
// that needs one.
//
// An age is taken of the blocks that come by the slow path: those get a tag
// with a date, which the fast path of free does not know. Blocks of more than
// kMaxTinySize bytes all come that way unless an owner has them, and so do
// blocks of more than kMaxL2Size bytes, which have no owners: the slots of both
// have no room, and only count.

#ifndef HAKMEM_CORE_SITE_CACHE_H_
#define HAKMEM_CORE_SITE_CACHE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/attributes.h"
#include "hakmem/core/magazine.h"
#include "hakmem/core/observed.h"
#include "hakmem/core/os.h"
#include "hakmem/core/site.h"
#include "hakmem/core/size_class.h"
#include "hakmem/core/tag.h"

namespace hakmem {

// Thread safety: belongs to its thread; others read the counts (ForEachSlot).
// Invariants:
//  1. blocks[0] to *top[-1] are free blocks of the pair's twin, tagged with its
//     site and without a date, and nobody else has them. While the slot is open
//     the bin has top and limit, and those here are of a slot without room.
//  2. given, less the blocks that are here, is how many of the pair this thread
//     has handed out and not taken back, modulo those that it took back for
//     others.
//  3. blocks is a magazine's, or one without room that all slots share. It
//     changes while id is 0.
struct alignas(64) SiteSlot {
  // The most blocks.
  static constexpr uint32_t kBlocks = MagazineCapacity(5);
  // No block's tag.
  static constexpr Tag kNoLoose = kNoSite | kOldBirth;
  // Allocations from one flush to the next, at most.
  static constexpr uint32_t kPeriod = 4096;

  uintptr_t id;  // the site's record; 0: no pair
  void** top;
  void** limit;     // top may not go beyond
  uint32_t key;     // the pair's in the arena's owner map, if it is an owner
  Tag tag;          // of the blocks here
  uint32_t left;    // kPeriod less the allocations since the last flush
  int32_t given;    // blocks that came here, less returned
  int32_t flushed;  // live at the last flush
  uint32_t cell;
  void** blocks;
  uint8_t twin;
  uint8_t bin;     // the owner's, while this is open; 0: it is closed
  uint16_t young;  // frees of blocks of the first bucket of ages
  Tag loose;  // of the blocks that come here from no owner's slabs: as tag, but
              // kNoLoose once the pair is an owner

  // Of a slot that is closed.
  int32_t held() const { return static_cast<int32_t>(top - blocks); }
  uint32_t capacity() const { return static_cast<uint32_t>(limit - blocks); }

  // Counts the age of a block with this tag that is gone, if it has a birth.
  // The first bucket has nearly all where blocks come and go fast, and its
  // count is everybody's.
  void AddAge(Tag was) {
    if (!HasBirth(was)) return;
    if (young != UINT16_MAX && AgeBucket(was, tag_clock.now()) == 0) {
      ++young;
    } else {
      hakmem::AddAge(was);
    }
  }

  // Makes room for `most` blocks, at most kBlocks and more than there is room
  // for, in a slot that is closed. False, and nothing changed, when the caches
  // of all threads have enough or there is no memory; of what is more than the
  // first few blocks also three times in four, by the allocations counted.
  bool Grow(uint32_t most);

  // Takes the blocks of a magazine from the owner's depot into a slot that is
  // closed and empty. The slot gets as much room as they need if it has less:
  // what the depot counted for them is more than that counts for. Returns a
  // magazine that is empty, or null.
  //
  // In parts, with the rest put back, prodcons with blocks of 4 KiB for callers
  // took twice as long: the depot holds what the limit allows, so that the
  // slots of those who allocate had room for some blocks only.
  Magazine* Exchange(Magazine* full);
};

static_assert(sizeof(SiteSlot) == 64);
static_assert(kNumMapValues - 1 <= UINT8_MAX);

// The bins of a thread cache, by their numbers.
struct OwnBins {
  void*** top = nullptr;
  void*** limit = nullptr;
};

namespace site_cache_internal {

// The blocks of slots without any: a magazine without room.
struct NoBlocks {
  void* floor;
  void* slots[1];
};
extern constinit NoBlocks no_blocks;

// A caller's slot whose owner has a bin: where a size has few callers, one look
// finds it. It stays true as long as the table is there: in that a pair has one
// place, and the bin has blocks only while the slot there is the pair's and
// open.
struct Recent {
  uintptr_t caller;
  uint32_t slot;  // its offset in the table
  uint32_t bin;
};

// As many for each twin to kLastL2Class, of which bits 4 and 5 of the caller
// choose one: those are the entry's offset as they stand. They stand in front
// of the table of slots, in their twins' order.
inline constexpr uint32_t kRecentsOfTwin = sizeof(SiteSlot) / sizeof(Recent);
inline constexpr size_t kRecentBytes =
    kLastL2Class * kRecentsOfTwin * sizeof(Recent);
static_assert(kRecentsOfTwin == 4 && kRecentBytes <= os::kPageSize);

// The table of threads that have none. No pair has its slot.
struct NoTable {
  Recent recents[kLastL2Class * kRecentsOfTwin];
  SiteSlot slot;
};
extern constinit NoTable no_table;
static_assert(offsetof(NoTable, slot) == kRecentBytes);

}  // namespace site_cache_internal

// Thread safety: belongs to its thread. Others read the slots of the caches
// that are in the registry (thread_cache.cc) under its lock, which the owner
// takes to change the table.
class SiteCache {
 public:
  // Gives free blocks of a twin, at most kBlocks, back to the heap.
  using GiveBack = void (*)(SizeClass twin, void* const* blocks,
                            uint32_t count);

  constexpr SiteCache() = default;

  // The key of a pair: no other of a twin to kLastL2Class has it, and it is not
  // 0.
  static constexpr uint32_t KeyOf(uint32_t site, SizeClass twin) {
    const uint32_t key =
        KeyOfId(site * sizeof(ObservedSite), twin * sizeof(SiteSlot));
    return PlainOf(twin) > kLastTinyClass ? key | kL2Key : key;
  }

  // A number that has the key's lowest bits in its own, by a number that has
  // those of the site's id, and the twin times a slot's size. This much
  // arithmetic hak_alloc_at() does each time.
  static constexpr uint32_t KeyOfId(uintptr_t id, uint32_t twin_offset) {
    return static_cast<uint32_t>(id * kIdFactor) + twin_offset;
  }

  // The slot where a pair has to be if it is anywhere. Two pairs of one site do
  // not share a slot, and nor do two of one twin and neighbouring sites: so it
  // is the pair's if it is the site's.
  SiteSlot* SlotOfKey(uint32_t key) const {
    return reinterpret_cast<SiteSlot*>(reinterpret_cast<char*>(slots_) +
                                       (key & mask_));
  }
  SiteSlot* SlotAt(uint32_t site, SizeClass twin) const {
    return SlotOfKey(KeyOf(site, twin));
  }

  // The slot of the pair, or of kOtherSite where SiteTable::CellOf() says so,
  // made when it is not there; another pair's that was in its place is emptied.
  // Null when there is no table: `may_keep` says whether this thread may make
  // one. May call `give_back`.
  SiteSlot* Load(uint32_t* site, SizeClass twin, bool may_keep,
                 GiveBack give_back);

  // After something was counted in the slot, at the end of a slow path: flushes
  // what is due. May call `give_back`, and empty any slot.
  void LookAfter(SiteSlot* slot) {
    const int64_t blocks = int64_t{LiveOf(*slot)} - slot->flushed;
    const int64_t bytes = blocks * static_cast<int64_t>(ClassSize(slot->twin));
    if ((bytes > kMostBytes || bytes < -kMostBytes) &&
        (blocks > kMostLarge || blocks < -kMostLarge)) {
      Flush(*slot);
    }
    ++loads_;
    if (tag_clock.tick() - flushed_ >= kFlushTicks) FlushAll();
  }

  // What invariant 2 says of a slot, open or not.
  int32_t LiveOf(const SiteSlot& slot) const {
    void** const top = slot.bin != 0 ? bins_.top[slot.bin] : slot.top;
    return slot.given - static_cast<int32_t>(top - slot.blocks);
  }

  // Opens a slot that has room, if its owner has a bin. For the thread whose
  // cache this is.
  void Open(SiteSlot* slot);

  // Closes a slot, if it is open.
  void Close(SiteSlot& slot) {
    if (slot.bin != 0) CloseOpen(slot);
  }

  // Closes all: before the cache becomes another thread's, or nobody's.
  void CloseAll();

  // The site of an id that is no record's address, by the last ones looked up.
  uint32_t Find(SiteKind kind, uintptr_t id, bool may_keep);

  // A site that was looked up, and KeyOfId() of it for a twin of offset 0.
  struct LastId {
    uintptr_t id;
    uint32_t site;
    uint32_t key;
  };

  // The same of a caller where it was one of those; else null.
  const LastId* LastCaller(uintptr_t id) const {
    if (last_callers_ == nullptr) return nullptr;
    const LastId& last = last_callers_[LastIndex(id)];
    return last.id == id ? &last : nullptr;
  }

  using Recent = site_cache_internal::Recent;

  // Where the caller's would be, for a twin to kLastL2Class.
  Recent& RecentAt(size_t twin_offset, uintptr_t caller) const {
    using site_cache_internal::kRecentBytes;
    using site_cache_internal::kRecentsOfTwin;
    return *reinterpret_cast<Recent*>(
        reinterpret_cast<char*>(slots_) + twin_offset +
        (caller & ((kRecentsOfTwin - 1) * sizeof(Recent))) -
        (kRecentBytes + kFirstTwin * sizeof(SiteSlot)));
  }
  SiteSlot* SlotOf(const Recent& recent) const {
    return reinterpret_cast<SiteSlot*>(reinterpret_cast<char*>(slots_) +
                                       recent.slot);
  }

  // For a slot that is open and its site's caller.
  void Remember(const SiteSlot* slot, uintptr_t caller) {
    RecentAt(slot->twin * sizeof(SiteSlot), caller) = {
        .caller = caller,
        .slot = static_cast<uint32_t>(reinterpret_cast<const char*>(slot) -
                                      reinterpret_cast<const char*>(slots_)),
        .bin = slot->bin};
  }

  // Gives the free blocks of all slots back.
  void ReturnBlocks();

  // What the slot has counted goes to its cell.
  void Flush(SiteSlot& slot);

  // Flush() for all slots. False when there are none.
  bool FlushCounts();

  // Gives all blocks back, adds all that was counted, and has no slots again.
  void Retire();

  // Bytes of the table of slots, and what of it the system backs with memory.
  // For the holder of the registry's lock.
  size_t table_bytes() const;
  size_t resident_bytes() const;

  // What others see of a slot that has a pair.
  struct Counted {
    uint32_t site;
    uint32_t cell;
    uint32_t allocs;  // since the last flush
    uint32_t young;
    int64_t frees;
    int64_t held;
  };

  // Calls fn(counted) for the slots. For the holder of the registry's lock.
  template <typename Fn>
  void ForEachSlot(Fn fn) const {
    for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) {
      const Counted counted = Read(slots_[i]);
      if (counted.site != kNoSite) fn(counted);
    }
  }

 private:
  // By how much a slot may differ from its cell: in bytes, or in blocks where
  // these are large. Without the second a slot of more than 64 KiB a block was
  // flushed by every call.
  static constexpr int64_t kMostBytes = 64 << 10;
  static constexpr int64_t kMostLarge = 4;

  // What a thread has counted is not older than this for who looks from
  // outside, where it comes to a slow path meanwhile: a quarter of a second, in
  // ticks.
  static constexpr uint64_t kFlushTicks = 250 / kTickMilliseconds;

  static constexpr size_t LastIndex(uintptr_t id) {
    return (static_cast<uint32_t>(id) * 0x9E3779B1u) >> 24;
  }

  // So many slots are the pairs of one site and a next one's apart: more than a
  // site has.
  static constexpr uint32_t kIdFactor = 9;
  static_assert(kIdFactor * sizeof(ObservedSite) >
                kLastTinyClass * sizeof(SiteSlot));
  static_assert(kIdFactor * sizeof(ObservedSite) >
                (kLastL2Class - kLastTinyClass) * sizeof(SiteSlot));
  // What is above all that is for the pairs of twins beyond kLastTinyClass.
  static constexpr uint32_t kL2Key = 1u << 31;
  static_assert(kIdFactor * sizeof(ObservedSite) * uint64_t{kSiteMask} +
                    kNumBins * sizeof(SiteSlot) <
                kL2Key);

  struct Taken {
    SizeClass twin;
    uint32_t count;
    Magazine* magazine;
  };

  Counted Read(const SiteSlot& slot) const;
  void CloseOpen(SiteSlot& slot);
  Taken Take(SiteSlot& slot);
  void GiveUp(const Taken& taken);
  void FlushAll();
  void Return(SiteSlot& slot);
  void Evict(SiteSlot& slot);
  bool MakeTable(uint32_t slots);
  void Unpark();

  SiteSlot* slots_ = &site_cache_internal::no_table.slot;
  uint32_t mask_ = 0;     // of an offset in bytes
  uint32_t misses_ = 0;   // since the last look at how seldom they are
  uint32_t loads_ = 0;    // slow paths since then
  uint64_t flushed_ = 0;  // tick of the last FlushAll()
  GiveBack give_back_ = nullptr;
  OwnBins bins_;  // of the thread, once it has opened a slot
  LastId* last_callers_ = nullptr;
  LastId* last_numbers_ = nullptr;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_SITE_CACHE_H_
