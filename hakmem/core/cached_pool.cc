#include "hakmem/core/cached_pool.h"

#include <algorithm>
#include <utility>

#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"
#include "hakmem/core/parked_bins.h"

namespace hakmem {
namespace {

// A bin doubles its magazines after this many misses. Few, since a program's
// first seconds count too; more from kBusyCapacity on, where larger magazines
// serve those that hand over large amounts and only cost the others cache
// lines.
constexpr uint32_t kMissesToGrow = 4;
constexpr uint32_t kBusyCapacity = 126;
constexpr uint32_t kBusyMissesToGrow = 1024;  // 64: larson 2 % slower

// Below kBusyCapacity it doubles them after this many swaps, too, as long as
// they are not as large as they may be.
constexpr uint8_t kSwapsToGrow = 16;

// A miss counts as the bytes that it moves, as this many at least, and at most
// as the other. Without that bound a program with blocks of some 100 KiB was
// told every few dozen calls that it did not use its bins: short-lived threads
// with such blocks took twice as long and twice the memory, since each slab
// that went and came was at another place. With 64 KiB they had half as much
// again resident as with 32 KiB, and growing strings had a twentieth less.
constexpr uint64_t kLeastWork = 16 << 10;
constexpr uint64_t kMostWork = 32 << 10;

// After this much work a thread looks at the depot of one class, in turn, and
// with that at each of them while the caches' contents change a few times: a
// class that the program has stopped using is soon found.
constexpr int kReviewShift = 18;

// Fewer blocks of an owner than this go to their slabs, unless they are large:
// who comes to a depot is to find more there than crumbs.
constexpr uint32_t kLeastStored = 8;
constexpr size_t kLeastStoredBytes = 8 << 10;

// After this much work a thread gives up the bins that it has not touched since
// the last time.
constexpr int kTrimShift = 23;

// Where little work is done, time does what work does otherwise: this part of
// HAKMEM_DECAY_MS, 10 ms, is a thread's period for its bins and everybody's for
// all of the depots. What is cached of a class that the program has left pins a
// page and more for every block: with the whole of HAKMEM_DECAY_MS the workload
// "server" had 1.35 times of what is live resident where it now has 1.18.
constexpr int64_t kTidyShare = 10;

int64_t TidyPeriod() {
  return std::max<int64_t>(1, arena.decay_period() / kTidyShare);
}

// The pools that have bins anywhere, for housekeeping, which any thread does
// for all; and what of it has been done.
struct Housekeeping {
  std::array<std::atomic<CachedPool*>, kPools> pools;
  std::atomic<int64_t> tidied_at{0};
  std::atomic<int64_t> parked_at{0};  // when ended threads' bins were looked at
  // Changes more often than what is above is read.
  alignas(64) std::atomic<uint32_t> next_review{0};
};
constinit Housekeeping housekeeping;

}  // namespace

uint32_t CachedPool::FullCapacity(SizeClass size_class) const {
  const size_t by_bytes = geometry().magazine_bytes / ClassSize(size_class);
  return static_cast<uint32_t>(std::clamp<size_t>(
      by_bytes, kLeastFullCapacity, MagazineCapacity(kMagazineFamilies - 1)));
}

uint32_t CachedPool::FirstCapacity(SizeClass size_class) const {
  return std::min(geometry().first_capacity, FullCapacity(size_class));
}

// Gets a bin ready for its first use by this thread; false when all threads
// together have enough.
bool CachedPool::Prepare(ThreadCache& cache, SizeClass size_class) {
  ThreadCache::Bin& bin = cache.bin(size_class);
  HelgrindIgnore(this, sizeof(*this));
  HelgrindIgnore(&housekeeping, sizeof(housekeeping));
  // Also where nobody gets room: what goes round by the depots waits there.
  housekeeping.pools[geometry().index].store(this, std::memory_order_relaxed);
  backend_.NoteTidied();
  const uint32_t capacity = FirstCapacity(size_class);
  const size_t bytes = capacity * ClassSize(size_class);
  if (!cache_budget.TakeFirst(bytes)) {
    if (cache.forced() + bytes > ThreadCache::kMostForced) return false;
    cache_budget.Force(bytes);
    cache.forced() += bytes;
    bin.forced = 1;
  }
  cache.Join(this, geometry().index);
  bin.capacity = static_cast<uint16_t>(capacity);
  return true;
}

// Doubles the bin's magazines, as far as the budget allows. They change hands
// for larger ones as they are emptied.
void CachedPool::Grow(ThreadCache& cache, SizeClass size_class) {
  ThreadCache::Bin& bin = cache.bin(size_class);
  const uint32_t target =
      std::min(2u * bin.capacity + 2, FullCapacity(size_class));
  if (target <= bin.capacity) return;
  cache.JoinBudget();
  if (cache_budget.TakeForThread((target - bin.capacity) *
                                 ClassSize(size_class))) {
    bin.capacity = static_cast<uint16_t>(target);
  }
}

// A swap of the two magazines is no miss, but takes the slow path: a program
// that allocates and frees at random comes to the border between them less
// often when they are larger.
void CachedPool::NoteSwap(ThreadCache& cache, SizeClass size_class) {
  ThreadCache::Bin& bin = cache.bin(size_class);
  if (bin.swaps_left != 0) {
    --bin.swaps_left;
    return;
  }
  if (bin.capacity < kBusyCapacity) Grow(cache, size_class);
  const bool grown =
      bin.capacity >= std::min(kBusyCapacity, FullCapacity(size_class));
  bin.swaps_left = grown ? UINT8_MAX : kSwapsToGrow;
}

// Lets the bin grow.
void CachedPool::NoteMiss(ThreadCache& cache, SizeClass size_class) {
  ThreadCache::Bin& bin = cache.bin(size_class);
  const uint32_t patience =
      bin.capacity < kBusyCapacity ? kMissesToGrow : kBusyMissesToGrow;
  if (++bin.misses >= patience) {
    bin.misses = 0;
    Grow(cache, size_class);
  }
  CountWork(cache, size_class);
}

// Counts a magazine that changes its place, and does a thread's part of the
// housekeeping. Not for a swap, of which there are ten to a miss: looking at
// the clock there made larson with 2-32 KiB a tenth slower.
void CachedPool::CountWork(ThreadCache& cache, SizeClass size_class) {
  const uint64_t bytes =
      uint64_t{cache.bin(size_class).capacity} * ClassSize(size_class);
  const uint64_t done =
      cache.CountWork(std::clamp(bytes, kLeastWork, kMostWork));
  const auto passes = [&](int shift) {
    return (cache.work() >> shift) != (done >> shift);
  };
  if (passes(kReviewShift)) ReviewNext();
  const int64_t now = os::CoarseMilliseconds();
  const bool by_time = cache.TrimIsDue(TidyPeriod(), now);
  if (passes(kTrimShift) || by_time) cache.TrimBins();
  TidyWhatIsDue(now);
}

void CachedPool::TidyWhatIsDue(int64_t now) {
  int64_t last = housekeeping.tidied_at.load(std::memory_order_relaxed);
  if (now == last) return;
  if (last == 0) {
    // The process has just begun.
    housekeeping.parked_at.store(now, std::memory_order_relaxed);
    housekeeping.tidied_at.store(now, std::memory_order_relaxed);
    return;
  }
  constexpr int64_t kClasses = kNumClasses - 1;
  const int64_t due =
      std::min((now - last) * kClasses / TidyPeriod(), kClasses);
  if (due <= 0) return;
  if (!housekeeping.tidied_at.compare_exchange_strong(
          last, now, std::memory_order_relaxed)) {
    return;
  }
  for (int64_t n = due; n != 0; --n) ReviewNext();
  const int64_t looked = housekeeping.parked_at.load(std::memory_order_relaxed);
  if (now - looked >= arena.decay_period()) {
    housekeeping.parked_at.store(now, std::memory_order_relaxed);
    ThreadCache::FlushParked(ThreadCache::Parked::kStale);
  }
  for (std::atomic<CachedPool*>& known : housekeeping.pools) {
    CachedPool* const pool = known.load(std::memory_order_relaxed);
    if (pool != nullptr) pool->backend_.Decay(now);
  }
  arena.Decay(now);
}

// Looks at the depot of the next class in turn, of whichever pool.
void CachedPool::ReviewNext() {
  const SizeClass size_class =
      1 + housekeeping.next_review.fetch_add(1, std::memory_order_relaxed) %
              (kNumClasses - 1);
  for (std::atomic<CachedPool*>& known : housekeeping.pools) {
    CachedPool* const pool = known.load(std::memory_order_relaxed);
    if (pool == nullptr || !pool->geometry().Contains(size_class)) continue;
    pool->Drain(size_class, pool->depot(size_class).Review());
    const SizeClass twin = TwinOf(size_class);
    pool->Drain(twin, pool->depot(twin).Review());
    // Owners have their turn together, with the first class.
    if (size_class != pool->geometry().first_class) continue;
    pool->backend_.ForEachDepotOfOwner([pool](Depot& depot, SizeClass twin) {
      pool->DrainOwned(depot, twin, depot.Review());
    });
  }
}

SizeClass CachedPool::NextInTurn() {
  return geometry().first_class +
         turn_.fetch_add(1, std::memory_order_relaxed) % geometry().classes();
}

// Fills an empty magazine from the slabs; false when memory has run out.
bool CachedPool::Refill(ThreadCache& cache, SizeClass size_class,
                        Magazine* magazine) {
  CacheCounters& counters = cache.counters(geometry().index);
  CacheCounters::Add(counters.refills, 1);
  const uint32_t wanted =
      std::min<uint32_t>(cache.bin(size_class).capacity, magazine->capacity());
  magazine->count = static_cast<uint16_t>(
      backend_.AllocateBatch(size_class, magazine->slots, wanted));
  return magazine->count != 0;
}

void* CachedPool::Allocate(ThreadCache& cache, SizeClass size_class,
                           bool* zeroed) {
  const ThreadCache::Use use(cache);
  if (!use.granted()) return backend_.Allocate(size_class, zeroed);
  // Getting the cache ready may have allocated a block of this very class, and
  // left the bin with the rest of a magazine.
  if (void* const block = cache.Pop(size_class)) return block;
  ThreadCache::Bin& bin = cache.bin(size_class);
  if (bin.capacity == 0 && (zeroed != nullptr || !Prepare(cache, size_class))) {
    return AllocateShared(cache, size_class, zeroed);
  }
  bin.drawn = true;
  Magazine* const current = cache.Close(size_class);
  Magazine* const previous = bin.previous.load(std::memory_order_relaxed);

  if (previous != nullptr && previous->count != 0) {
    NoteSwap(cache, size_class);
    cache.Swap(size_class, previous);
    return cache.Pop(size_class);
  }

  CacheCounters& counters = cache.counters(geometry().index);
  CacheCounters::Add(counters.alloc_misses, 1);
  // A larger magazine would not serve who has none filled.
  if (zeroed == nullptr) {
    NoteMiss(cache, size_class);
  } else {
    CountWork(cache, size_class);
  }
  Magazine* fresh = depot(size_class).Pop();
  if (fresh != nullptr) {
    cache_budget.Return(BytesOf(size_class, fresh));
    // Of the two empty ones the thread keeps one.
    if (current != nullptr) {
      bin.current.store(nullptr, std::memory_order_release);
      if (previous == nullptr) {
        bin.previous.store(current, std::memory_order_release);
      } else {
        cache.PutMagazine(current);
      }
    }
  } else if (zeroed != nullptr) {
    if (current != nullptr) cache.Open(size_class, current, bin.capacity);
    return backend_.Allocate(size_class, zeroed);
  } else {
    const uint32_t family = MagazineFamilyFor(bin.capacity);
    fresh = current;
    bin.current.store(nullptr, std::memory_order_release);
    if (fresh != nullptr && fresh->family < family) {
      cache.PutMagazine(fresh);
      fresh = nullptr;
    }
    if (fresh == nullptr) fresh = cache.GetMagazine(family);
    if (fresh == nullptr) return backend_.Allocate(size_class);
    if (!Refill(cache, size_class, fresh)) {
      cache.PutMagazine(fresh);
      return nullptr;
    }
  }
  CacheCounters::Add(counters.blocks_loaded, fresh->count);
  cache.CountLoaded(BytesOf(size_class, fresh));
  cache.Open(size_class, fresh, bin.capacity);
  return cache.Pop(size_class);
}

// A block for a thread that has no room for a bin of the class, from a magazine
// in the depot, which goes back there: what such threads free and allocate goes
// round among them. By the pool's lock alone larson on 64 threads took ten
// times as long.
void* CachedPool::AllocateShared(ThreadCache& cache, SizeClass size_class,
                                 bool* zeroed) {
  Depot& shared = depot(size_class);
  Magazine* magazine = shared.Pop();
  if (magazine == nullptr && zeroed != nullptr) {
    return backend_.Allocate(size_class, zeroed);
  }
  if (magazine == nullptr) {
    const uint32_t wanted = FirstCapacity(size_class);
    const size_t bytes = wanted * ClassSize(size_class);
    if (!TakeForDepot(bytes)) {
      return backend_.Allocate(size_class);
    }
    magazine = cache.GetMagazine(MagazineFamilyFor(wanted));
    if (magazine == nullptr) {
      cache_budget.Return(bytes);
      return backend_.Allocate(size_class);
    }
    magazine->count = static_cast<uint16_t>(
        backend_.AllocateBatch(size_class, magazine->slots, wanted));
    cache_budget.Return(bytes - BytesOf(size_class, magazine));
    if (magazine->count == 0) {
      cache.PutMagazine(magazine);
      return nullptr;
    }
  }
  void* const block = magazine->slots[--magazine->count];
  cache_budget.Return(ClassSize(size_class));
  if (magazine->count != 0) {
    shared.Push(magazine);
  } else {
    cache.PutMagazine(magazine);
  }
  return block;
}

// The way back of such a block.
void CachedPool::FreeShared(ThreadCache& cache, SizeClass size_class,
                            void* block) {
  if (!TakeForDepot(ClassSize(size_class))) {
    // What waits in depots may be what leaves no room: in the child of a fork,
    // say, which has one thread where the parent had many.
    Drain(size_class, 1);
    backend_.Free(size_class, block);
    return;
  }
  Depot& shared = depot(size_class);
  Magazine* magazine = shared.Pop();
  if (magazine != nullptr && magazine->count == magazine->capacity()) {
    shared.Push(magazine);
    magazine = nullptr;
  }
  if (magazine == nullptr) {
    magazine = cache.GetMagazine(MagazineFamilyFor(FirstCapacity(size_class)));
  }
  if (magazine == nullptr) {
    cache_budget.Return(ClassSize(size_class));
    backend_.Free(size_class, block);
    return;
  }
  magazine->slots[magazine->count++] = block;
  shared.Push(magazine);
}

// Takes a full magazine to the depot, or its blocks to the slabs when the depot
// has no room; returns an empty magazine in exchange, or null.
Magazine* CachedPool::StoreFull(ThreadCache& cache, SizeClass size_class,
                                Magazine* full, uint32_t family) {
  CacheCounters& counters = cache.counters(geometry().index);
  CacheCounters::Add(counters.blocks_unloaded, full->count);
  const size_t bytes = BytesOf(size_class, full);
  if (TakeForPeak(bytes)) {
    if (Magazine* const empty = cache.GetMagazine(family)) {
      depot(size_class).Push(full);
      return empty;
    }
    cache_budget.Return(bytes);
  }
  CacheCounters::Add(counters.flushes, 1);
  ReturnBlocks(size_class, full);
  // The limit follows what is live: where that has shrunk, one more goes with
  // every one that found no room.
  const SizeClass next = NextInTurn();
  if (Drain(next, 1) == 0) Drain(TwinOf(next), 1);
  if (full->family == family) return full;
  cache.PutMagazine(full);
  return cache.GetMagazine(family);
}

void CachedPool::Free(ThreadCache& cache, SizeClass size_class, void* block) {
  const ThreadCache::Use use(cache);
  if (!use.granted()) {
    backend_.Free(size_class, block);
    return;
  }
  // Getting the cache ready may have brought bins that another thread left.
  if (cache.Push(size_class, block)) return;
  ThreadCache::Bin& bin = cache.bin(size_class);
  if (bin.capacity == 0) {
    // The first of its class here, so it comes from another thread, which may
    // have its neighbours: it is not to be what this thread allocates next.
    if (Prepare(cache, size_class)) {
      backend_.Free(size_class, block);
    } else {
      FreeShared(cache, size_class, block);
    }
    return;
  }
  Magazine* const current = cache.Close(size_class);
  Magazine* next = bin.previous.load(std::memory_order_relaxed);
  bin.previous.store(nullptr, std::memory_order_release);

  if (next != nullptr && next->count != 0) {
    CacheCounters& counters = cache.counters(geometry().index);
    CacheCounters::Add(counters.free_misses, 1);
    NoteMiss(cache, size_class);
    next = StoreFull(cache, size_class, next, MagazineFamilyFor(bin.capacity));
  } else {
    if (next != nullptr) NoteSwap(cache, size_class);
    const uint32_t family = MagazineFamilyFor(bin.capacity);
    if (next == nullptr || next->family < family) {
      Magazine* const larger = cache.GetMagazine(family);
      if (larger != nullptr && next != nullptr) cache.PutMagazine(next);
      if (larger != nullptr) next = larger;
    }
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
  if (worth_keeping && TakeForDepot(BytesOf(size_class, magazine))) {
    depot(size_class).Push(magazine);
    return;
  }
  if (magazine->count != 0) ReturnBlocks(size_class, magazine);
  magazine_store.Put(magazine);
}

void CachedPool::FlushBin(ThreadCache& cache, SizeClass size_class,
                          bool worth_keeping) {
  ThreadCache::Bin& bin = cache.bin(size_class);
  Magazine* const current = cache.Close(size_class);
  Magazine* const previous = bin.previous.load(std::memory_order_relaxed);
  bin.current.store(nullptr, std::memory_order_release);
  bin.previous.store(nullptr, std::memory_order_release);
  for (Magazine* const magazine : {current, previous}) {
    if (magazine == nullptr) continue;
    CacheCounters::Add(cache.counters(geometry().index).blocks_unloaded,
                       magazine->count);
    // Half full is worth another thread's visit to the depot; less would fill
    // the depots with crumbs of short-lived threads.
    Discard(size_class, magazine,
            worth_keeping && magazine->count * 2u >= bin.capacity);
  }
  cache_budget.Return(bin.capacity * ClassSize(size_class));
  if (bin.forced != 0) {
    cache.forced() -= FirstCapacity(size_class) * ClassSize(size_class);
    bin.forced = 0;
  }
  bin.capacity = 0;
  bin.misses = 0;
  bin.swaps_left = 0;
}

void CachedPool::Flush(ThreadCache& cache) {
  for (SizeClass bin = 0; bin < geometry().bins(); ++bin) {
    const SizeClass c = geometry().ClassOfBin(bin);
    if (cache.bin(c).capacity != 0) FlushBin(cache, c, true);
  }
}

void CachedPool::FlushParked(const ParkedBins& parked) {
  for (SizeClass number = 0; number < geometry().bins(); ++number) {
    const SizeClass c = geometry().ClassOfBin(number);
    const ParkedBins::Bin& bin = parked.bins[c];
    if (bin.capacity == 0) continue;
    for (Magazine* const magazine : {bin.current, bin.previous}) {
      if (magazine == nullptr) continue;
      Discard(c, magazine, magazine->count * 2u >= bin.capacity);
    }
    cache_budget.Return(bin.capacity * ClassSize(c));
  }
}

void CachedPool::Trim(ThreadCache& cache) {
  for (SizeClass number = 0; number < geometry().bins(); ++number) {
    const SizeClass c = geometry().ClassOfBin(number);
    // What is closed is in use right now.
    if (cache.bin(c).capacity != 0 && cache.IsOpen(c)) TrimBin(cache, c);
  }
}

// Blocks below the lowest level of a bin since the last time were of no use.
// The fast path keeps no such level; but while the current magazine has not run
// empty, nobody came to the previous one. So its blocks go, the current one
// takes its place with an empty one above it, and if that is not drawn from
// until the next time, it is its blocks' turn. This costs a bin in use one
// swap.
void CachedPool::TrimBin(ThreadCache& cache, SizeClass size_class) {
  ThreadCache::Bin& bin = cache.bin(size_class);
  if (cache.IsIdle(size_class)) {
    FlushBin(cache, size_class, false);
    return;
  }
  if (std::exchange(bin.drawn, false)) return;
  Magazine* const current = cache.Close(size_class);
  Magazine* unused = bin.previous.load(std::memory_order_relaxed);
  bin.previous.store(nullptr, std::memory_order_release);
  if (unused != nullptr && unused->count != 0) {
    CacheCounters::Add(cache.counters(geometry().index).blocks_unloaded,
                       unused->count);
    ReturnBlocks(size_class, unused);
  }
  if (unused == nullptr) {
    unused = magazine_store.Get(MagazineFamilyFor(bin.capacity));
  }
  if (unused == nullptr) {
    cache.Open(size_class, current, bin.capacity);
    return;
  }
  bin.current.store(nullptr, std::memory_order_release);
  bin.previous.store(current, std::memory_order_release);
  cache.Open(size_class, unused, bin.capacity);
}

// Gives up to `magazines` of a depot's magazines back to the slabs; says how
// many blocks those were.
uint32_t CachedPool::Drain(SizeClass size_class, uint32_t magazines) {
  uint32_t blocks = 0;
  for (; magazines != 0; --magazines) {
    Magazine* const magazine = depot(size_class).Pop();
    if (magazine == nullptr) break;
    blocks += magazine->count;
    cache_budget.Return(BytesOf(size_class, magazine));
    Discard(size_class, magazine, false);
  }
  return blocks;
}

bool CachedPool::StoreOwned(ThreadCache& cache, uint32_t owner, SizeClass twin,
                            void* const* blocks, uint32_t count) {
  const size_t bytes = count * ClassSize(twin);
  if (count < kLeastStored && bytes < kLeastStoredBytes) return false;
  if (!TakeForPeak(bytes)) return false;
  Magazine* const magazine = cache.GetMagazine(MagazineFamilyFor(count));
  if (magazine == nullptr) {
    cache_budget.Return(bytes);
    return false;
  }
  std::copy_n(blocks, count, magazine->slots);
  magazine->count = static_cast<uint16_t>(count);
  LockedPool::DepotOf(owner).Push(magazine);
  return true;
}

Magazine* CachedPool::LoadOwned(uint32_t owner) {
  return LockedPool::DepotOf(owner).Pop();
}

// As Drain(), for an owner's depot.
uint32_t CachedPool::DrainOwned(Depot& depot, SizeClass twin,
                                uint32_t magazines) {
  uint32_t blocks = 0;
  for (; magazines != 0; --magazines) {
    Magazine* const magazine = depot.Pop();
    if (magazine == nullptr) break;
    blocks += magazine->count;
    cache_budget.Return(BytesOf(twin, magazine));
    Discard(twin, magazine, false);
  }
  return blocks;
}

size_t CachedPool::DepotBytes() const {
  size_t bytes = 0;
  for (SizeClass number = 0; number < geometry().bins(); ++number) {
    bytes +=
        depots_[number].blocks() * ClassSize(geometry().ClassOfBin(number));
  }
  backend_.ForEachDepotOfOwner([&bytes](const Depot& depot, SizeClass twin) {
    bytes += depot.blocks() * ClassSize(twin);
  });
  return bytes;
}

size_t CachedPool::DrainDepots() {
  size_t blocks = 0;
  for (SizeClass bin = 0; bin < geometry().bins(); ++bin) {
    const SizeClass c = geometry().ClassOfBin(bin);
    blocks += Drain(c, UINT32_MAX);
  }
  backend_.ForEachDepotOfOwner([this, &blocks](Depot& depot, SizeClass twin) {
    blocks += DrainOwned(depot, twin, UINT32_MAX);
  });
  return blocks;
}

}  // namespace hakmem
