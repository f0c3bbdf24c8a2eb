// The locked variant of a pool, and the back end of its cached variant: slabs
// of every class of the pool, each behind the Mutex of its class.

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
// Classes share a pool's locks, kLocks of them: with one for all, 16 threads on
// as many cores that replaced blocks of 2 to 32 KiB waited most of their time.
//
// Thread safety: every function may be called from any thread; each takes the
// lock of its class, or those of all classes one after the other. Slabs come
// from the arena, and go there, while none is held; below them is the arena's
// where pages go, or an owner gets a slab. Invariants:
//  1. A slab with all blocks taken is in no list; the first block that comes
//     back puts it into one.
//  2. A slab with all blocks free is its class's active slab, or is on its way
//     to the arena or from there: an owner's always.
class LockedPool {
 public:
  explicit constexpr LockedPool(const PoolGeometry& geometry,
                                Mutex::Locking locking = Mutex::Locking::kFull)
      : geometry_(geometry) {
    if (locking != Mutex::Locking::kNone) return;
    purge_mu_.NeverLock();
    for (uint32_t i = 0; i < kLocks; ++i) states_[i].mu.NeverLock();
  }

  const PoolGeometry& geometry() const { return geometry_; }

  // Says that from now on Decay() is called time and again. Until then, pages
  // go as soon as there are too many, whatever HAKMEM_PURGE says of later.
  void NoteTidied() { is_tidied_.store(true, std::memory_order_relaxed); }

  // A block of the class, or null when memory has run out. `*zeroed`, unless
  // null, says whether the block is known to read as zero. This and Free() may
  // change errno when others contend; all else keeps it.
  void* Allocate(SizeClass size_class, bool* zeroed = nullptr);

  // Takes back a block of the class. Ends the program when it is none, or is
  // free already.
  void Free(SizeClass size_class, void* block);

  // Takes up to `count` blocks at once and writes them to out[0...]. Returns
  // how many; fewer than asked for only when memory has run out. The last one
  // has the lowest address of its slab.
  uint32_t AllocateBatch(SizeClass size_class, void** out, uint32_t count);

  // Free() for all of blocks[0..count), under one lock.
  void FreeBatch(SizeClass size_class, void* const* blocks, uint32_t count);

  // An owner is a site and a twin of at most kLastL2Class that has slabs of its
  // own, under this key in the arena's owner map: none of their blocks goes
  // to anybody else, and whose a block is can be told from its address. All
  // have this tag, the site without a birth. It is made once and for all, and
  // `number` is 0 until then and it for ever after; or 0 still when metadata
  // has run out.
  void MakeOwner(SizeClass twin, uint32_t key, Tag tag,
                 std::atomic<uint32_t>& number);

  // Gives the owner a bin of its own, if it has none and there is one: a number
  // in the class map, and in the cache of each thread. For ever, too.
  void GiveOwnBin(uint32_t owner);

  // That bin; 0 for none.
  static uint32_t OwnBinOf(uint32_t owner) {
    return OwnerOf(owner)->bin.load(std::memory_order_acquire);
  }

  // AllocateBatch() from the owner's slabs. Free() and FreeBatch() find out by
  // themselves whose a block is.
  uint32_t AllocateOwned(uint32_t owner, void** out, uint32_t count);

  // What threads exchange an owner's free blocks over: see
  // CachedPool::StoreOwned().
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
  size_t ReleaseEmptySlabs();

  // Returns the pages of all other slabs that hold no part of a live block to
  // the system. Says how many bytes.
  size_t Purge();

  // Returns those that nobody wanted for long enough, of slabs that are half
  // empty, unless another thread is at it. Says how many bytes. `now` is
  // os::CoarseMilliseconds().
  size_t Decay(int64_t now);

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
  Usage GetUsage();

  // Whether a block of the class begins at `block` and waits in its slab. Ends
  // the program when none begins there.
  bool IsFree(SizeClass size_class, const void* block);

  // The lock of a class.
  Mutex& MutexOf(SizeClass size_class) {
    return states_[geometry_.BinOf(size_class) % kLocks].mu;
  }

  // Calls fn(mutex) for all locks of the pool, in the order in which more than
  // one may be held.
  template <typename Fn>
  void ForEachMutex(Fn fn) {
    fn(purge_mu_);
    for (uint32_t i = 0; i < kLocks; ++i) fn(states_[i].mu);
  }

  // The demand (demand.h) hears of what a class has handed out in steps of so
  // many bytes, and later than it happens where blocks come and go one by one:
  // to say it takes a cache line from all other threads.
  static constexpr int64_t kShownStep = 16 << 10;

  // What a stage calls, the same for every variant of a pool; this one has no
  // use for the calling thread's cache.
  static constexpr bool kCached = false;
  void* Allocate(ThreadCache&, SizeClass size_class, bool* zeroed = nullptr) {
    return Allocate(size_class, zeroed);
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
  Magazine* LoadOwned(uint32_t) { return nullptr; }

 private:
  // Partly used slabs stand in lists by how full they are, in eighths, so that
  // a refill takes from the fullest ones and the emptiest get their chance to
  // become free.
  static constexpr uint32_t kBuckets = 8;

  // Free pages are looked for in slabs of this bucket and above: in fuller ones
  // there are few, and their blocks are wanted back first.
  static constexpr uint32_t kFirstPurgedBucket = kBuckets / 2;

  // So many that a thread that forks, and holds those of all pools, holds less
  // than the 64 locks that TSan can keep count of.
  static constexpr uint32_t kLocks = 16;

  // What every call needs stands in one cache line, and with it the lock: on
  // lines of their own 16 locks took P0 on one thread 6 % more time than one.
  struct alignas(64) ClassState {
    ObservedClass counts{};  // of a class, its owners' slabs included
    Slab* active = nullptr;  // blocks are taken from here
    size_t shown = 0;        // bytes of `taken` that the demand knows of
    Mutex mu{Mutex::Locking::kFull};  // used of the first kLocks only
    // Of the slabs in the lists; changes under the lock.
    std::atomic<uint32_t> dirty_pages{0};
    std::array<Slab*, kBuckets> lists{};
  };
  static_assert(offsetof(ClassState, lists) == 64);

  // In metadata, and never given back.
  struct Owner {
    ClassState state;  // under the lock of its twin
    Depot depot;
    Owner* next;
    SizeClass twin;
    uint32_t key;
    Tag tag;
    std::atomic<uint32_t> bin;  // changes under that lock
  };

  ClassState& StateOf(SizeClass size_class)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(MutexOf(size_class)) {
    return states_[geometry_.BinOf(size_class)];
  }
  static Owner* OwnerOf(uint32_t number) {
    return static_cast<Owner*>(arena.PieceAt(number));
  }
  // Calls fn(state) for all classes, and then all owners, each under its lock.
  template <typename Fn>
  void ForEachState(Fn fn);
  // Gives the class, or the owner, an active slab with a free block, from its
  // lists or from `*fresh`; false when there is none.
  bool Activate(ClassState& state, SizeClass size_class, uint32_t owner,
                Slab** fresh)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(MutexOf(size_class));
  // Blocks of the class, or of the owner if it is not 0.
  uint32_t AllocateFrom(SizeClass size_class, uint32_t owner, void** out,
                        uint32_t count)
      ABSL_LOCKS_EXCLUDED(MutexOf(size_class));
  static Slab* CreateSlabs(SizeClass size_class, uint32_t owner,
                           uint32_t blocks);
  static void DestroySlabs(Slab* slabs);
  // What is to be done when the lock has been given back.
  struct Then {
    bool look = false;      // there may be more free pages than may stay
    Slab* empty = nullptr;  // to be destroyed; it is in no list
  };
  Then FreeLocked(ClassState& of_class, SizeClass size_class, void* block)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(MutexOf(size_class));
  // The rest of it, for a slab that has come to its file_at.
  Then FileFreed(ClassState& of_class, SizeClass size_class, Slab* slab)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(MutexOf(size_class));
  static void Unlist(Slab* slab);
  static uint16_t ActiveFileAt(const Slab* slab);
  static void SetFileAt(Slab* slab);
  // Puts a slab that is not active where its number of free blocks says.
  Then File(ClassState& state, SizeClass size_class, Slab* slab)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(MutexOf(size_class));
  void CountDirty(ClassState& state, Slab* slab, uint32_t before);
  void NoteFirstSlab(SizeClass size_class, ClassState& of_class);
  void Regret(uint32_t pages, int64_t now);
  // Adds to one of the counts of a class, under its lock.
  static void Count(std::atomic<uint64_t>& count, int64_t change) {
    count.store(
        count.load(std::memory_order_relaxed) + static_cast<uint64_t>(change),
        std::memory_order_relaxed);
  }
  // Tells the demand what a class has handed out, in steps. Where slabs come
  // and go, and with batches: what is allocated block by block is told then
  // too.
  void Show(ClassState& of_class, SizeClass size_class) {
    const size_t bytes = of_class.counts.taken.load(std::memory_order_relaxed) *
                         ClassSize(size_class);
    const auto change = static_cast<int64_t>(bytes - of_class.shown);
    if (change > -kShownStep && change < kShownStep) return;
    of_class.shown = bytes;
    arena.demand().Add(geometry_.index, change);
  }
  void PurgeBeyondBound();
  size_t PurgePages(size_t pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(purge_mu_);
  bool PurgeList(ClassState& state, SizeClass size_class, uint32_t bucket,
                 size_t pages, size_t* purged);
  static bool HasDirty(const ClassState& state) {
    return state.dirty_pages.load(std::memory_order_relaxed) != 0;
  }
  size_t own_dirty_pages() const {
    return own_dirty_pages_.load(std::memory_order_relaxed);
  }

  bool is_tidied() const { return is_tidied_.load(std::memory_order_relaxed); }

  static constinit std::atomic<size_t> dirty_pages_;

  const PoolGeometry geometry_;
  // Held while pages are purged because there are too many or nobody wants
  // them, so that one thread does that; above the lock of a class. Nobody waits
  // for it: who does may come by again in the middle of the wait (mutex.cc).
  alignas(64) Mutex purge_mu_;
  Retention retention_{arena.regretted(), os::kPageSize};
  std::atomic<size_t> own_dirty_pages_{0};
  std::atomic<bool> shown_{false};  // the states, to those who look
  std::atomic<bool> is_tidied_{false};
  std::atomic<Owner*> owners_{nullptr};
  // By bin. The lock of a bin is in states_[bin % kLocks].
  std::array<ClassState, kMaxPoolBins> states_;
  static_assert(kLocks <= kMaxPoolBins);
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_LOCKED_POOL_H_
