#include "hakmem/core/site_cache.h"

#include <algorithm>

#include "hakmem/core/arena.h"
#include "hakmem/core/cache_budget.h"
#include "hakmem/core/locked_pool.h"
#include "hakmem/core/os.h"
#include "hakmem/core/thread_cache.h"

namespace hakmem {

namespace {

// No granule's owner.
constexpr uint32_t kNoKey = ~uint32_t{0};

}  // namespace

namespace site_cache_internal {

constinit NoBlocks no_blocks = {};

constinit NoTable no_table = {.recents = {},
                              .slot = {.id = 0,
                                       .top = no_blocks.slots,
                                       .limit = no_blocks.slots,
                                       .key = kNoKey,
                                       .tag = SiteSlot::kNoLoose,
                                       .left = SiteSlot::kPeriod,
                                       .given = 0,
                                       .flushed = 0,
                                       .cell = 0,
                                       .blocks = no_blocks.slots,
                                       .twin = kNoClass,
                                       .bin = 0,
                                       .young = 0,
                                       .loose = SiteSlot::kNoLoose}};

}  // namespace site_cache_internal

namespace {

// A table grows fourfold, twice, while one slow path in four finds its slot
// taken by another pair: as seen at each 64th of those. At least 64 slots: see
// SlotAt().
constexpr uint32_t kFirstSlots = 64;
constexpr uint32_t kMostSlots = 1024;
constexpr uint32_t kMissesToGrow = 64;
constexpr uint32_t kRareMiss = 4;

constexpr uint32_t kLastIds = 256;

// What stands in front of a table has a page of its own.
constexpr size_t kRecentsPage = os::kPageSize;

char* MemoryOf(SiteSlot* slots) {
  return reinterpret_cast<char*>(slots) - kRecentsPage;
}

void UnmapTable(SiteSlot* slots, size_t bytes) {
  os::Unmap(MemoryOf(slots), kRecentsPage + bytes);
}

// What a slot may hold where caches have enough already, as the first blocks of
// a bin: so many bytes, or so many blocks; and what it may hold without its
// thread sharing the limit. Without the blocks, where large ones fill the
// caches, slots of some KiB a block had no room at all: larson with 2-32 KiB on
// four threads took 1.3 times as long, short-lived threads 1.2 times. A thread
// that starts another and waits for it has some slots of a few KiB: where it
// counted, growing strings for callers had a tenth more resident.
constexpr size_t kFirstBytes = 2 << 10;
constexpr uint32_t kFirstBlocks = 7;
constexpr size_t kMostAlone = 4 << 10;

// Where the caches have no room, a slot asks for it at one slow path in four:
// that is two locked instructions on a line that all threads share.
constexpr uint32_t kShareThatAsks = 4;

// What a slot with this much room counts for: half of it, as do the bins, of
// whose two magazines one counts.
size_t ChargeFor(SizeClass twin, uint32_t capacity) {
  return (capacity + 1) / 2 * ClassSize(twin);
}

// Null where the slot has none.
Magazine* MagazineOf(const SiteSlot& slot) {
  if (slot.blocks == site_cache_internal::no_blocks.slots) return nullptr;
  return reinterpret_cast<Magazine*>(reinterpret_cast<char*>(slot.blocks) -
                                     offsetof(Magazine, slots));
}

// Runs `change` while the slot is nobody's, for whoever looks from outside, or
// takes the slots over in the child of a fork.
template <typename Change>
void Replace(SiteSlot& slot, uintptr_t id, Change change) {
  slot.id = 0;
  std::atomic_thread_fence(std::memory_order_release);
  change();
  std::atomic_thread_fence(std::memory_order_release);
  slot.id = id;
}

void Clear(SiteSlot& slot) {
  Replace(slot, 0, [&slot] { slot = site_cache_internal::no_table.slot; });
}

}  // namespace

bool SiteSlot::Grow(uint32_t most) {
  const bool is_first =
      most <= kFirstBlocks || most * ClassSize(twin) <= kFirstBytes;
  if (!is_first && left % kShareThatAsks != 0) return false;
  if (most * ClassSize(twin) > kMostAlone) thread_cache.JoinBudget();
  const size_t bytes = ChargeFor(twin, most) - ChargeFor(twin, capacity());
  if (is_first ? !cache_budget.TakeFirst(bytes)
               : !cache_budget.TakeForThread(bytes)) {
    return false;
  }
  Magazine* const before = MagazineOf(*this);
  if (before != nullptr && most <= before->capacity()) {
    limit = blocks + most;
    return true;
  }
  Magazine* const larger = magazine_store.Get(MagazineFamilyFor(most));
  if (larger == nullptr) {
    cache_budget.Return(bytes);
    return false;
  }
  Replace(*this, id, [=, this] {
    top = std::copy(blocks, top, larger->slots);
    blocks = larger->slots;
    limit = blocks + most;
  });
  if (before != nullptr) magazine_store.Put(before);
  return true;
}

Magazine* SiteSlot::Exchange(Magazine* full) {
  const uint32_t count = full->count;
  const uint32_t before = capacity();
  const uint32_t room = std::max(count, before);
  const size_t bytes = count * ClassSize(twin);
  if (room * ClassSize(twin) > kMostAlone) thread_cache.JoinBudget();
  given += static_cast<int32_t>(count);
  if (full->capacity() < room) {
    std::copy_n(full->slots, count, blocks);
    std::atomic_thread_fence(std::memory_order_release);
    top = blocks + count;
    cache_budget.Return(bytes);
    return full;
  }
  Magazine* const empty = MagazineOf(*this);
  Replace(*this, id, [=, this] {
    blocks = full->slots;
    top = blocks + count;
    limit = blocks + room;
  });
  cache_budget.Return(bytes -
                      (ChargeFor(twin, room) - ChargeFor(twin, before)));
  return empty;
}

// What others read meanwhile may be between two steps; TSan is not to look.
ABSL_ATTRIBUTE_NO_SANITIZE_THREAD SiteCache::Counted SiteCache::Read(
    const SiteSlot& shared) const {
  const volatile SiteSlot& slot = shared;
  if (slot.id == 0)
    return {.site = kNoSite,
            .cell = 0,
            .allocs = 0,
            .young = 0,
            .frees = 0,
            .held = 0};
  const uint32_t allocs = SiteSlot::kPeriod - slot.left;
  const uint8_t bin = slot.bin;
  void** const top = bin != 0
                         ? *const_cast<void** const volatile*>(&bins_.top[bin])
                         : slot.top;
  // Of a slot that has changed its magazine meanwhile, some number.
  const int64_t held =
      std::clamp<int64_t>(top - slot.blocks, 0, int64_t{SiteSlot::kBlocks});
  const int64_t live = slot.given - held - slot.flushed;
  return {.site = SiteOf(slot.tag),
          .cell = slot.cell,
          .allocs = allocs,
          .young = slot.young,
          .frees = allocs - live,
          .held = held};
}

void SiteCache::Flush(SiteSlot& slot) {
  const uint32_t allocs = SiteSlot::kPeriod - slot.left;
  const int32_t all_live = LiveOf(slot);
  const int64_t live = int64_t{all_live} - slot.flushed;
  slot.left = SiteSlot::kPeriod;
  slot.flushed = all_live;
  const auto frees = static_cast<uint64_t>(allocs - live);
  if (allocs != 0 || frees != 0) {
    AddToCell(SiteTable::Cell(slot.cell), allocs, frees);
  }
  if (slot.young == 0) return;
  SiteTable::Record(SiteOf(slot.tag))
      .ages[0]
      .fetch_add(std::exchange(slot.young, 0), std::memory_order_relaxed);
}

// Each step of this and of CloseOpen() leaves the blocks in one place, for
// whoever looks from outside or takes them over in the child of a fork.
void SiteCache::Open(SiteSlot* slot) {
  const uint32_t owner =
      SiteTable::Cell(slot->cell).owner.load(std::memory_order_acquire);
  if (owner == 0) return;
  const uint32_t bin = LockedPool::OwnBinOf(owner);
  if (bin == 0 || MagazineOf(*slot) == nullptr) return;
  if (bins_.top == nullptr) {
    bins_ = thread_cache.own_bins();
    HelgrindIgnore(bins_.top + kFirstOwnBin, kMostOwnBins * sizeof(*bins_.top));
  }
  void** const none = thread_cache_internal::no_magazine.slots;
  // The bin has the blocks of another slot while a table is being replaced.
  if (bins_.limit[bin] != none) return;
  bins_.limit[bin] = slot->limit;
  bins_.top[bin] = slot->top;
  std::atomic_thread_fence(std::memory_order_release);
  slot->bin = static_cast<uint8_t>(bin);
  std::atomic_thread_fence(std::memory_order_release);
  slot->top = slot->limit = site_cache_internal::no_blocks.slots;
}

void SiteCache::CloseOpen(SiteSlot& slot) {
  void** const none = thread_cache_internal::no_magazine.slots;
  void**& top = bins_.top[slot.bin];
  void**& limit = bins_.limit[slot.bin];
  slot.top = top;
  slot.limit = limit;
  std::atomic_thread_fence(std::memory_order_release);
  slot.bin = 0;
  std::atomic_thread_fence(std::memory_order_release);
  limit = top = none;
}

void SiteCache::CloseAll() {
  for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) Close(slots_[i]);
  bins_ = {};
}

// Takes the free blocks out of a slot, and the room for them.
SiteCache::Taken SiteCache::Take(SiteSlot& slot) {
  Close(slot);
  const Taken taken = {.twin = slot.twin,
                       .count = static_cast<uint32_t>(slot.held()),
                       .magazine = MagazineOf(slot)};
  if (taken.magazine == nullptr) return taken;
  cache_budget.Return(ChargeFor(slot.twin, slot.capacity()));
  Replace(slot, slot.id, [&slot, &taken] {
    slot.given -= static_cast<int32_t>(taken.count);
    slot.top = slot.limit = slot.blocks = site_cache_internal::no_blocks.slots;
  });
  return taken;
}

// Gives back what was taken out of a slot before: this may come to a lock, and
// who waits for that may allocate and come to that slot.
void SiteCache::GiveUp(const Taken& taken) {
  if (taken.magazine == nullptr) return;
  if (taken.count != 0) {
    give_back_(taken.twin, taken.magazine->slots, taken.count);
  }
  magazine_store.Put(taken.magazine);
}

void SiteCache::Return(SiteSlot& slot) { GiveUp(Take(slot)); }

void SiteCache::Evict(SiteSlot& slot) {
  Flush(slot);
  const Taken taken = Take(slot);
  Clear(slot);
  GiveUp(taken);
}

// Also takes the free blocks from the slots that have handed out none since the
// last time.
void SiteCache::FlushAll() {
  const ErrnoKeeper keeper;
  flushed_ = tag_clock.tick();
  for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) {
    SiteSlot& slot = slots_[i];
    if (slot.id == 0) continue;
    const bool idle = slot.left == SiteSlot::kPeriod;
    Flush(slot);
    if (idle) Return(slot);
  }
}

void SiteCache::ReturnBlocks() {
  for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) {
    if (slots_[i].id != 0) Return(slots_[i]);
  }
}

// Replaces the table by an empty one of this many slots. False, and nothing
// changed, when there is no memory.
bool SiteCache::MakeTable(uint32_t slots) {
  const size_t bytes = slots * sizeof(SiteSlot);
  auto* const memory =
      static_cast<char*>(os::Map(kRecentsPage + bytes, os::kPageSize));
  if (memory == nullptr) return false;
  HelgrindIgnore(memory, kRecentsPage + bytes);
  auto* made = reinterpret_cast<SiteSlot*>(memory + kRecentsPage);
  for (uint32_t i = 0; i < slots; ++i) Clear(made[i]);
  auto mask = static_cast<uint32_t>(bytes - sizeof(SiteSlot));
  {
    MutexLock lock(ThreadCache::registry_mutex());
    // Who waits for a lock may allocate, and have come here in between.
    if (mask_ < mask) {
      // Nobody can see what is counted twice or not at all meanwhile.
      for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) {
        if (slots_[i].id != 0) Flush(slots_[i]);
      }
      CloseAll();
      std::swap(slots_, made);
      std::swap(mask_, mask);
    }
  }
  if (made == &site_cache_internal::no_table.slot) return true;
  for (uint32_t i = 0; i <= mask / sizeof(SiteSlot); ++i) {
    if (made[i].id != 0) Return(made[i]);
  }
  UnmapTable(made, mask + sizeof(SiteSlot));
  return true;
}

bool SiteCache::FlushCounts() {
  if (mask_ == 0) return false;
  for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) {
    if (slots_[i].id != 0) Flush(slots_[i]);
  }
  return true;
}

// Goes on with what an ended thread has left, if any: its slots with their
// blocks, and what it has looked up. Threads that live for a short time would
// do little but set that up otherwise.
void SiteCache::Unpark() {
  SiteCache before;
  // Who waits for a lock may allocate, and have come here in between: there may
  // be more before than there was when this was called.
  if (!ThreadCache::UnparkSites(*this, before)) return;
  // What it has been idle for is not to be held against it.
  flushed_ = tag_clock.tick();
  for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) {
    if (slots_[i].id != 0) Open(&slots_[i]);
  }
  before.Retire();
}

SiteSlot* SiteCache::Load(uint32_t* site, SizeClass twin, bool may_keep,
                          GiveBack give_back) {
  if (SiteSlot* const slot = SlotAt(*site, twin);
      slot->id == SiteTable::IdOf(*site)) {
    return slot;
  }
  give_back_ = give_back;
  if (mask_ == 0) {
    if (!may_keep) return nullptr;
    Unpark();
    if (mask_ == 0 && !MakeTable(kFirstSlots)) return nullptr;
  }
  const uint32_t cell = site_table.CellOf(site, PlainOf(twin));
  const uintptr_t id = SiteTable::IdOf(*site);
  for (;;) {
    SiteSlot* const slot = SlotAt(*site, twin);
    if (slot->id == id) return slot;
    if (slot->id == 0) {
      Replace(*slot, id, [=] {
        slot->key = PlainOf(twin) <= kLastL2Class ? KeyOf(*site, twin) : kNoKey;
        slot->tag = slot->loose = *site;
        slot->cell = cell;
        slot->twin = static_cast<uint8_t>(twin);
      });
      return slot;
    }
    if (++misses_ == kMissesToGrow) {
      const bool rare = loads_ > kMissesToGrow * kRareMiss;
      misses_ = loads_ = 0;
      const auto slots = static_cast<uint32_t>(mask_ / sizeof(SiteSlot) + 1);
      if (!rare && slots < kMostSlots && may_keep && MakeTable(4 * slots)) {
        continue;
      }
    }
    Evict(*slot);
  }
}

uint32_t SiteCache::Find(SiteKind kind, uintptr_t id, bool may_keep) {
  LastId*& known = kind == SiteKind::kCaller ? last_callers_ : last_numbers_;
  if (known == nullptr && mask_ == 0 && may_keep) Unpark();
  if (known == nullptr && may_keep) {
    void* const memory = arena.AllocateMetadata(kLastIds * sizeof(LastId));
    if (memory != nullptr) {
      known = static_cast<LastId*>(memory);
      std::fill_n(known, kLastIds, LastId{0, kNoSite, 0});
    }
  }
  if (known == nullptr) return site_table.Find(kind, id);
  LastId& last = known[LastIndex(id)];
  if (last.id == id && last.site != kNoSite) return last.site;
  const uint32_t site = site_table.Find(kind, id);
  if (site != kNoSite) last = {id, site, KeyOf(site, 0)};
  return site;
}

size_t SiteCache::table_bytes() const {
  return mask_ == 0 ? 0 : kRecentsPage + mask_ + sizeof(SiteSlot);
}

size_t SiteCache::resident_bytes() const {
  return mask_ == 0 ? 0 : os::ResidentBytes(MemoryOf(slots_), table_bytes());
}

void SiteCache::Retire() {
  for (LastId** const known : {&last_callers_, &last_numbers_}) {
    if (*known == nullptr) continue;
    arena.FreeMetadata(*known, kLastIds * sizeof(LastId));
    *known = nullptr;
  }
  if (mask_ == 0) return;
  SiteSlot* slots = &site_cache_internal::no_table.slot;
  uint32_t mask = 0;
  {
    MutexLock lock(ThreadCache::registry_mutex());
    for (uint32_t i = 0; i <= mask_ / sizeof(SiteSlot); ++i) {
      if (slots_[i].id != 0) Flush(slots_[i]);
    }
    CloseAll();
    std::swap(slots_, slots);
    std::swap(mask_, mask);
  }
  for (uint32_t i = 0; i <= mask / sizeof(SiteSlot); ++i) {
    if (slots[i].id != 0) Return(slots[i]);
  }
  UnmapTable(slots, mask + sizeof(SiteSlot));
}

}  // namespace hakmem
