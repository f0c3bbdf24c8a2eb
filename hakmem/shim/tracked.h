// Blocks that belong to a site: how they are handed out, counted and taken
// back, over the heap's pools and large blocks.
//
// A tracked block comes from the twin of its class (size_class.h). Handing one
// out is a pop from the twin's bin, a tag, and a count in a slot of this
// thread's; taking it back is the same in reverse. The fast paths stand in this
// header: whatever they do not find leads to the same call's slow path, from
// the beginning and with nothing changed.

#ifndef HAKMEM_SHIM_TRACKED_H_
#define HAKMEM_SHIM_TRACKED_H_

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
// its scope or by HAKMEM_SITES; kNoSite for none.
uint32_t MarkedSite(const void* caller);

// As AllocateAligned(), for a site. `*zeroed`, unless null, says whether the
// block reads as zero; it may do so all the same when not.
void* AllocateTracked(size_t size, size_t alignment, uint32_t site,
                      bool* zeroed = nullptr);

// The slow paths, out of line.
void* AllocateAtSlow(size_t size, uintptr_t id);
void* AllocateAtAfter(void* block, SiteSlot* slot);
void FreeTwinSlow(void* block, SizeClass twin);
void FreeTwinAfter(SiteSlot* slot);

// Counts a large block that is gone.
void CountLargeFree(FreedLarge freed);

// Counts a large block that was resized to where it is now, `block`, from
// `old_bytes`.
void CountLargeResize(void* block, size_t old_bytes);

// The site of a block that the caller has; kNoSite when it is not tracked.
uint32_t SiteOfBlock(const void* block);

// Moves a tracked block to another site; nothing else of it changes.
void MoveToSite(void* block, uint32_t site);

// Ends the program with one line on stderr unless `block` is null or belongs to
// the site that `id` names.
void CheckSite(const void* block, uintptr_t id);

namespace tracked_internal {

// The tag of a block of a twin, or null where no block of that begins.
inline std::atomic<Tag>* TagOf(const void* block, SizeClass twin) {
  auto* const slab = static_cast<Slab*>(arena.SpanOfLive(block));
  const auto offset = static_cast<size_t>(static_cast<const char*>(block) -
                                          arena.AddressOf(slab->start));
  const uint32_t index = BlockIndex(twin, offset);
  if (index * ClassSize(twin) != offset || index >= SlabBlocks(twin))
      [[unlikely]] {
    return nullptr;
  }
  return &slab->TagOf(twin, index);
}

}  // namespace tracked_internal

// hak_alloc_at().
inline void* AllocateAt(size_t size, uintptr_t id) {
  if (size > kMaxTinySize) [[unlikely]]
    return AllocateAtSlow(size, id);
  const SizeClass twin = size_class_internal::kSmallTwinTable[(size + 7) >> 3];
  uint32_t site;
  if (!SiteTable::IsRecord(id, &site)) [[unlikely]]
    return AllocateAtSlow(size, id);
  SiteCache& cache = thread_cache.site_cache();
  SiteSlot* const slot = cache.Find(site, twin);
  if (slot == nullptr) [[unlikely]]
    return AllocateAtSlow(size, id);
  void* const block = thread_cache.Pop(twin);
  if (block == nullptr) [[unlikely]]
    return AllocateAtSlow(size, id);
  auto* const slab = static_cast<Slab*>(arena.SpanOfLive(block));
  const uint32_t index =
      BlockIndex(twin, static_cast<size_t>(static_cast<const char*>(block) -
                                           arena.AddressOf(slab->start)));
  slab->TagOf(twin, index)
      .store(site | tag_clock.now(), std::memory_order_relaxed);
  if (cache.CountAlloc(slot, twin)) [[unlikely]]
    return AllocateAtAfter(block, slot);
  return block;
}

// Takes back a block of a twin.
inline void FreeTwin(void* block, SizeClass twin) {
  std::atomic<Tag>* const tag = tracked_internal::TagOf(block, twin);
  if (tag == nullptr) [[unlikely]]
    return FreeTwinSlow(block, twin);
  const Tag was = tag->load(std::memory_order_relaxed);
  SiteCache& cache = thread_cache.site_cache();
  // No slot is kNoTag's.
  SiteSlot* const slot = cache.Find(SiteOf(was), twin);
  if (slot == nullptr || !thread_cache.HasRoom(twin)) [[unlikely]]
    return FreeTwinSlow(block, twin);
  tag->store(kNoTag, std::memory_order_relaxed);
  thread_cache.Push(twin, block);
  if (cache.CountFree(slot, twin, was)) [[unlikely]]
    FreeTwinAfter(slot);
}

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_TRACKED_H_
