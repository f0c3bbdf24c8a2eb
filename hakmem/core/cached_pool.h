// The cached variant of a pool: thread caches and a depot over a locked pool.

#ifndef HAKMEM_CORE_CACHED_POOL_H_
#define HAKMEM_CORE_CACHED_POOL_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/cache_budget.h"
#include "hakmem/core/depot.h"
#include "hakmem/core/locked_pool.h"
#include "hakmem/core/thread_cache.h"

namespace hakmem {

// The slow paths behind ThreadCache::Pop() and Push(), for the classes of one
// pool.
//
// Thread safety: every function may be called from any thread, with that
// thread's cache. The locked pool's lock is taken only when the depot has
// nothing, or no room. Invariant: a block is in the program's hands, in one
// magazine, or free in its slab.
class CachedPool {
 public:
  static constexpr bool kCached = true;

  explicit constexpr CachedPool(LockedPool& backend) : backend_(backend) {}

  const PoolGeometry& geometry() const { return backend_.geometry(); }
  LockedPool& backend() { return backend_; }

  // A block of the class, or null when memory has run out. For a bin that is
  // empty. Who needs zeros gives `zeroed`, false, which says whether the block
  // is known to read as zero. That is known of one straight from its slab, so
  // for him nothing is refilled.
  void* Allocate(ThreadCache& cache, SizeClass size_class,
                 bool* zeroed = nullptr);

  // Takes a block of the class back. For a bin that is full.
  void Free(ThreadCache& cache, SizeClass size_class, void* block);

  // Gives up all bins that this pool has in `cache`, whose thread is ending or
  // is gone.
  void Flush(ThreadCache& cache);

  // As Flush(), for the bins that an ended thread has left.
  void FlushParked(const ParkedBins& parked);

  // Gives all magazines of the depots back to the slabs. Says how many blocks.
  size_t DrainDepots();

  // Bytes of the blocks that wait in the depots.
  size_t DepotBytes() const;

  // Puts free blocks of an owner (locked_pool.h) into its depot. False, and
  // nothing done, when they are too few to be worth it or the depots have
  // enough.
  bool StoreOwned(ThreadCache& cache, uint32_t owner, SizeClass twin,
                  void* const* blocks, uint32_t count);

  // Takes a magazine of such blocks from there, which cache_budget still
  // counts; null when there is none.
  Magazine* LoadOwned(uint32_t owner);

  // Does, for the pools that have bins anywhere, what time has brought due
  // since anybody last called it: each class's depot gives what nobody came for
  // back to the slabs, slabs and arena give up what nobody wanted. `now` is
  // os::CoarseMilliseconds().
  static void TidyWhatIsDue(int64_t now);

  // Gives up the bins that `cache` has not used since the last call, and the
  // blocks that lay unused in the others. For its own thread.
  void Trim(ThreadCache& cache);

 private:
  Depot& depot(SizeClass size_class) {
    return depots_[geometry().BinOf(size_class)];
  }
  uint32_t FullCapacity(SizeClass size_class) const;
  uint32_t FirstCapacity(SizeClass size_class) const;
  void* AllocateShared(ThreadCache& cache, SizeClass size_class, bool* zeroed);
  void FreeShared(ThreadCache& cache, SizeClass size_class, void* block);
  bool Prepare(ThreadCache& cache, SizeClass size_class);
  void Grow(ThreadCache& cache, SizeClass size_class);
  void NoteSwap(ThreadCache& cache, SizeClass size_class);
  void NoteMiss(ThreadCache& cache, SizeClass size_class);
  bool Refill(ThreadCache& cache, SizeClass size_class, Magazine* magazine);
  Magazine* StoreFull(ThreadCache& cache, SizeClass size_class, Magazine* full,
                      uint32_t family);
  bool TakeForDepot(size_t bytes) {
    return cache_budget.TakeForDepot(bytes, geometry().depot_share);
  }
  bool TakeForPeak(size_t bytes) {
    return cache_budget.TakeForPeak(bytes, geometry().peak_divisor,
                                    geometry().depot_share);
  }
  void ReturnBlocks(SizeClass size_class, Magazine* magazine);
  void Discard(SizeClass size_class, Magazine* magazine, bool worth_keeping);
  void TrimBin(ThreadCache& cache, SizeClass size_class);
  void FlushBin(ThreadCache& cache, SizeClass size_class, bool worth_keeping);
  uint32_t Drain(SizeClass size_class, uint32_t magazines);
  uint32_t DrainOwned(Depot& depot, SizeClass twin, uint32_t magazines);
  static void CountWork(ThreadCache& cache, SizeClass size_class);
  static void ReviewNext();
  SizeClass NextInTurn();
  size_t BytesOf(SizeClass size_class, const Magazine* magazine) const {
    return magazine->count * ClassSize(size_class);
  }

  LockedPool& backend_;
  std::atomic<uint32_t> turn_{0};
  std::array<Depot, kMaxPoolBins> depots_;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_CACHED_POOL_H_
