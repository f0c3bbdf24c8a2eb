#include "hakmem/core/locked_pool.h"

#include <cstddef>
#include <new>
#include <utility>

#include "absl/base/attributes.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/demand.h"
#include "hakmem/core/os.h"
#include "hakmem/core/report.h"

namespace hakmem {
namespace {

constexpr uint8_t kUnlisted = 0xff;

void Link(Slab*& head, Slab* slab) {
  slab->previous = nullptr;
  slab->next = head;
  if (head != nullptr) head->previous = slab;
  head = slab;
}

void Unlink(Slab*& head, Slab* slab) {
  if (slab->previous != nullptr) {
    slab->previous->next = slab->next;
  } else {
    head = slab->next;
  }
  if (slab->next != nullptr) slab->next->previous = slab->previous;
}

// Of what is live, this part may stay with the process as free pages of slabs,
// and this part of HAKMEM_RETAIN_BYTES beside it. What other shares cost, the
// arena's constant of the name says.
constexpr size_t kRetainedShare = 128;
constexpr size_t kRetainedPart = 4;

static_assert(Demand::kLarge == kPools);

}  // namespace

constinit std::atomic<size_t> LockedPool::dirty_pages_{0};

// Slabs come and go while no lock of the pool is held. Above 32 KiB each block
// is a slab, so that threads waited for each other there: the workload
// "threads" took 1.25 times as long. In the child of a fork those are lost that
// other threads have here; as are the magazines that they have in their hands.

// Slabs for so many blocks of the class, or of the owner if it is not 0; fewer
// when memory runs out.
Slab* LockedPool::CreateSlabs(SizeClass size_class, uint32_t owner,
                              uint32_t blocks) {
  const Tag tag = owner == 0 ? kNoTag : OwnerOf(owner)->tag;
  Slab* slabs = nullptr;
  for (uint32_t made = 0; made < blocks; made += SlabBlocks(size_class)) {
    Slab* const slab = Slab::Create(size_class, owner, tag);
    if (slab == nullptr) break;
    slab->next = std::exchange(slabs, slab);
  }
  return slabs;
}

void LockedPool::DestroySlabs(Slab* slabs) {
  while (slabs != nullptr) Slab::Destroy(std::exchange(slabs, slabs->next));
}

template <typename Fn>
void LockedPool::ForEachState(Fn fn) {
  for (SizeClass i = 0; i < geometry_.bins(); ++i) {
    const SizeClass size_class = geometry_.ClassOfBin(i);
    MutexLock lock(MutexOf(size_class));
    fn(StateOf(size_class));
  }
  for (Owner* owner = owners_.load(std::memory_order_acquire); owner != nullptr;
       owner = owner->next) {
    MutexLock lock(MutexOf(owner->twin));
    fn(owner->state);
  }
}

// Pages that went are wanted back: as much as is live may stay the next time.
void LockedPool::Regret(uint32_t pages, int64_t now) {
  retention_.Regret(size_t{pages} * kRegret, arena.live_bytes() / os::kPageSize,
                    now);
}

bool LockedPool::Activate(ClassState& state, SizeClass size_class,
                          uint32_t owner, Slab** fresh) {
  // The old one has no free block left: it is in no list until one comes back.
  if (state.active != nullptr) Unlist(state.active);
  const int64_t now = os::CoarseMilliseconds();
  ClassState& of_class = StateOf(size_class);
  Show(of_class, size_class);
  arena.demand().Note(arena.decay_period(), now);
  for (Slab*& head : state.lists) {
    if (head == nullptr) continue;
    Slab* const slab = head;
    Unlink(head, slab);
    // All of its pages will be in use before it is in a list again.
    const uint32_t dirty = std::exchange(slab->dirty_pages, 0);
    CountDirty(state, slab, dirty);
    retention_.Taken(own_dirty_pages());
    if (slab->purged_pages != 0) Regret(slab->LatelyPurged(now), now);
    slab->ForgetPurged();
    slab->file_at = ActiveFileAt(slab);
    state.active = slab;
    return true;
  }
  state.active = *fresh;
  if (state.active == nullptr) return false;
  *fresh = std::exchange(state.active->next, nullptr);
  ObservedClass& counts = of_class.counts;
  if (counts.block_bytes == 0) NoteFirstSlab(size_class, of_class);
  Count(counts.slabs, 1);
  // They would still be there, had they not gone while they were in another
  // slab. Without this growing strings, which leave one class after the other
  // and come back, have 1.5 times as many page faults, and take a twentieth
  // longer.
  if (const uint32_t missed = std::exchange(state.active->purged_pages, 0);
      missed != 0) {
    Regret(missed, now);
  }
  if (owner != 0) {
    arena.SetOwner(state.active, OwnerOf(owner)->key, OwnBinOf(owner));
  }
  state.active->file_at = ActiveFileAt(state.active);
  return true;
}

// For those who look from outside.
void LockedPool::NoteFirstSlab(SizeClass size_class, ClassState& of_class) {
  HelgrindIgnore(&retention_, sizeof(retention_));
  HelgrindIgnore(&own_dirty_pages_, sizeof(own_dirty_pages_));
  HelgrindIgnore(&dirty_pages_, sizeof(dirty_pages_));
  HelgrindIgnore(&is_tidied_, sizeof(is_tidied_));
  HelgrindIgnore(&of_class.dirty_pages, sizeof(of_class.dirty_pages));
  ObservedClass& counts = of_class.counts;
  counts.slab_blocks = SlabBlocks(size_class);
  counts.block_bytes = static_cast<uint32_t>(ClassSize(size_class));
  if (shown_.exchange(true, std::memory_order_relaxed)) return;
  ObservedRegion& region = hak_observed.classes[geometry_.index];
  region.capacity = kMaxPoolBins;
  region.element_bytes = sizeof(ClassState);
  region.count.store(region.capacity, std::memory_order_relaxed);
  static_assert(offsetof(ClassState, counts) == 0);
  region.address.store(reinterpret_cast<uint64_t>(states_.data()),
                       std::memory_order_release);
}

// For a slab that is neither active nor in a list.
void LockedPool::Unlist(Slab* slab) {
  slab->bucket = kUnlisted;
  slab->file_at = 0;
}

// A class keeps its active slab when it is empty. Classes are few; owners may
// be many.
uint16_t LockedPool::ActiveFileAt(const Slab* slab) {
  return slab->owner == 0 ? UINT16_MAX : static_cast<uint16_t>(slab->blocks());
}

// Where a slab in a list is to go to the next one, or its pages are to be
// looked at. Most blocks that come back do not bring their slab there: without
// the division that File() has, a "peaks" of 8 MiB of blocks up to 1 KiB has
// 6 % fewer instructions.
void LockedPool::SetFileAt(Slab* slab) {
  const uint32_t next_bucket =
      ((slab->bucket + 1u) * slab->blocks() + kBuckets - 1) / kBuckets;
  slab->file_at =
      static_cast<uint16_t>(std::min<uint32_t>(next_bucket, slab->next_look));
}

LockedPool::Then LockedPool::File(ClassState& state, SizeClass size_class,
                                  Slab* slab) {
  if (slab->free_count == slab->blocks()) {
    if (slab->bucket != kUnlisted) Unlink(state.lists[slab->bucket], slab);
    const uint32_t dirty = std::exchange(slab->dirty_pages, 0);
    CountDirty(state, slab, dirty);
    retention_.Taken(own_dirty_pages());
    ClassState& of_class = StateOf(size_class);
    Count(of_class.counts.slabs, -1);
    Show(of_class, size_class);
    return {.empty = slab};
  }
  const auto bucket =
      static_cast<uint8_t>(slab->free_count * kBuckets / slab->blocks());
  if (bucket != slab->bucket) {
    if (slab->bucket != kUnlisted) Unlink(state.lists[slab->bucket], slab);
    slab->bucket = bucket;
    Link(state.lists[bucket], slab);
  }
  const bool look = slab->free_count >= slab->next_look;
  if (look) {
    const uint32_t before = slab->dirty_pages;
    slab->UpdatePages();
    CountDirty(state, slab, before);
    Show(StateOf(size_class), size_class);
  }
  SetFileAt(slab);
  return {.look = look};
}

// Brings the sums up to date with a slab that had `before` dirty pages.
void LockedPool::CountDirty(ClassState& state, Slab* slab, uint32_t before) {
  if (slab->dirty_pages == before) return;
  const uint32_t change = slab->dirty_pages - before;  // modulo 2^32
  state.dirty_pages.store(
      state.dirty_pages.load(std::memory_order_relaxed) + change,
      std::memory_order_relaxed);
  const auto wide = static_cast<size_t>(static_cast<int32_t>(change));
  own_dirty_pages_.fetch_add(wide, std::memory_order_relaxed);
  dirty_pages_.fetch_add(wide, std::memory_order_relaxed);
}

void LockedPool::PurgeBeyondBound() {
  if (!arena.purges()) return;
  const size_t plain = (arena.demand().bytes() / kRetainedShare +
                        arena.options().retain_bytes / kRetainedPart) /
                       os::kPageSize;
  const int64_t now = os::CoarseMilliseconds();
  retention_.Reconsider(own_dirty_pages(), arena.decay_period(), now);
  const size_t bound =
      arena.pressed()
          ? 0
          : retention_.Bound(plain, arena.Swing(now) / os::kPageSize, now);
  for (;;) {
    const size_t dirty = dirty_pages_.load(std::memory_order_relaxed);
    if (dirty <= bound || own_dirty_pages() == 0) return;
    if (is_tidied() && !arena.purges_at_once()) return;
    // Whoever has the lock looks once more when it has given it back.
    if (!purge_mu_.TryLock()) return;
    // More than needed, so that the next slab does not come here again; of a
    // peak to which the program comes back, no more than that.
    const size_t wanted = dirty - bound + std::min(bound, plain) / 2;
    const size_t purged = PurgePages(wanted);
    purge_mu_.Unlock();
    // What is left is other pools'.
    if (purged < wanted * os::kPageSize) return;
  }
}

size_t LockedPool::Decay(int64_t now) {
  if (!arena.purges() || !purge_mu_.TryLock()) return 0;
  const size_t unwanted =
      arena.Unwanted(retention_, own_dirty_pages(), false, now);
  const size_t purged = unwanted == 0 ? 0 : PurgePages(unwanted);
  purge_mu_.Unlock();
  return purged;
}

// `pages` of them or a few more, of the emptiest slabs first. Those of other
// pools stay: they are under other locks. Says how many bytes.
size_t LockedPool::PurgePages(size_t pages) {
  std::array<SizeClass, kMaxPoolBins> dirty;
  uint32_t count = 0;
  for (SizeClass i = geometry_.bins(); i-- > 0;) {
    if (HasDirty(states_[i])) dirty[count++] = i;
  }
  size_t purged = 0;
  for (uint32_t bucket = kBuckets; bucket-- > 0;) {
    for (uint32_t n = 0; n < count; ++n) {
      const SizeClass i = dirty[n];
      if (!PurgeList(states_[i], geometry_.ClassOfBin(i), bucket, pages,
                     &purged)) {
        return purged * os::kPageSize;
      }
    }
    for (Owner* owner = owners_.load(std::memory_order_acquire);
         owner != nullptr; owner = owner->next) {
      if (!PurgeList(owner->state, owner->twin, bucket, pages, &purged)) {
        return purged * os::kPageSize;
      }
    }
  }
  return purged * os::kPageSize;
}

// The part of that for one list. False when as much as `pages` has gone.
bool LockedPool::PurgeList(ClassState& state, SizeClass size_class,
                           uint32_t bucket, size_t pages, size_t* purged) {
  if (!HasDirty(state) ||
      (bucket < kFirstPurgedBucket && !Slab::HasOwnPages(size_class))) {
    return true;
  }
  MutexLock lock(MutexOf(size_class));
  for (Slab* slab = state.lists[bucket]; slab != nullptr && HasDirty(state);
       slab = slab->next) {
    if (slab->dirty_pages == 0) continue;
    if (*purged >= pages) return false;
    const uint32_t before = slab->dirty_pages;
    slab->PurgePages();
    CountDirty(state, slab, before);
    *purged += before;
  }
  return true;
}

size_t LockedPool::Purge() {
  size_t purged = 0;
  ForEachState([&](ClassState& state) {
    const auto purge = [&](Slab* slab) {
      const uint32_t before = slab->dirty_pages;
      slab->UpdatePages(1);
      purged += slab->dirty_pages * os::kPageSize;
      slab->PurgePages(1);
      return before;
    };
    for (Slab* const head : state.lists) {
      for (Slab* slab = head; slab != nullptr; slab = slab->next) {
        const uint32_t before = purge(slab);
        CountDirty(state, slab, before);
        SetFileAt(slab);
      }
    }
    // Blocks of the active one are handed out without a look at the marks.
    if (state.active != nullptr) {
      purge(state.active);
      state.active->ForgetPurged();
    }
  });
  return purged;
}

void* LockedPool::Allocate(SizeClass size_class, bool* zeroed) {
  void* block = nullptr;
  Slab* fresh = nullptr;
  do {
    {
      PlainMutexLock lock(MutexOf(size_class));
      ClassState& state = StateOf(size_class);
      if ((state.active != nullptr && state.active->free_count != 0) ||
          Activate(state, size_class, 0, &fresh)) {
        Count(state.counts.taken, 1);
        block = state.active->TakeOne(zeroed);
      }
    }
    if (block != nullptr) [[likely]]
      break;
    fresh = CreateSlabs(size_class, 0, 1);
  } while (fresh != nullptr);
  if (fresh != nullptr) [[unlikely]]
    DestroySlabs(fresh);
  return block;
}

uint32_t LockedPool::AllocateBatch(SizeClass size_class, void** out,
                                   uint32_t count) {
  return AllocateFrom(size_class, 0, out, count);
}

void LockedPool::MakeOwner(SizeClass twin, uint32_t key, Tag tag,
                           std::atomic<uint32_t>& number) {
  MutexLock lock(MutexOf(twin));
  if (number.load(std::memory_order_relaxed) != 0) return;
  constexpr size_t kBytes =
      (sizeof(Owner) + Metadata::kUnit - 1) & ~(Metadata::kUnit - 1);
  void* const memory = arena.AllocateMetadata(kBytes);
  if (memory == nullptr) return;
  Owner* const owner =
      new (memory) Owner{.state = {},
                         .depot = {},
                         .next = owners_.load(std::memory_order_relaxed),
                         .twin = twin,
                         .key = key,
                         .tag = tag,
                         .bin = 0};
  HelgrindIgnore(&owner->depot, sizeof(owner->depot));
  HelgrindIgnore(&owner->state.dirty_pages, sizeof(owner->state.dirty_pages));
  // Owners of other classes are made under other locks.
  while (!owners_.compare_exchange_weak(owner->next, owner,
                                        std::memory_order_release,
                                        std::memory_order_relaxed)) {
  }
  number.store(arena.IndexOf(memory), std::memory_order_release);
}

void LockedPool::GiveOwnBin(uint32_t owner) {
  Owner* const known = OwnerOf(owner);
  MutexLock lock(MutexOf(known->twin));
  if (known->bin.load(std::memory_order_relaxed) != 0) return;
  known->bin.store(arena.GiveOwnBin(known->key, known->twin),
                   std::memory_order_release);
}

uint32_t LockedPool::AllocateOwned(uint32_t owner, void** out, uint32_t count) {
  return AllocateFrom(OwnerOf(owner)->twin, owner, out, count);
}

uint32_t LockedPool::AllocateFrom(SizeClass size_class, uint32_t owner,
                                  void** out, uint32_t count) {
  Slab* fresh = nullptr;
  uint32_t left = count;
  for (;;) {
    {
      MutexLock lock(MutexOf(size_class));
      ClassState& of_class = StateOf(size_class);
      ClassState& state = owner == 0 ? of_class : OwnerOf(owner)->state;
      const uint32_t before = left;
      while (left != 0) {
        if (state.active == nullptr || state.active->free_count == 0) {
          if (!Activate(state, size_class, owner, &fresh)) break;
        }
        left -= state.active->Take(out, left);
      }
      Count(of_class.counts.taken, before - left);
      Show(of_class, size_class);
    }
    if (left == 0) break;
    fresh = CreateSlabs(size_class, owner, left);
    if (fresh == nullptr) break;
  }
  // Others have freed blocks meanwhile.
  DestroySlabs(fresh);
  // Blocks were written from the end: close the gap that memory left.
  if (left != 0) {
    for (uint32_t i = left; i < count; ++i) out[i - left] = out[i];
  }
  return count - left;
}

// Inline, so that FreeBatch() has what its blocks have in common in registers.
ABSL_ATTRIBUTE_ALWAYS_INLINE inline LockedPool::Then LockedPool::FreeLocked(
    ClassState& of_class, SizeClass size_class, void* block) {
  auto* const slab = static_cast<Slab*>(arena.SpanOf(block));
  if (slab == nullptr || slab->size_class != size_class) [[unlikely]] {
    // Its slab went away after the class map was read: it had no live block.
    Die("double free of the block", block);
  }
  slab->Put(size_class, block);
  if (slab->free_count < slab->file_at) [[likely]]
    return {};
  return FileFreed(of_class, size_class, slab);
}

LockedPool::Then LockedPool::FileFreed(ClassState& of_class,
                                       SizeClass size_class, Slab* slab) {
  if (slab->owner == 0) return File(of_class, size_class, slab);
  ClassState& state = OwnerOf(slab->owner)->state;
  if (slab == state.active) {
    state.active = nullptr;
    Unlist(slab);
  }
  return File(state, size_class, slab);
}

void LockedPool::Free(SizeClass size_class, void* block) {
  Then then;
  {
    // While the lock is taken nothing is read: this took P0 from 0.845 to 0.855
    // of the speed without locks (larson, one thread).
    __builtin_prefetch(arena.SpanOf(block));
    PlainMutexLock lock(MutexOf(size_class));
    ClassState& state = StateOf(size_class);
    Count(state.counts.taken, -1);
    then = FreeLocked(state, size_class, block);
  }
  if (then.empty != nullptr) [[unlikely]]
    Slab::Destroy(then.empty);
  if (then.look) [[unlikely]]
    PurgeBeyondBound();
}

void LockedPool::FreeBatch(SizeClass size_class, void* const* blocks,
                           uint32_t count) {
  bool look = false;
  Slab* empty = nullptr;
  {
    MutexLock lock(MutexOf(size_class));
    ClassState& state = StateOf(size_class);
    Count(state.counts.taken, -int64_t{count});
    Show(state, size_class);
    for (uint32_t i = 0; i < count; ++i) {
      const Then then = FreeLocked(state, size_class, blocks[i]);
      look |= then.look;
      if (then.empty != nullptr)
        then.empty->next = std::exchange(empty, then.empty);
    }
  }
  DestroySlabs(empty);
  if (look) PurgeBeyondBound();
}

LockedPool::Usage LockedPool::GetUsage() {
  Usage usage = {};
  for (SizeClass i = 0; i < geometry_.bins(); ++i) {
    const SizeClass size_class = geometry_.ClassOfBin(i);
    MutexLock lock(MutexOf(size_class));
    const ObservedClass& counts = StateOf(size_class).counts;
    const size_t slabs = counts.slabs.load(std::memory_order_relaxed);
    const size_t taken = counts.taken.load(std::memory_order_relaxed);
    const size_t blocks = slabs * SlabBlocks(size_class);
    usage.slab_bytes += slabs * SlabGranules(size_class) * kGranuleSize;
    usage.free_bytes += (blocks - taken) * ClassSize(size_class);
    usage.taken_bytes += taken * ClassSize(size_class);
  }
  return usage;
}

bool LockedPool::IsFree(SizeClass size_class, const void* block) {
  MutexLock lock(MutexOf(size_class));
  const auto* const slab = static_cast<const Slab*>(arena.SpanOf(block));
  if (slab == nullptr || slab->size_class != size_class) return true;
  return slab->IsFree(slab->IndexOf(size_class, block));
}

size_t LockedPool::ReleaseEmptySlabs() {
  size_t released = 0;
  for (SizeClass i = 0; i < geometry_.bins(); ++i) {
    const SizeClass size_class = geometry_.ClassOfBin(i);
    MutexLock lock(MutexOf(size_class));
    ClassState& state = StateOf(size_class);
    Slab* const slab = state.active;
    if (slab == nullptr || slab->free_count != slab->blocks()) continue;
    state.active = nullptr;
    Count(state.counts.slabs, -1);
    released += slab->granules * kGranuleSize;
    Slab::Destroy(slab);
  }
  return released;
}

}  // namespace hakmem
