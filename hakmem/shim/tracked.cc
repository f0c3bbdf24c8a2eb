#include "hakmem/shim/tracked.h"

#include <cerrno>
#include <cstdlib>

#include "hakmem/core/report.h"
#include "hakmem/shim/heap.h"

namespace hakmem::heap {
namespace {

// Looks for the slot of a pair, or makes it; null where this thread has none.
SiteSlot* SlotFor(uint32_t* site, SizeClass twin) {
  SiteCache& cache = thread_cache.site_cache();
  SiteSlot* const slot = cache.Find(*site, twin);
  return slot != nullptr ? slot
                         : cache.Load(site, twin, thread_cache.MayKeep());
}

// Counts a block of a twin straight in its cell.
void CountDirectly(uint32_t* site, SizeClass twin, bool is_free, Tag tag) {
  ObservedCell& cell = SiteTable::Cell(site_table.CellOf(site, PlainOf(twin)));
  tag_clock.Advance();
  uint32_t ages[kAgeBuckets] = {};
  if (is_free) ages[AgeBucket(tag, tag_clock.now())] = 1;
  AddToCell(cell, is_free ? 0 : 1, is_free ? 1 : 0, ages);
}

void TrackBlock(void* block, SizeClass twin, uint32_t site) {
  SiteSlot* const slot = SlotFor(&site, twin);
  if (slot == nullptr) CountDirectly(&site, twin, false, kNoTag);
  tracked_internal::TagOf(block, twin)
      ->store(site | tag_clock.now(), std::memory_order_relaxed);
  SiteCache& cache = thread_cache.site_cache();
  if (slot != nullptr && cache.CountAlloc(slot, twin)) cache.LookAfter(slot);
}

// Counts that a block with this tag is gone.
void UntrackBlock(SizeClass twin, Tag tag) {
  uint32_t site = SiteOf(tag);
  SiteSlot* const slot = SlotFor(&site, twin);
  SiteCache& cache = thread_cache.site_cache();
  if (slot == nullptr) {
    CountDirectly(&site, twin, true, tag);
  } else if (cache.CountFree(slot, twin, tag)) {
    cache.LookAfter(slot);
  }
}

void TrackLarge(void* block, size_t bytes, uint32_t site) {
  tag_clock.Advance();
  const uint32_t cell = site_table.CellOf(&site, LargeSizeClass(bytes));
  SetLargeTag(block, site | tag_clock.now());
  AddLargeAlloc(SiteTable::Cell(cell), bytes);
}

}  // namespace

uint32_t SiteOfId(uintptr_t id) {
  uint32_t site;
  if (SiteTable::IsRecord(id, &site)) return site;
  return thread_cache.site_cache().Find(SiteKind::kNumber, id,
                                        thread_cache.MayKeep());
}

uint32_t Mark() {
  if (thread_cache.mark() == ThreadCache::kMarkNotKnown) {
    arena.EnsureReady();
    thread_cache.SetMark(arena.options().sites == kSitesByCaller
                             ? ThreadCache::kByCaller
                             : ThreadCache::kNotMarked);
  }
  return thread_cache.mark();
}

uint32_t MarkedSite(const void* caller) {
  const uint32_t mark = Mark();
  if (mark == ThreadCache::kNotMarked) return kNoSite;
  if (mark != ThreadCache::kByCaller) return mark;
  return thread_cache.site_cache().Find(SiteKind::kCaller,
                                        reinterpret_cast<uintptr_t>(caller),
                                        thread_cache.MayKeep());
}

void* AllocateTracked(size_t size, size_t alignment, uint32_t site,
                      bool* zeroed) {
  if (zeroed != nullptr) *zeroed = false;
  const SizeClass size_class = ClassFor(size, alignment);
  if (size_class != kNoClass) {
    const SizeClass twin = TwinOf(size_class);
    void* block = AllocateFromClass(twin);
    if (block == nullptr) {
      const ErrnoKeeper keeper;
      Reclaim();
      block = AllocateFromClass(twin);
    }
    if (block != nullptr) {
      TrackBlock(block, twin, site);
      return block;
    }
  }
  void* const block =
      AllocateLast(kNoClass, size, alignment, zeroed, site | tag_clock.now());
  if (block == nullptr) return OutOfMemory();
  TrackLarge(block, LargeSize(block), site);
  return block;
}

[[gnu::noinline]] void* AllocateAtSlow(size_t size, uintptr_t id) {
  const uint32_t site = SiteOfId(id);
  return site != kNoSite ? AllocateTracked(size, 1, site)
                         : AllocateUntracked(size, 1);
}

[[gnu::noinline]] void* AllocateAtAfter(void* block, SiteSlot* slot) {
  const ErrnoKeeper keeper;
  thread_cache.site_cache().LookAfter(slot);
  return block;
}

[[gnu::noinline]] void FreeTwinAfter(SiteSlot* slot) {
  const ErrnoKeeper keeper;
  thread_cache.site_cache().LookAfter(slot);
}

[[gnu::noinline]] void FreeTwinSlow(void* block, SizeClass twin) {
  const ErrnoKeeper keeper;
  std::atomic<Tag>* const tag = tracked_internal::TagOf(block, twin);
  if (tag == nullptr) Die("pointer into the middle of a block,", block);
  const Tag was = tag->exchange(kNoTag, std::memory_order_relaxed);
  if (was == kNoTag) Die("double free of the block", block);
  UntrackBlock(twin, was);
  if (!thread_cache.Push(twin, block)) FreeToPool(twin, block);
}

void CountLargeFree(FreedLarge freed) {
  if (freed.tag == kNoTag) return;
  tag_clock.Advance();
  uint32_t site = SiteOf(freed.tag);
  const uint32_t cell = site_table.CellOf(&site, LargeSizeClass(freed.bytes));
  AddLargeFree(SiteTable::Cell(cell), freed.bytes,
               AgeBucket(freed.tag, tag_clock.now()));
}

void CountLargeResize(void* block, size_t old_bytes) {
  const Tag tag = LargeTag(block);
  const size_t bytes = LargeSize(block);
  if (tag == kNoTag || bytes == old_bytes) return;
  CountLargeFree({old_bytes, tag});
  TrackLarge(block, bytes, SiteOf(tag));
}

uint32_t SiteOfBlock(const void* block) {
  const SizeClass size_class = arena.ClassOf(block);
  if (size_class == kNoClass) {
    const Tag tag = LargeTag(block);
    return tag == kNoTag ? kNoSite : SiteOf(tag);
  }
  if (!IsTwin(size_class)) return kNoSite;
  const std::atomic<Tag>* const tag =
      tracked_internal::TagOf(block, size_class);
  // kNoTag's is kNoSite.
  return tag == nullptr ? kNoSite
                        : SiteOf(tag->load(std::memory_order_relaxed));
}
static_assert(SiteOf(kNoTag) == kNoSite);

void MoveToSite(void* block, uint32_t site) {
  if (SiteOfBlock(block) == site) return;
  const SizeClass size_class = arena.ClassOf(block);
  if (size_class == kNoClass) {
    const size_t bytes = LargeSize(block);
    CountLargeFree({bytes, LargeTag(block)});
    TrackLarge(block, bytes, site);
  } else {
    UntrackBlock(size_class, tracked_internal::TagOf(block, size_class)
                                 ->load(std::memory_order_relaxed));
    TrackBlock(block, size_class, site);
  }
}

void CheckSite(const void* block, uintptr_t id) {
  if (block == nullptr) return;
  CheckLive(block);
  const ErrnoKeeper keeper;
  const uint32_t site = SiteOfBlock(block);
  // Where the table is full, or there is none, no id is wrong.
  if (site == kOtherSite || site == SiteOfId(id)) return;
  Die("wrong site given back with the block", block);
}

}  // namespace hakmem::heap
