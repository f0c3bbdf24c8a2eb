#include "hakmem/core/site_cache.h"

#include <algorithm>
#include <memory>

#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"
#include "hakmem/core/thread_cache.h"

namespace hakmem {

namespace site_cache_internal {

constinit SiteSlot no_slot = {};

}  // namespace site_cache_internal

namespace {

// A table begins with a page and grows eightfold, twice, while one call in 16
// finds its slot taken by another pair: as seen at each 64th of those.
constexpr uint32_t kFirstSlots = os::kPageSize / sizeof(SiteSlot);
constexpr uint32_t kMostSlots = 64 * kFirstSlots;
constexpr uint32_t kMissesToGrow = 64;
constexpr uint64_t kRareMiss = 16;

// Calls from one look at the clock to the next, at most. A thread that calls
// seldom looks more often: after an idle time the first blocks would else be
// born in the past.
constexpr uint32_t kMostInterval = 64;

// What a thread has counted is not older than this for who looks from outside,
// as long as the thread tracks at all: a quarter of a second, in ticks.
constexpr uint64_t kFlushTicks = 250 / kTickMilliseconds;

constexpr uint32_t kLastIds = 256;

}  // namespace

void SiteCache::LookAfter(SiteSlot* slot) {
  if (slot->bytes > kMostBytes || slot->bytes < -kMostBytes) Flush(*slot);
  if (until_clock_ != 0) return;
  calls_ += interval_;
  tag_clock.Advance();
  const uint64_t tick = tag_clock.tick();
  const uint64_t elapsed = tick - looked_;
  if (elapsed == 0) {
    interval_ = std::min(2 * interval_, kMostInterval);
  } else if (elapsed > 1) {
    interval_ =
        static_cast<uint32_t>(std::max<uint64_t>(1, interval_ / elapsed));
  }
  looked_ = tick;
  until_clock_ = interval_;
  if (tick - flushed_ >= kFlushTicks) {
    Flush();
    flushed_ = tick;
  }
}

void SiteCache::Flush(SiteSlot& slot) {
  uint32_t ages[kAgeBuckets];
  uint64_t frees = 0;
  for (uint32_t age = 0; age < kAgeBuckets; ++age) {
    ages[age] = slot.frees[age].load(std::memory_order_relaxed);
    frees += ages[age];
  }
  const uint32_t allocs = slot.allocs.load(std::memory_order_relaxed);
  slot.bytes = 0;
  if (allocs == 0 && frees == 0) return;
  slot.allocs.store(0, std::memory_order_relaxed);
  for (std::atomic<uint32_t>& count : slot.frees) {
    count.store(0, std::memory_order_relaxed);
  }
  AddToCell(SiteTable::Cell(slot.cell), allocs, frees, ages);
}

void SiteCache::Flush() {
  if (slots_ == &site_cache_internal::no_slot) return;
  for (uint32_t i = 0; i <= mask_; ++i) {
    if (slots_[i].key != SiteSlot::kNoKey) Flush(slots_[i]);
  }
}

// Replaces the table by an empty one of this many slots. False, and nothing
// changed, when there is no memory.
bool SiteCache::MakeTable(uint32_t slots) {
  const size_t bytes = slots * sizeof(SiteSlot);
  void* const memory = !arena.EnsureReady()   ? nullptr
                       : slots == kFirstSlots ? arena.metadata().Allocate(bytes)
                                              : os::Map(bytes, os::kPageSize);
  if (memory == nullptr) return false;
  auto* const made = static_cast<SiteSlot*>(memory);
  HelgrindIgnore(made, bytes);
  std::uninitialized_value_construct_n(made, slots);
  SiteSlot* old;
  uint32_t old_mask;
  {
    MutexLock lock(ThreadCache::registry_mutex());
    old = slots_;
    old_mask = mask_;
    // Who waits for a lock may allocate, and come here in between.
    if (old_mask + 1 < slots || old == &site_cache_internal::no_slot) {
      Flush();
      slots_ = made;
      mask_ = slots - 1;
    } else {
      old = made;
      old_mask = slots - 1;
    }
  }
  FreeTable(old, old_mask);
  return true;
}

void SiteCache::FreeTable(SiteSlot* slots, uint32_t mask) {
  if (slots == &site_cache_internal::no_slot) return;
  const size_t bytes = (mask + 1) * sizeof(SiteSlot);
  if (mask + 1 == kFirstSlots) {
    arena.metadata().Free(slots, bytes);
  } else {
    os::Unmap(slots, bytes);
  }
}

SiteSlot* SiteCache::Load(uint32_t* site, SizeClass twin, bool may_keep) {
  if (slots_ == &site_cache_internal::no_slot &&
      (!may_keep || !MakeTable(kFirstSlots))) {
    return nullptr;
  }
  const uint32_t cell = site_table.CellOf(site, PlainOf(twin));
  const uint32_t key = SiteSlot::KeyOf(*site, twin);
  SiteSlot* slot = &slots_[IndexOf(*site, twin)];
  if (slot->key == key) return slot;
  if (slot->key != SiteSlot::kNoKey && ++misses_ == kMissesToGrow) {
    misses_ = 0;
    const uint64_t calls = calls_ + interval_ - until_clock_;
    if (calls - calls_at_misses_ < kMissesToGrow * kRareMiss &&
        mask_ + 1 < kMostSlots && may_keep) {
      MakeTable(8 * (mask_ + 1));
      slot = &slots_[IndexOf(*site, twin)];
    }
    calls_at_misses_ = calls;
  }
  if (slot->key != SiteSlot::kNoKey) Flush(*slot);
  slot->key = key;
  slot->cell = cell;
  return slot;
}

uint32_t SiteCache::Find(SiteKind kind, uintptr_t id, bool may_keep) {
  if (last_ids_ == nullptr && may_keep && arena.EnsureReady()) {
    void* const memory = arena.metadata().Allocate(kLastIds * sizeof(LastId));
    if (memory != nullptr) {
      last_ids_ = static_cast<LastId*>(memory);
      std::fill_n(last_ids_, kLastIds, LastId{0, 0, SiteKind::kOther});
    }
  }
  if (last_ids_ == nullptr) return site_table.Find(kind, id);
  LastId& last = last_ids_[(id * 0x9E3779B97F4A7C15u) >> 56];
  if (last.id == id && last.kind == kind) return last.site;
  const uint32_t site = site_table.Find(kind, id);
  if (site != kNoSite) last = {id, site, kind};
  return site;
}

void SiteCache::Retire() {
  if (slots_ != &site_cache_internal::no_slot) {
    Flush();
    FreeTable(slots_, mask_);
    slots_ = &site_cache_internal::no_slot;
    mask_ = 0;
  }
  if (last_ids_ != nullptr) {
    arena.metadata().Free(last_ids_, kLastIds * sizeof(LastId));
    last_ids_ = nullptr;
  }
}

}  // namespace hakmem
