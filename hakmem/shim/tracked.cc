#include "hakmem/shim/tracked.h"

#include <algorithm>
#include <utility>

#include "hakmem/core/report.h"
#include "hakmem/shim/heap.h"
#include "hakmem/shim/profile_output.h"
#include "hakmem/shim/stage.h"

namespace hakmem::heap {
namespace {

// The tag of a block of a twin; ends the program when none begins there.
std::atomic<Tag>& TagOf(const void* block, SizeClass twin) {
  auto* const slab = static_cast<Slab*>(arena.SpanOfLive(block));
  return slab->TagOf(twin, slab->IndexOf(twin, block));
}

// Calls fn(pool) for the pool of a twin that may have owners.
template <typename Fn>
auto WithPoolOf(SizeClass twin, Fn fn) {
  return PlainOf(twin) <= kLastTinyClass ? fn(tiny_pool) : fn(l2_pool);
}

// Takes free blocks of one owner: to its depot, or else to its slabs.
void ToOwner(SizeClass twin, void* const* blocks, uint32_t count) {
  const auto* const slab = static_cast<Slab*>(arena.SpanOfLive(blocks[0]));
  if (WithPoolOf(twin, [=](auto& pool) {
        return pool.StoreOwned(thread_cache, slab->owner, twin, blocks, count);
      })) {
    return;
  }
  BackendOf(twin).FreeBatch(twin, blocks, count);
}

// Takes free blocks of a twin, which have the tag of one site.
void ToHeap(SizeClass twin, void* const* blocks, uint32_t count) {
  // Mostly all of them are an owner's, or none.
  if (std::all_of(blocks, blocks + count, [](const void* block) {
        return arena.OwnerOf(block) != 0;
      })) {
    return ToOwner(twin, blocks, count);
  }
  void* owned[SiteSlot::kBlocks];
  uint32_t owned_count = 0;
  for (uint32_t i = 0; i < count; ++i) {
    void* const block = blocks[i];
    if (arena.OwnerOf(block) != 0) {
      owned[owned_count++] = block;
      continue;
    }
    TagOf(block, twin).store(kNoTag, std::memory_order_relaxed);
    if (!thread_cache.is_active()) {
      // The background thread, which is to have no bins.
      BackendOf(twin).Free(twin, block);
    } else if (!thread_cache.Push(twin, block)) {
      FreeToPool(twin, block);
    }
  }
  if (owned_count != 0) ToOwner(twin, owned, owned_count);
}

// The slot of a pair that is not there, made; null where this thread has none.
// Samples have none: each stands for many blocks, and a profile is written from
// the cells alone.
[[gnu::noinline]] SiteSlot* MakeSlotFor(uint32_t* site, SizeClass twin) {
  if (IsStack(*site)) return nullptr;
  const ErrnoKeeper keeper;
  return thread_cache.site_cache().Load(site, twin, thread_cache.MayKeep(),
                                        &ToHeap);
}

// The slot of a pair, made if need be, or null.
SiteSlot* SlotFor(uint32_t* site, SizeClass twin) {
  SiteSlot* const slot = thread_cache.site_cache().SlotAt(*site, twin);
  return slot->tag == *site ? slot : MakeSlotFor(site, twin);
}

// The same, closed.
SiteSlot* ClosedSlotFor(uint32_t* site, SizeClass twin) {
  SiteSlot* const slot = SlotFor(site, twin);
  if (slot != nullptr) thread_cache.site_cache().Close(*slot);
  return slot;
}

// A slot's most blocks, by number and by bytes: none where the pool is to have
// no caches: as many bytes as the two magazines of a bin. Begins with one, and
// doubles as it is used up or filled, within what caches may hold. With half of
// this, larson with 2-32 KiB for callers on four threads took 1.1 times as
// long, and as long larson on 16 threads.
constexpr size_t kMostSlotBytes = 128 << 10;
constexpr size_t kMostL2SlotBytes = 512 << 10;

bool IsTiny(SizeClass twin) { return PlainOf(twin) <= kLastTinyClass; }

// Whether a pair of this twin may be an owner.
bool MayBeOwner(SizeClass twin) {
  return PlainOf(twin) <= kLastL2Class &&
         WithPoolOf(twin, [](auto& pool) { return pool.kCached; });
}

// Whether a slot has room. Of what is not of Tiny's sizes an owner's has, where
// the blocks are many; what others have is left to the twins' bins.
bool MayHold(const SiteSlot* slot) {
  return MayBeOwner(slot->twin) &&
         (IsTiny(slot->twin) || slot->loose == SiteSlot::kNoLoose);
}

uint32_t MostBlocks(SizeClass twin) {
  return std::min<uint32_t>(
      SiteSlot::kBlocks,
      static_cast<uint32_t>((IsTiny(twin) ? kMostSlotBytes : kMostL2SlotBytes) /
                            ClassSize(twin)));
}

// Whether the thread has lately only freed blocks of the pair, as when it took
// them over from another: what such a slot holds nobody here wants. Where it
// kept as much as others, larson for callers on 16 threads, each of which frees
// 5000 blocks that the main thread has allocated, had 92 MiB at its peak
// instead of 83.
bool OnlyFrees(const SiteSlot* slot) { return slot->left == SiteSlot::kPeriod; }

void GrowSlot(SiteSlot* slot) {
  constexpr uint32_t kShareOfFrees = 2;
  const uint32_t capacity = slot->capacity();
  const uint32_t most = MostBlocks(slot->twin);
  const uint32_t grown =
      std::min(2 * capacity + 1, OnlyFrees(slot) ? most / kShareOfFrees : most);
  if (grown > capacity) slot->Grow(grown);
}

// A pair is busy once it has this much live, half a slab, or has had so many
// allocations: of those that count as busy by these alone there may be a few,
// since a slab of each may have no more than a page or two in use.
constexpr uint64_t BusyBytes(SizeClass twin) {
  return SlabGranules(twin) * kGranuleSize / 2;
}
constexpr uint64_t kBusyAllocs = 16384;
constexpr uint32_t kMostBusyByAllocs = 64;

bool IsBusy(const SiteSlot* slot) {
  const ObservedCell& cell = SiteTable::Cell(slot->cell);
  const uint64_t allocs = cell.allocs.load(std::memory_order_relaxed);
  const auto live = static_cast<int64_t>(
                        allocs - cell.frees.load(std::memory_order_relaxed)) +
                    thread_cache.site_cache().LiveOf(*slot) - slot->flushed;
  if (live * static_cast<int64_t>(ClassSize(slot->twin)) >=
      static_cast<int64_t>(BusyBytes(slot->twin))) {
    return true;
  }
  static constinit std::atomic<uint32_t> busy_by_allocs{0};
  return allocs >= kBusyAllocs &&
         busy_by_allocs.load(std::memory_order_relaxed) < kMostBusyByAllocs &&
         busy_by_allocs.fetch_add(1, std::memory_order_relaxed) <
             kMostBusyByAllocs;
}

// The number of the pair as an owner; 0 while it is none. What an owner has
// beside the blocks of its slabs, from before it was one and of the slow path,
// does not come into its slot any more: it goes back to the twin's bin once it
// is free.
uint32_t OwnerOf(SiteSlot* slot) {
  const uint32_t owner =
      SiteTable::Cell(slot->cell).owner.load(std::memory_order_acquire);
  if (owner != 0) slot->loose = SiteSlot::kNoLoose;
  return owner;
}

// An owner gets a bin of its own after so many allocations, twice as many for
// each few bins that are given away: those that are left are for what turns out
// to be busy later.
constexpr uint64_t kOwnBinAllocs = 4096;
constexpr uint32_t kOwnBinsToDouble = 9;

// Whether an owner without a bin of its own is to have one.
bool IsWorthOwnBin(const SiteSlot* slot) {
  const uint32_t given = arena.own_bins();
  return given != kMostOwnBins &&
         SiteTable::Cell(slot->cell).allocs.load(std::memory_order_relaxed) >=
             kOwnBinAllocs << given / kOwnBinsToDouble;
}

// Makes the pair an owner if it is busy, and an owner one with a bin of its own
// if it is very busy. This comes to a lock, and who waits for that may
// allocate: the slot may be another pair's after it.
void LookForOwner(SiteSlot* slot) {
  const SizeClass twin = slot->twin;
  if (const uint32_t owner = OwnerOf(slot); owner != 0) {
    if (LockedPool::OwnBinOf(owner) == 0 && IsWorthOwnBin(slot)) {
      BackendOf(twin).GiveOwnBin(owner);
    }
  } else if (IsBusy(slot)) {
    BackendOf(twin).MakeOwner(twin, slot->key, slot->tag,
                              SiteTable::Cell(slot->cell).owner);
  }
}

// True where that made it flush.
bool CountAlloc(SiteSlot* slot) {
  const bool flush = slot->left <= 1;
  if (flush) {
    slot->left = std::max(slot->left, 1u);
    thread_cache.site_cache().Flush(*slot);
  }
  --slot->left;
  return flush;
}

// Fills the slot up to its half with more that are there.
void FillSlot(SiteSlot* slot) {
  const SizeClass twin = slot->twin;
  void** const half = slot->blocks + slot->capacity() / 2;
  while (slot->top < half) {
    void* const more = thread_cache.Pop(twin);
    if (more == nullptr) break;
    Slab::TagOfKnown(more, twin).store(slot->tag, std::memory_order_relaxed);
    ++slot->given;
    *slot->top++ = more;
  }
}

// Fills an empty slot from the owner's depot, or else up to its half from the
// owner's slabs. This comes to a lock, and who waits for that may allocate: the
// slot is looked up anew after it, and closed again.
SiteSlot* FillFromOwner(SiteSlot* slot, uint32_t site, uint32_t owner) {
  if (slot->held() != 0) return slot;
  const SizeClass twin = slot->twin;
  Magazine* const full =
      WithPoolOf(twin, [=](auto& pool) { return pool.LoadOwned(owner); });
  if (full != nullptr) {
    Magazine* const empty = slot->Exchange(full);
    if (empty != nullptr) thread_cache.PutMagazine(empty);
    return slot;
  }
  const uint32_t capacity = slot->capacity();
  if (capacity == 0) return slot;
  void* blocks[SiteSlot::kBlocks];
  const uint32_t count =
      BackendOf(twin).AllocateOwned(owner, blocks, capacity - capacity / 2);
  slot = ClosedSlotFor(&site, twin);
  uint32_t put = 0;
  if (slot != nullptr) {
    for (; put < count && slot->top != slot->limit; ++put) {
      ++slot->given;
      *slot->top++ = blocks[put];
    }
  }
  if (put != count) {
    BackendOf(twin).FreeBatch(twin, blocks + put, count - put);
  }
  return slot;
}

// Hands a block of the twin's bin out for the site, and fills the site's slot.
void TrackBlock(void* block, SizeClass twin, uint32_t site) {
  tag_clock.Advance();
  SiteSlot* slot = SlotFor(&site, twin);
  if (slot == nullptr) {
    AddToCell(SiteTable::Cell(site_table.CellOf(&site, PlainOf(twin))), 1, 0);
  } else {
    CountAlloc(slot);
    ++slot->given;
  }
  TagOf(block, twin).store(site | tag_clock.now(), std::memory_order_relaxed);
  if (slot == nullptr) return;
  if (!MayBeOwner(twin)) return thread_cache.site_cache().LookAfter(slot);
  thread_cache.site_cache().Close(*slot);
  if (const uint32_t owner = OwnerOf(slot); owner != 0) {
    GrowSlot(slot);
    slot = FillFromOwner(slot, site, owner);
    if (slot != nullptr) thread_cache.site_cache().Open(slot);
  } else {
    if (IsTiny(twin)) {
      GrowSlot(slot);
      FillSlot(slot);
    }
    LookForOwner(slot);
    slot = SlotFor(&site, twin);
  }
  if (slot != nullptr) thread_cache.site_cache().LookAfter(slot);
}

// A block of the twin's bin for the site of a slot that has no room. Null when
// the bin is empty or the slot is to be flushed.
void* AllocateFromBin(SiteSlot* slot) {
  if (slot->left <= 1) return nullptr;
  const SizeClass twin = slot->twin;
  void* block = thread_cache.Pop(twin);
  if (block == nullptr) block = thread_cache.SwapAndPop(twin);
  if (block == nullptr) return nullptr;
  tag_clock.Advance();
  Slab::TagOfKnown(block, twin)
      .store(slot->tag | tag_clock.now(), std::memory_order_relaxed);
  ++slot->given;
  --slot->left;
  thread_cache.site_cache().LookAfter(slot);
  return block;
}

// A block for the pair of an empty slot that is closed, if it is an owner,
// which fills the slot with more. Null at every eighth time or so: the next is
// one with a date then. Their ages are a sample in any case, and they cost more
// than all others.
void* AllocateOwned(SiteSlot* slot) {
  constexpr uint32_t kShareWithDate = 8;
  const uint32_t owner = OwnerOf(slot);
  if (owner == 0 || slot->left / 64 % kShareWithDate == 0) return nullptr;
  const ErrnoKeeper keeper;
  tag_clock.Advance();
  if (LockedPool::OwnBinOf(owner) == 0 && IsWorthOwnBin(slot)) {
    uint32_t site = slot->tag;
    const SizeClass twin = slot->twin;
    BackendOf(twin).GiveOwnBin(owner);
    slot = ClosedSlotFor(&site, twin);
    if (slot == nullptr || slot->tag != site) return nullptr;
  }
  GrowSlot(slot);
  slot = FillFromOwner(slot, slot->tag, owner);
  if (slot == nullptr) return nullptr;
  if (slot->capacity() == 0) return AllocateFromBin(slot);
  if (slot->top == slot->blocks) return nullptr;
  CountAlloc(slot);
  void* const block = *--slot->top;
  thread_cache.site_cache().Open(slot);
  thread_cache.site_cache().LookAfter(slot);
  return block;
}

// The same for any slot that has room and is empty, and has not to be flushed.
[[gnu::noinline]] void* Refill(SiteSlot* slot) {
  thread_cache.site_cache().Close(*slot);
  return AllocateOwned(slot);
}

// For the block of a sample that is freed.
void CountFreedSample(uint32_t site, SizeClass size_class) {
  sample_rates.CountFreed(SiteTable::StackCaller(site), size_class);
}

// Counts that a block with this tag is gone; it is the caller's then.
void UntrackBlock(SizeClass twin, Tag tag) {
  tag_clock.Advance();
  uint32_t site = SiteOf(tag);
  SiteSlot* const slot = SlotFor(&site, twin);
  if (slot == nullptr) {
    const ErrnoKeeper keeper;
    if (IsStack(site)) CountFreedSample(site, PlainOf(twin));
    AddAge(tag);
    AddToCell(SiteTable::Cell(site_table.CellOf(&site, PlainOf(twin))), 0, 1);
  } else {
    slot->AddAge(tag);
    --slot->given;
    thread_cache.site_cache().LookAfter(slot);
  }
}

// Makes room in a full slot: gives the half of its blocks that have been there
// longest to the owner's depot or the twin's bin; all where none is wanted.
void SpillSlot(SiteSlot* slot) {
  const int32_t count =
      OnlyFrees(slot) ? slot->held() : slot->held() - slot->held() / 2;
  const SizeClass twin = slot->twin;
  void* blocks[SiteSlot::kBlocks];
  std::copy_n(slot->blocks, count, blocks);
  // While they move, a fork is to see none of them rather than one twice.
  void** const top = std::exchange(slot->top, slot->blocks);
  std::atomic_thread_fence(std::memory_order_release);
  std::copy(slot->blocks + count, top, slot->blocks);
  std::atomic_thread_fence(std::memory_order_release);
  slot->top = top - count;
  slot->given -= count;
  // May come to a lock, and who waits for that may allocate, and come to this
  // slot: it is as it should be.
  ToHeap(twin, blocks, static_cast<uint32_t>(count));
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
    const Options& options = arena.options();
    const uint64_t interval = SampleInterval(options);
    if (options.sites == kSitesByCaller) {
      thread_cache.SetMark(ThreadCache::kByCaller);
    } else if (interval != 0) {
      // Threads in the order in which they come here have the same samples
      // every time.
      static constinit std::atomic<uint64_t> threads{0};
      thread_cache.sampler().Start(
          interval, options.sample_bytes == 0 ? &sample_rates : nullptr,
          threads.fetch_add(1, std::memory_order_relaxed),
          ThreadCache::MayDivide());
      thread_cache.SetMark(ThreadCache::kBySample);
    } else {
      thread_cache.SetMark(ThreadCache::kNotMarked);
    }
  }
  return thread_cache.mark();
}

uint32_t MarkedSite(const void* caller) {
  const uint32_t mark = Mark();
  if (mark == ThreadCache::kNotMarked || mark == ThreadCache::kBySample) {
    return kNoSite;
  }
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
    SiteSlot* const slot = thread_cache.site_cache().SlotAt(site, twin);
    if (slot->tag == site) {
      if (!MayHold(slot)) {
        if (void* const block = AllocateFromBin(slot)) return block;
      } else {
        if (slot->left > 1) {
          if (void* const block = TakeFrom(slot)) return block;
        }
        thread_cache.site_cache().Close(*slot);
        if (slot->top != slot->blocks) {
          CountAlloc(slot);
          void* const block = *--slot->top;
          thread_cache.site_cache().Open(slot);
          LookForOwner(slot);
          return block;
        }
        if (void* const block = AllocateOwned(slot)) return block;
      }
    }
    // A sample is one block of its size among thousands, and not worth a bin of
    // a thread's own.
    const bool is_sample = IsStack(site);
    const auto allocate = [=] {
      if (!is_sample) return AllocateFromClass(twin, zeroed);
      const ErrnoKeeper keeper;
      return BackendOf(twin).Allocate(twin, zeroed);
    };
    void* block = allocate();
    if (block == nullptr) {
      const ErrnoKeeper keeper;
      Reclaim();
      block = allocate();
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

[[gnu::noinline]] void FreeAtSlow(void* block) {
  if (!FreeTiny(block, thread_cache.view().ClassOf(block))) Free(block);
}

void* AllocateTinyByCaller(size_t size, const void* caller) {
  SiteCache& cache = thread_cache.site_cache();
  const auto id = reinterpret_cast<uintptr_t>(caller);
  const SiteCache::LastId* const last = cache.LastCaller(id);
  if (last == nullptr) [[unlikely]]
    return nullptr;
  const uint32_t key = last->key + kTwinOffsets[(size + 7) >> 3];
  SiteSlot* const slot = cache.SlotOfKey(key);
  if (slot->key != key || slot->left <= 1) [[unlikely]]
    return nullptr;
  if (slot->bin != 0) cache.Remember(slot, id);
  void* const block = TakeFrom(slot);
  return block != nullptr ? block : Refill(slot);
}

void* AllocateMarkedPooled(SizeClass size_class, const void* caller) {
  SiteCache& cache = thread_cache.site_cache();
  uint32_t site = thread_cache.mark();
  const bool by_caller = site == ThreadCache::kByCaller;
  const auto id = reinterpret_cast<uintptr_t>(caller);
  if (by_caller) {
    const SiteCache::LastId* const last = cache.LastCaller(id);
    if (last == nullptr) return nullptr;
    site = last->site;
  }
  SiteSlot* const slot = cache.SlotAt(site, TwinOf(size_class));
  if (slot->tag != site || slot->left <= 1) return nullptr;
  if (by_caller && slot->bin != 0) cache.Remember(slot, id);
  if (void* const block = TakeFrom(slot)) return block;
  return MayHold(slot) ? Refill(slot) : AllocateFromBin(slot);
}

[[gnu::noinline]] void FreeTwinSlow(void* block, SizeClass twin) {
  std::atomic<Tag>& tag = TagOf(block, twin);
  const Tag was = tag.load(std::memory_order_relaxed);
  uint32_t site = SiteOf(was);
  const bool is_owned = arena.OwnerOf(block) != 0;
  // That of an owner says nothing of the block. Where a thread has its slot and
  // that is full, the slab will see it.
  if (was == kNoTag ||
      (is_owned && thread_cache.site_cache().SlotAt(site, twin)->tag != site &&
       BackendOf(twin).IsFree(twin, block))) {
    Die("double free of the block", block);
  }
  // Beside the program, which may free a block once, there is the sweep alone,
  // which changes no tag but the one that it has seen.
  if (!is_owned) tag.store(kNoTag, std::memory_order_relaxed);
  if (!IsTiny(twin) && !is_owned) {
    UntrackBlock(twin, was);
    if (thread_cache.Push(twin, block)) return;
    const ErrnoKeeper keeper;
    if (IsStack(site)) {
      BackendOf(twin).Free(twin, block);
    } else {
      FreeToPool(twin, block);
    }
    return;
  }
  const ErrnoKeeper keeper;
  SiteSlot* slot = MayBeOwner(twin) ? SlotFor(&site, twin) : nullptr;
  if (slot != nullptr && (OwnerOf(slot) != 0) == is_owned) {
    thread_cache.site_cache().Close(*slot);
    if (slot->top == slot->limit) {
      GrowSlot(slot);
      if (slot->top == slot->limit && slot->top != slot->blocks) {
        SpillSlot(slot);
        slot = ClosedSlotFor(&site, twin);
      }
    }
    if (slot != nullptr && slot->top != slot->limit) {
      tag_clock.Advance();
      slot->AddAge(was);
      if (!is_owned) tag.store(slot->tag, std::memory_order_relaxed);
      *slot->top = block;
      std::atomic_thread_fence(std::memory_order_release);
      ++slot->top;
      thread_cache.site_cache().Open(slot);
      thread_cache.site_cache().LookAfter(slot);
      return;
    }
  }
  UntrackBlock(twin, was);
  if (IsStack(SiteOf(was)) || is_owned) {
    BackendOf(twin).Free(twin, block);
  } else {
    ToHeap(twin, &block, 1);
  }
}

namespace {

// Counts that a large block with a tag is its site's no more, or no longer one
// of this size.
void UntrackLarge(FreedLarge freed) {
  tag_clock.Advance();
  uint32_t site = SiteOf(freed.tag);
  const uint32_t cell = site_table.CellOf(&site, LargeSizeClass(freed.bytes));
  AddLargeFree(SiteTable::Cell(cell), freed.bytes);
  AddAge(freed.tag);
}

}  // namespace

void CountLargeFree(FreedLarge freed) {
  if (freed.tag == kNoTag) return;
  const uint32_t site = SiteOf(freed.tag);
  if (IsStack(site)) CountFreedSample(site, kNoClass);
  UntrackLarge(freed);
}

void CountLargeResize(void* block, size_t old_bytes) {
  const Tag tag = LargeTag(block);
  const size_t bytes = LargeSize(block);
  if (tag == kNoTag || bytes == old_bytes) return;
  UntrackLarge({old_bytes, tag});
  TrackLarge(block, bytes, SiteOf(tag));
}

uint32_t SiteOfBlock(const void* block) {
  const SizeClass size_class = arena.ClassOf(block);
  if (size_class == kNoClass) {
    const Tag tag = LargeTag(block);
    return tag == kNoTag ? kNoSite : SiteOf(tag);
  }
  if (!IsTwin(size_class)) return kNoSite;
  // kNoTag's is kNoSite.
  return SiteOf(TagOf(block, size_class).load(std::memory_order_relaxed));
}
static_assert(SiteOf(kNoTag) == kNoSite);

bool IsStack(uint32_t site) {
  return site != kNoSite && SiteTable::Record(site).kind.load(
                                std::memory_order_relaxed) == SiteKind::kStack;
}

bool MayMoveToSite(const void* block, uint32_t site) {
  return SiteOfBlock(block) == site || arena.OwnerOf(block) == 0;
}

void MoveToSite(void* block, uint32_t site) {
  if (SiteOfBlock(block) == site) return;
  const SizeClass size_class = arena.ClassOf(block);
  if (size_class == kNoClass) {
    const size_t bytes = LargeSize(block);
    CountLargeFree({bytes, LargeTag(block)});
    TrackLarge(block, bytes, site);
  } else {
    UntrackBlock(size_class,
                 TagOf(block, size_class).load(std::memory_order_relaxed));
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
