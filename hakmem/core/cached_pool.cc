#include "hakmem/core/cached_pool.h"

#include <algorithm>

#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// A bin doubles its magazines after this many misses. Few, since a program's
// first seconds count too; more from kBusyCapacity on, where larger magazines
// serve those that hand over large amounts and only cost the others cache
// lines.
constexpr uint32_t kMissesToGrow = 4;
constexpr uint32_t kBusyCapacity = 126;
constexpr uint32_t kBusyMissesToGrow = 64;

// Default of the budget: this part of the machine's memory.
constexpr size_t kDefaultBudgetShare = 64;

}  // namespace

uint32_t CachedPool::FullCapacity(SizeClass size_class) const {
  const size_t by_bytes = geometry().magazine_bytes / ClassSize(size_class);
  return static_cast<uint32_t>(std::clamp<size_t>(
      by_bytes, kLeastFullCapacity, MagazineCapacity(kMagazineFamilies - 1)));
}

// Gets a bin ready for its first use by this thread.
void CachedPool::Prepare(ThreadCache& cache, SizeClass size_class) {
  ThreadCache::Bin& bin = cache.bin(size_class);
  if (!prepared_.load(std::memory_order_relaxed)) {
    // Two threads may both do this: they store the same.
    size_t bytes = arena.options().cache_bytes;
    if (bytes == 0) bytes = os::PhysicalMemory() / kDefaultBudgetShare;
    budget_.SetLimit(bytes / 8 * geometry().budget_eighths);
    prepared_.store(true, std::memory_order_relaxed);
  }
  HelgrindIgnore(this, sizeof(*this));
  cache.Join(this, geometry().index);
  bin.capacity = std::min(geometry().first_capacity, FullCapacity(size_class));
  budget_.Force(bin.capacity * ClassSize(size_class));
}

void CachedPool::NoteMiss(ThreadCache::Bin& bin, SizeClass size_class) {
  const uint32_t patience =
      bin.capacity < kBusyCapacity ? kMissesToGrow : kBusyMissesToGrow;
  if (++bin.misses < patience) return;
  bin.misses = 0;
  const uint32_t target =
      std::min(2 * bin.capacity + 2, FullCapacity(size_class));
  if (target > bin.capacity &&
      budget_.TakeForThread((target - bin.capacity) * ClassSize(size_class))) {
    bin.capacity = target;
  }
}

// Fills an empty magazine from the slabs; false when memory has run out.
bool CachedPool::Refill(ThreadCache& cache, SizeClass size_class,
                        Magazine* magazine) {
  CacheCounters& counters = cache.counters(geometry().index);
  CacheCounters::Add(counters.refills, 1);
  const uint32_t wanted =
      std::min(cache.bin(size_class).capacity, magazine->capacity());
  magazine->count = static_cast<uint16_t>(
      backend_.AllocateBatch(size_class, magazine->slots, wanted));
  return magazine->count != 0;
}

void* CachedPool::Allocate(ThreadCache& cache, SizeClass size_class) {
  const ThreadCache::Use use(cache);
  if (!use.granted()) return backend_.Allocate(size_class);
  // Getting the cache ready may have allocated a block of this very class, and
  // left the bin with the rest of a magazine.
  if (void* const block = cache.Pop(size_class)) return block;
  ThreadCache::Bin& bin = cache.bin(size_class);
  if (bin.capacity == 0) Prepare(cache, size_class);
  Magazine* const current = cache.Close(size_class);
  Magazine* const previous = bin.previous.load(std::memory_order_relaxed);

  if (previous != nullptr && previous->count != 0) {
    // Neither magazine is in two places while they change theirs.
    bin.previous.store(nullptr, std::memory_order_release);
    bin.current.store(nullptr, std::memory_order_release);
    bin.previous.store(current, std::memory_order_release);
    cache.Open(size_class, previous, bin.capacity);
    return cache.Pop(size_class);
  }

  CacheCounters& counters = cache.counters(geometry().index);
  CacheCounters::Add(counters.alloc_misses, 1);
  NoteMiss(bin, size_class);
  Magazine* fresh = depot(size_class).Pop();
  if (fresh != nullptr) {
    budget_.Return(BytesOf(size_class, fresh));
    // Of the two empty ones the thread keeps one.
    if (current != nullptr) {
      bin.current.store(nullptr, std::memory_order_release);
      if (previous == nullptr) {
        bin.previous.store(current, std::memory_order_release);
      } else {
        magazine_store.Put(current);
      }
    }
  } else {
    const uint32_t family = MagazineFamilyFor(bin.capacity);
    fresh = current;
    bin.current.store(nullptr, std::memory_order_release);
    if (fresh != nullptr && fresh->family < family) {
      magazine_store.Put(fresh);
      fresh = nullptr;
    }
    if (fresh == nullptr) fresh = magazine_store.Get(family);
    if (fresh == nullptr) return backend_.Allocate(size_class);
    if (!Refill(cache, size_class, fresh)) {
      magazine_store.Put(fresh);
      return nullptr;
    }
  }
  CacheCounters::Add(counters.blocks_loaded, fresh->count);
  cache.Open(size_class, fresh, bin.capacity);
  return cache.Pop(size_class);
}

// Takes a full magazine to the depot, or its blocks to the slabs when the depot
// has no room; returns an empty magazine in exchange, or null.
Magazine* CachedPool::StoreFull(ThreadCache& cache, SizeClass size_class,
                                Magazine* full, uint32_t family) {
  CacheCounters& counters = cache.counters(geometry().index);
  CacheCounters::Add(counters.blocks_unloaded, full->count);
  if (budget_.TakeForDepot(BytesOf(size_class, full))) {
    if (Magazine* const empty = magazine_store.Get(family)) {
      depot(size_class).Push(full);
      if (depot(size_class).DueForReview()) Review(size_class);
      return empty;
    }
    budget_.Return(BytesOf(size_class, full));
  }
  CacheCounters::Add(counters.flushes, 1);
  ReturnBlocks(size_class, full);
  if (full->family == family) return full;
  magazine_store.Put(full);
  return magazine_store.Get(family);
}

void CachedPool::Free(ThreadCache& cache, SizeClass size_class, void* block) {
  const ThreadCache::Use use(cache);
  if (!use.granted()) {
    backend_.Free(size_class, block);
    return;
  }
  ThreadCache::Bin& bin = cache.bin(size_class);
  if (bin.capacity == 0) Prepare(cache, size_class);
  Magazine* const current = cache.Close(size_class);
  Magazine* next = bin.previous.load(std::memory_order_relaxed);
  bin.previous.store(nullptr, std::memory_order_release);

  if (next != nullptr && next->count != 0) {
    CacheCounters& counters = cache.counters(geometry().index);
    CacheCounters::Add(counters.free_misses, 1);
    NoteMiss(bin, size_class);
    next = StoreFull(cache, size_class, next, MagazineFamilyFor(bin.capacity));
  } else if (next == nullptr) {
    next = magazine_store.Get(MagazineFamilyFor(bin.capacity));
  }
  if (current != nullptr) {
    bin.current.store(nullptr, std::memory_order_release);
    bin.previous.store(current, std::memory_order_release);
  }
  if (next == nullptr) {
    // No metadata is left: without a second magazine, the first stays full.
    backend_.Free(size_class, block);
    return;
  }
  cache.Open(size_class, next, bin.capacity);
  cache.Push(size_class, block);
}

void CachedPool::ReturnBlocks(SizeClass size_class, Magazine* magazine) {
  backend_.FreeBatch(size_class, magazine->slots, magazine->count);
  magazine->count = 0;
}

void CachedPool::Discard(SizeClass size_class, Magazine* magazine,
                         bool worth_keeping) {
  if (worth_keeping && budget_.TakeForDepot(BytesOf(size_class, magazine))) {
    depot(size_class).Push(magazine);
    return;
  }
  if (magazine->count != 0) ReturnBlocks(size_class, magazine);
  magazine_store.Put(magazine);
}

void CachedPool::Flush(ThreadCache& cache) {
  for (SizeClass c = geometry().first_class; c <= geometry().last_class; ++c) {
    ThreadCache::Bin& bin = cache.bin(c);
    if (bin.capacity == 0) continue;
    Magazine* const current = cache.Close(c);
    Magazine* const previous = bin.previous.load(std::memory_order_relaxed);
    bin.current.store(nullptr, std::memory_order_release);
    bin.previous.store(nullptr, std::memory_order_release);
    for (Magazine* const magazine : {current, previous}) {
      if (magazine == nullptr) continue;
      CacheCounters::Add(cache.counters(geometry().index).blocks_unloaded,
                         magazine->count);
      // Half full is worth another thread's visit to the depot; less would
      // fill the depots with crumbs of short-lived threads.
      Discard(c, magazine, magazine->count * 2u >= bin.capacity);
    }
    budget_.Return(bin.capacity * ClassSize(c));
    bin.capacity = 0;
    bin.misses = 0;
  }
}

// Gives half of what the depot has not needed lately back to the slabs: half,
// so that a working set that comes in waves is not paid for at each wave.
void CachedPool::Review(SizeClass size_class) {
  for (uint32_t surplus = depot(size_class).TakeSurplus() / 2; surplus != 0;
       --surplus) {
    Magazine* const magazine = depot(size_class).Pop();
    if (magazine == nullptr) return;
    budget_.Return(BytesOf(size_class, magazine));
    Discard(size_class, magazine, false);
  }
}

size_t CachedPool::DrainDepots() {
  size_t blocks = 0;
  for (SizeClass c = geometry().first_class; c <= geometry().last_class; ++c) {
    while (Magazine* const magazine = depot(c).Pop()) {
      blocks += magazine->count;
      budget_.Return(BytesOf(c, magazine));
      Discard(c, magazine, false);
    }
  }
  return blocks;
}

}  // namespace hakmem
