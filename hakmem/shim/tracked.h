// Blocks that belong to a site: how they are handed out, counted and taken
// back, over the heap's pools and large blocks.
//
// A tracked block comes from the twin of its class (size_class.h), and up to
// 1 KiB by way of a slot of this thread's (site_cache.h). The slot of a pair
// that is busy, up to 32 KiB, fills from a depot and from slabs that are the
// pair's own (locked_pool.h), any other from the twin's bin. The fast paths
// stand in this header: whatever they do not find leads to the same call's slow
// path, from the beginning and with nothing changed.

#ifndef HAKMEM_SHIM_TRACKED_H_
#define HAKMEM_SHIM_TRACKED_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/core.h"

namespace hakmem::heap {

// The site that `id` names for hak_alloc_at(), made when it is new; kNoSite
// when nothing can be tracked.
uint32_t SiteOfId(uintptr_t id);

// ThreadCache::mark(), which is known then.
uint32_t Mark();

// The site that the plain allocation of `caller` on this thread belongs to, by
// its scope or by HAKMEM_SITES; kNoSite for none. Not for samples: see
// SampledSite().
uint32_t MarkedSite(const void* caller);

// As AllocateAligned(), for a site. `*zeroed`, unless null, says whether the
// block reads as zero; it may do so all the same when not.
void* AllocateTracked(size_t size, size_t alignment, uint32_t site,
                      bool* zeroed = nullptr);

// The slow paths, out of line.
void* AllocateAtSlow(size_t size, uintptr_t id);
void FreeTwinSlow(void* block, SizeClass twin);
void FreeAtSlow(void* block);

// Counts a large block that is gone.
void CountLargeFree(FreedLarge freed);

// Counts a large block that was resized to where it is now, `block`, from
// `old_bytes`.
void CountLargeResize(void* block, size_t old_bytes);

// The site of a block that the caller has; kNoSite when it is not tracked.
uint32_t SiteOfBlock(const void* block);

// Whether a site is a sampled stack.
bool IsStack(uint32_t site);

// Whether a tracked block may go on as another site's: none that is an owner's.
bool MayMoveToSite(const void* block, uint32_t site);

// Moves such a block to another site; nothing else of it changes.
void MoveToSite(void* block, uint32_t site);

// Ends the program with one line on stderr unless `block` is null or belongs to
// the site that `id` names.
void CheckSite(const void* block, uintptr_t id);

// Indexed by (size + 7) / 8: the twin for that size, times the size of a slot.
inline constexpr std::array<uint16_t, kMaxTinySize / 8 + 1> kTwinOffsets = [] {
  std::array<uint16_t, kMaxTinySize / 8 + 1> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<uint16_t>(TwinOf(SmallSizeToClass(8 * i)) *
                                     sizeof(SiteSlot));
  }
  return table;
}();

// A block from the bin of an open slot, counted; null when it has none or is to
// be flushed.
inline void* TakeFromBin(uint32_t bin, SiteSlot* slot) {
  void* const block = thread_cache.Pop(bin);
  if (block == nullptr) [[unlikely]]
    return nullptr;
  if (--slot->left == 0) [[unlikely]] {
    thread_cache.Push(bin, block);
    return nullptr;
  }
  return block;
}

// The same from any slot.
inline void* TakeFrom(SiteSlot* slot) {
  if (slot->bin != 0) return TakeFromBin(slot->bin, slot);
  void** const top = slot->top - 1;
  void* const block = *top;
  if (block == nullptr) [[unlikely]]
    return nullptr;
  // The slow path, which finds 0, knows that this one was not handed out.
  if (--slot->left == 0) [[unlikely]]
    return nullptr;
  slot->top = top;
  return block;
}

// hak_alloc_at().
inline void* AllocateAt(size_t size, uintptr_t id) {
  if (size > kMaxTinySize) [[unlikely]]
    return AllocateAtSlow(size, id);
  const SiteCache& cache = thread_cache.site_cache();
  SiteSlot* const slot =
      cache.SlotOfKey(SiteCache::KeyOfId(id, kTwinOffsets[(size + 7) >> 3]));
  if (slot->id != id) [[unlikely]]
    return AllocateAtSlow(size, id);
  void* const block = TakeFrom(slot);
  if (block == nullptr) [[unlikely]]
    return AllocateAtSlow(size, id);
  return block;
}

// A block of the twin from TakeFromBin(), if the caller is a recent one for it;
// false when it is not, or there is none.
inline bool TakeOfRecent(size_t twin_offset, const void* caller, void** block) {
  const auto id = reinterpret_cast<uintptr_t>(caller);
  SiteCache& cache = thread_cache.site_cache();
  const SiteCache::Recent& recent = cache.RecentAt(twin_offset, id);
  if (recent.caller != id) [[unlikely]]
    return false;
  *block = TakeFromBin(recent.bin, cache.SlotOf(recent));
  if (*block == nullptr) [[unlikely]]
    return false;
  // As in ThreadCache::PopCounted().
  asm("" : "+r"(*block));
  return true;
}

// The same for a block of at most kMaxTinySize bytes.
inline bool TakeByRecent(size_t size, const void* caller, void** block) {
  return TakeOfRecent(kTwinOffsets[(size + 7) >> 3], caller, block);
}

// A block of at most kMaxTinySize bytes for the site of `caller`, which is not
// a recent one, or null when the slow path has to be taken.
void* AllocateTinyByCaller(size_t size, const void* caller);

// The same for a site. Null also when `site` is none.
inline void* AllocateTiny(size_t size, uint32_t site) {
  SiteSlot* const slot = thread_cache.site_cache().SlotOfKey(SiteCache::KeyOfId(
      site * sizeof(ObservedSite), kTwinOffsets[(size + 7) >> 3]));
  return slot->tag == site ? TakeFrom(slot) : nullptr;
}

// TakeByRecent() for a size above kMaxTinySize and to kMaxL2Size.
inline bool TakeMediumByRecent(size_t size, const void* caller, void** block) {
  return TakeOfRecent((L2SizeToClass(size) + kTwinDistance) * sizeof(SiteSlot),
                      caller, block);
}

// A block of a class above kMaxTinySize bytes for the site that the plain
// allocation of `caller` belongs to, or null when the slow path has to be
// taken: that of AllocateTracked(), if there is a site.
void* AllocateMarkedPooled(SizeClass size_class, const void* caller);

// Puts a free block of the slot's pair into it; false when it is full.
inline bool PutInto(SiteSlot* slot, void* block) {
  void** const top = slot->top;
  if (top == slot->limit) [[unlikely]]
    return false;
  *top = block;
  // As in ThreadCache::Push().
  __builtin_prefetch(block, 1);
  std::atomic_thread_fence(std::memory_order_release);
  slot->top = top + 1;
  return true;
}

// Takes back a block of an owner, if this thread has the owner's slot and there
// is room. False, and nothing done, for any other pointer. The owner map has
// all that it takes: neither the block's class nor its tag is looked at.
inline bool FreeOwned(void* block) {
  const ArenaView& view = thread_cache.view();
  const uintptr_t eighth = view.EighthOf(block);
  if (eighth >= view.eighths) [[unlikely]]
    return false;
  const uint32_t key = view.owner_map[ArenaView::GranuleOfEighth(eighth)].load(
      std::memory_order_relaxed);
  SiteSlot* const slot = thread_cache.site_cache().SlotOfKey(key);
  if (slot->key != key) [[unlikely]]
    return false;
  return PutInto(slot, block);
}

// Takes back a tracked block without a birth, of an owner or of at most
// kMaxTinySize bytes, for which this thread has a slot with room; `value` is
// the class map's. False, and nothing done, for any other pointer. Inline at
// any rate: frees that a bin has no room for come here first.
[[gnu::always_inline]] inline bool FreeTiny(void* block, size_t value) {
  const auto door = static_cast<uint32_t>(value - kFirstDoor);
  if (door >= kTwinDistance) [[unlikely]]
    return false;
  const ArenaView& view = thread_cache.view();
  const uintptr_t eighth = view.EighthOf(block);
  const size_t granule = ArenaView::GranuleOfEighth(eighth);
  const SiteCache& cache = thread_cache.site_cache();
  const uint32_t key = view.owner_map[granule].load(std::memory_order_relaxed);
  if (SiteSlot* const slot = cache.SlotOfKey(key); slot->key == key) {
    return PutInto(slot, block);
  }
  if (door >= kLastTinyClass) [[unlikely]]
    return false;
  const SizeClass twin = door + kFirstTwin;
  // Slabs of these sizes are one granule.
  auto* const slab = static_cast<Slab*>(arena.SpanOfLiveGranule(granule));
  const uint32_t index = BlockIndex(twin, (eighth << 3) & (kGranuleSize - 1));
  const Tag tag = slab->TagOf(twin, index).load(std::memory_order_relaxed);
  SiteSlot* const slot = cache.SlotAt(SiteOf(tag), twin);
  return slot->loose == tag && PutInto(slot, block);
}

constexpr bool TinySlabsAreGranules() {
  for (SizeClass c = 1; c <= kLastTinyClass; ++c) {
    if (SlabGranules(c) != 1) return false;
  }
  return true;
}
static_assert(TinySlabsAreGranules());

// hak_free_at().
inline void FreeAt(void* block) {
  if (thread_cache.Push(block)) return;
  if (!FreeOwned(block)) [[unlikely]]
    FreeAtSlow(block);
}

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_TRACKED_H_
