// The locked variant of a pool, and the back end of its cached variant: slabs
// of every class of the pool behind one Mutex.

#ifndef HAKMEM_CORE_LOCKED_POOL_H_
#define HAKMEM_CORE_LOCKED_POOL_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "hakmem/core/depot.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/observed.h"
#include "hakmem/core/pool_geometry.h"
#include "hakmem/core/retention.h"
#include "hakmem/core/slab.h"

namespace hakmem {

class ThreadCache;

// Hands out blocks of the classes of one geometry.
//
// Thread safety: every function may be called from any thread; each takes the
// pool's lock, and below it the arena's when a slab comes or goes. Invariants:
//  1. A slab with all blocks taken is in no list; the first block that comes
//     back puts it into one.
//  2. A slab with all blocks free is its class's active slab, or is given back
//     to the arena: an owner's at once.
class LockedPool {
 public:
  explicit constexpr LockedPool(const PoolGeometry& geometry,
                                Mutex::Locking locking = Mutex::Locking::kFull)
      : geometry_(geometry), mu_(locking) {}

  const PoolGeometry& geometry() const { return geometry_; }

  // A block of the class, or null when memory has run out. This and Free() may
  // change errno when others contend; all else keeps it.
  void* Allocate(SizeClass size_class) ABSL_LOCKS_EXCLUDED(mu_);

  // Takes back a block of the class. Ends the program when it is none, or is
  // free already.
  void Free(SizeClass size_class, void* block) ABSL_LOCKS_EXCLUDED(mu_);

  // Takes up to `count` blocks at once and writes them to out[0...]. Returns
  // how many; fewer than asked for only when memory has run out. The last one
  // has the lowest address of its slab.
  uint32_t AllocateBatch(SizeClass size_class, void** out, uint32_t count)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Free() for all of blocks[0..count), under one lock.
  void FreeBatch(SizeClass size_class, void* const* blocks, uint32_t count)
      ABSL_LOCKS_EXCLUDED(mu_);

  // An owner is a site and a twin of at most kLastL2Class that has slabs of its
  // own, under this key in the arena's owner map: none of their blocks goes
  // to anybody else, and whose a block is can be told from its address. It is
  // made once and for all, and `number` is 0 until then and it for ever after;
  // or 0 still when metadata has run out.
  void MakeOwner(SizeClass twin, uint32_t key, std::atomic<uint32_t>& number)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Gives the owner a bin of its own, if it has none and there is one: a number
  // in the class map, and in the cache of each thread. For ever, too.
  void GiveOwnBin(uint32_t owner) ABSL_LOCKS_EXCLUDED(mu_);

  // That bin; 0 for none.
  static uint32_t OwnBinOf(uint32_t owner) {
    return OwnerOf(owner)->bin.load(std::memory_order_acquire);
  }

  // AllocateBatch() from the owner's slabs. Free() and FreeBatch() find out by
  // themselves whose a block is.
  uint32_t AllocateOwned(uint32_t owner, void** out, uint32_t count)
      ABSL_LOCKS_EXCLUDED(mu_);

  // What threads exchange an owner's free blocks over. Those there have the
  // owner's tag; see CachedPool::StoreOwned().
  static Depot& DepotOf(uint32_t owner) { return OwnerOf(owner)->depot; }

  // Calls fn(depot, twin) for all owners. Takes no lock.
  template <typename Fn>
  void ForEachDepotOfOwner(Fn fn) const {
    for (Owner* owner = owners_.load(std::memory_order_acquire);
         owner != nullptr; owner = owner->next) {
      fn(owner->depot, owner->twin);
    }
  }

  // Gives the arena all slabs that have no block in use. Says how many bytes.
  size_t ReleaseEmptySlabs() ABSL_LOCKS_EXCLUDED(mu_);

  // Returns the pages of all other slabs that hold no part of a live block to
  // the system. Says how many bytes.
  size_t Purge() ABSL_LOCKS_EXCLUDED(mu_);

  // Returns those that nobody wanted for HAKMEM_DECAY_MS, of slabs that are
  // half empty. Says how many bytes. `now` is os::CoarseMilliseconds().
  size_t Decay(int64_t now) ABSL_LOCKS_EXCLUDED(mu_);

  // Bytes of such pages in the slabs of all pools, as far as they are known: of
  // slabs that are half empty, when their live blocks last halved.
  static size_t dirty_bytes() {
    return dirty_pages_.load(std::memory_order_relaxed) * os::kPageSize;
  }

  struct Usage {
    size_t slab_bytes;   // granules of the slabs
    size_t free_bytes;   // blocks that wait in the slabs
    size_t taken_bytes;  // all other blocks: the program's, or cached
  };
  Usage GetUsage() ABSL_LOCKS_EXCLUDED(mu_);

  // Whether a block of the class begins at `block` and waits in its slab. Ends
  // the program when none begins there.
  bool IsFree(SizeClass size_class, const void* block) ABSL_LOCKS_EXCLUDED(mu_);

  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

  // What a stage calls, the same for every variant of a pool; this one has no
  // use for the calling thread's cache.
  static constexpr bool kCached = false;
  void* Allocate(ThreadCache&, SizeClass size_class) {
    return Allocate(size_class);
  }
  void Free(ThreadCache&, SizeClass size_class, void* block) {
    Free(size_class, block);
  }
  LockedPool& backend() { return *this; }
  size_t DrainDepots() { return 0; }
  size_t DepotBytes() const { return 0; }
  bool StoreOwned(ThreadCache&, uint32_t, SizeClass, void* const*, uint32_t) {
    return false;
  }
  uint32_t LoadOwned(ThreadCache&, uint32_t, SizeClass, void**, uint32_t) {
    return 0;
  }

 private:
  // Partly used slabs stand in lists by how full they are, in eighths, so that
  // a refill takes from the fullest ones and the emptiest get their chance to
  // become free.
  static constexpr uint32_t kBuckets = 8;

  // Free pages are looked for in slabs of this bucket and above: in fuller ones
  // there are few, and their blocks are wanted back first.
  static constexpr uint32_t kFirstPurgedBucket = kBuckets / 2;

  struct ClassState {
    ObservedClass counts{};    // of a class, its owners' slabs included
    Slab* active = nullptr;    // blocks are taken from here
    uint32_t dirty_pages = 0;  // of the slabs in the lists
    std::array<Slab*, kBuckets> lists{};
  };

  // In metadata, and never given back.
  struct Owner {
    Depot depot;
    ClassState state;  // under mu_
    Owner* next;
    SizeClass twin;
    uint32_t key;
    std::atomic<uint32_t> bin;  // changes under mu_
  };

  ClassState& StateOf(SizeClass size_class) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return classes_[geometry_.BinOf(size_class)];
  }
  static Owner* OwnerOf(uint32_t number) {
    return static_cast<Owner*>(arena.metadata().FromIndex(number));
  }
  // Calls fn(state, size_class) for all classes, and then all owners.
  template <typename Fn>
  void ForEachState(Fn fn) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Gives the class, or the owner, an active slab with a free block; false when
  // memory has run out.
  bool Activate(ClassState& state, SizeClass size_class, uint32_t owner)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t AllocateFrom(ClassState& state, SizeClass size_class, uint32_t owner,
                        void** out, uint32_t count)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FreeLocked(SizeClass size_class, void* block)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The rest of it, for a slab of an owner.
  void FreeOwned(Slab* slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Puts a slab that is not active where its number of free blocks says.
  void File(ClassState& state, Slab* slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountDirty(ClassState& state, Slab* slab, uint32_t before)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Regret(uint32_t pages, int64_t now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Adds to one of the counts of a class.
  static void Count(std::atomic<uint64_t>& count, int64_t change) {
    count.store(
        count.load(std::memory_order_relaxed) + static_cast<uint64_t>(change),
        std::memory_order_relaxed);
  }
  // Counts blocks that are handed out, or taken back where `change` is below 0.
  void CountTaken(ClassState& state, SizeClass size_class, int64_t change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Count(state.counts.taken, change);
    arena.demand().Add(geometry_.index,
                       change * static_cast<int64_t>(ClassSize(size_class)));
  }
  void ShowClasses() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PurgeBeyondBound() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t PurgeLocked(size_t pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool PurgeList(ClassState& state, uint32_t bucket, size_t pages,
                 size_t* purged) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  static constinit std::atomic<size_t> dirty_pages_;

  const PoolGeometry geometry_;
  Mutex mu_;
  Retention retention_ ABSL_GUARDED_BY(mu_);  // in pages
  size_t own_dirty_pages_ ABSL_GUARDED_BY(mu_) = 0;
  std::array<ClassState, kMaxPoolBins> classes_ ABSL_GUARDED_BY(mu_){};
  std::atomic<Owner*> owners_{nullptr};  // changes under mu_
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_LOCKED_POOL_H_
