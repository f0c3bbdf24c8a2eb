#include "hakmem/shim/heap.h"

#include <pthread.h>
#include <sys/single_threaded.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hakmem/shim/background.h"
#include "hakmem/shim/profile_thread.h"
#include "hakmem/shim/sampled.h"
#include "hakmem/shim/stage.h"

// The C library's lock over all of its FILEs, which fork() takes as well. It is
// recursive.
extern "C" {
[[gnu::weak]] void _IO_list_lock();
[[gnu::weak]] void _IO_list_unlock();
[[gnu::weak]] void _IO_list_resetlock();
}

namespace hakmem::heap {

namespace {

// A block of a class of which the thread has none in its bin, or null. What
// reads as zero is known of L25 alone.
void* AllocateFromPool(SizeClass size_class, bool* zeroed) {
  const ErrnoKeeper keeper;
  const SizeClass plain = PlainOf(size_class);
  if (plain <= kLastTinyClass)
    return tiny_pool.Allocate(thread_cache, size_class);
  if (plain <= kLastL2Class) return l2_pool.Allocate(thread_cache, size_class);
  return l25_pool.Allocate(thread_cache, size_class, zeroed);
}

}  // namespace

void* AllocateFromClass(SizeClass size_class, bool* zeroed) {
  void* block = thread_cache.Pop(size_class);
  if (block == nullptr) block = thread_cache.SwapAndPop(size_class);
  return block != nullptr ? block : AllocateFromPool(size_class, zeroed);
}

LockedPool& BackendOf(SizeClass size_class) {
  const SizeClass plain = PlainOf(size_class);
  if (plain <= kLastTinyClass) return tiny_pool.backend();
  return plain <= kLastL2Class ? l2_pool.backend() : l25_pool.backend();
}

void FreeToPool(SizeClass size_class, void* block) {
  if (thread_cache.SwapAndPush(size_class, block)) return;
  const ErrnoKeeper keeper;
  const SizeClass plain = PlainOf(size_class);
  if (plain <= kLastTinyClass) {
    tiny_pool.Free(thread_cache, size_class, block);
  } else if (plain <= kLastL2Class) {
    l2_pool.Free(thread_cache, size_class, block);
  } else {
    l25_pool.Free(thread_cache, size_class, block);
  }
}

// This thread's magazines, the depots, slabs without a block in use. And the
// magazines that are empty by then back to the metadata, which slabs need as
// well.
void Reclaim() {
  thread_cache.site_cache().ReturnBlocks();
  thread_cache.FlushBins();
  ThreadCache::FlushParked(ThreadCache::Parked::kAll);
  const auto reclaim = [](auto& pool) {
    pool.DrainDepots();
    pool.backend().ReleaseEmptySlabs();
  };
  reclaim(tiny_pool);
  reclaim(l2_pool);
  reclaim(l25_pool);
  magazine_store.Release();
}

void* OutOfMemory() {
  errno = ENOMEM;
  return nullptr;
}

// What every allocation comes to that no bin and no pool could serve. A block
// of any size may be a run of its own or a direct mapping, so small ones go on
// too when the arena is full or was never granted; but a granule each is much
// for them, and what others wait with comes first.
void* AllocateLast(SizeClass size_class, size_t size, size_t alignment,
                   bool* zeroed, Tag tag) {
  if (size > PTRDIFF_MAX) return OutOfMemory();
  const ErrnoKeeper keeper;
  if (size_class != kNoClass) {
    Reclaim();
    if (void* const block = AllocateFromClass(size_class, zeroed)) return block;
    return AllocateLarge(size, alignment, zeroed, tag);
  }
  if (void* const block = AllocateLarge(size, alignment, zeroed, tag)) {
    return block;
  }
  Reclaim();
  return AllocateLarge(size, alignment, zeroed, tag);
}

namespace {

// Whether a block of the class, a twin too, is resized to `size` bytes where it
// is: it shrinks in place while at least half of it stays in use. To be checked
// against the size that it is given back with, it has to be of the class of
// that size.
bool StaysInPlace(SizeClass size_class, size_t size) {
  if constexpr (kChecked) {
    const SizeClass plain = ClassFor(size, 1);
    return (IsTwin(size_class) ? TwinOf(plain) : plain) == size_class;
  }
  const size_t old_size = ClassSize(size_class);
  return size <= old_size && size >= old_size / 2;
}

// For a class whose bin is empty, and no site. Out of line, so that who finds a
// block in the bin has no stack frame.
[[gnu::noinline]] void* AllocateMissedOrLast(SizeClass size_class, size_t size,
                                             size_t alignment,
                                             bool* zeroed = nullptr) {
  void* block = thread_cache.SwapAndPop(size_class);
  if (block != nullptr) return block;
  if (thread_cache.CountMiss(size_class)) thread_cache.NextWindow();
  block = AllocateFromPool(size_class, zeroed);
  if (block != nullptr) [[likely]]
    return block;
  block = AllocateLast(size_class, size, alignment, zeroed, kNoTag);
  return block != nullptr ? block : OutOfMemory();
}

// For a thread whose plain allocations belong to a site, or that has not asked
// yet.
[[gnu::noinline]] void* AllocateMarked(size_t size, size_t alignment,
                                       const void* caller) {
  uint32_t site;
  if (Mark() == ThreadCache::kBySample) {
    site = SampledSite(size, alignment, caller);
  } else {
    site = MarkedSite(caller);
  }
  return site != kNoSite ? AllocateTracked(size, alignment, site)
                         : AllocateUntracked(size, alignment);
}

bool IsMarked() { return thread_cache.mark() != ThreadCache::kNotMarked; }

// Whether this thread's plain allocations belong to sites, or it has not asked
// yet.
bool AreForSites() {
  return IsMarked() && thread_cache.mark() != ThreadCache::kBySample;
}

// AllocateMarked() of more than kMaxTinySize bytes.
[[gnu::noinline]] void* AllocateMarkedMediumSlow(size_t size,
                                                 const void* caller) {
  if (size <= kMaxPooledSize && thread_cache.mark() != ThreadCache::kBySample) {
    const SizeClass size_class = MediumSizeToClass(size);
    void* const block = AllocateMarkedPooled(size_class, caller);
    if (block != nullptr) return block;
  }
  return AllocateMarked(size, 1, caller);
}

// The same, and short for what a thread that counts by callers has most of,
// blocks of busy ones. By itself, so that it has no stack frame.
[[gnu::noinline]] void* AllocateMarkedMedium(size_t size, const void* caller) {
  if (thread_cache.mark() == ThreadCache::kByCaller && size <= kMaxL2Size) {
    void* block;
    if (TakeMediumByRecent(size, caller, &block)) [[likely]]
      return block;
  }
  return AllocateMarkedMediumSlow(size, caller);
}

// AllocateMarked() of more than kMaxL2Size bytes, and short for what a thread
// that takes samples has most of.
[[gnu::noinline]] void* AllocateMarkedL25(size_t size, const void* caller) {
  if (thread_cache.mark() == ThreadCache::kBySample && size <= kMaxPooledSize) {
    const SizeClass size_class = MediumSizeToClass(size);
    if (thread_cache.sampler().PassL25Block(size_class)) [[likely]]
      return AllocateUntrackedOf(size_class, size, 16);
  }
  return AllocateMarkedMedium(size, caller);
}

}  // namespace

void* AllocateUntrackedOf(SizeClass size_class, size_t size, size_t alignment,
                          bool* zeroed) {
  if (zeroed != nullptr) *zeroed = false;
  void* const block = thread_cache.Pop(size_class);
  if (block != nullptr) return block;
  return AllocateMissedOrLast(size_class, size, alignment, zeroed);
}

void* AllocateUntracked(size_t size, size_t alignment) {
  const SizeClass size_class = ClassFor(size, alignment);
  if (size_class != kNoClass) {
    return AllocateUntrackedOf(size_class, size, alignment);
  }
  void* const block = AllocateLast(kNoClass, size, alignment, nullptr, kNoTag);
  return block != nullptr ? block : OutOfMemory();
}

namespace {

// The rest of AllocateSlow() for a thread that counts by callers.
[[gnu::noinline]] void* AllocateByCaller(size_t size, const void* caller) {
  void* const block = AllocateTinyByCaller(size, caller);
  return block != nullptr ? block : AllocateMarked(size, 1, caller);
}

}  // namespace

[[gnu::noinline]] void* AllocateSlow(size_t size, const void* caller) {
  const uint32_t mark = thread_cache.mark();
  if (mark == ThreadCache::kByCaller) return AllocateByCaller(size, caller);
  if (mark == ThreadCache::kNotMarked) {
    return AllocateMissedOrLast(SmallSizeToClass(size), size, 16);
  }
  if (mark == ThreadCache::kBySample) return AllocateCounted(size, caller);
  void* const block = AllocateTiny(size, mark);
  return block != nullptr ? block : AllocateMarked(size, 1, caller);
}

// L2 has a table, and a thread that counts for samples a way of its own here,
// of five instructions more than that of one without a mark: larson with 2-32
// KiB took 1.05 to 1.1 times as long where both went by ClassByBits() and such
// a thread by AllocateMarkedMedium(), 1.03 as it is. L25 takes some ten more.
[[gnu::noinline]] void* AllocateMedium(size_t size, const void* caller) {
  if (size <= kMaxL2Size) [[likely]] {
    const size_t size_class = L2SizeToClass(size);
    if (thread_cache.l2_way() != ThreadCache::L2Way::kPlain) [[unlikely]] {
      if (thread_cache.l2_way() != ThreadCache::L2Way::kCounted) {
        return AllocateMarkedMedium(size, caller);
      }
      if (thread_cache.sampler().PassL2Block(size_class)) [[likely]] {
        void* const block = thread_cache.Pop(size_class);
        if (block != nullptr) [[likely]]
          return block;
      }
      return AllocateCountedL2(size, caller);
    }
    void* const block = thread_cache.Pop(size_class);
    if (block != nullptr) [[likely]]
      return block;
    return AllocateMissedOrLast(size_class, size, 16);
  }
  if (IsMarked()) [[unlikely]]
    return AllocateMarkedL25(size, caller);
  if (size <= kMaxPooledSize) [[likely]] {
    const SizeClass size_class = MediumSizeToClass(size);
    void* const block = thread_cache.Pop(size_class);
    if (block != nullptr) [[likely]]
      return block;
    return AllocateMissedOrLast(size_class, size, 16);
  }
  return AllocateUntracked(size, 16);
}

namespace {

[[gnu::noinline]] void FreePlainSlow(void* block, SizeClass size_class) {
  if (size_class != kNoClass) return FreeToPool(size_class, block);
  const ErrnoKeeper keeper;
  CountLargeFree(FreeLarge(block));
}

}  // namespace

[[gnu::noinline]] void FreeSlow(void* block, size_t value) {
  if (FreeTiny(block, value)) return;
  if (block == nullptr) return;
  // A thread without a cache has no view.
  const SizeClass size_class = arena.ClassOf(block);
  if (IsTwin(size_class)) return FreeTwinSlow(block, size_class);
  FreePlainSlow(block, size_class);
}

void* AllocateZeroed(size_t count, size_t size, const void* caller,
                     uint32_t site) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) return OutOfMemory();
  if (site == kNoSite && bytes <= kMaxL2Size) {
    void* const block = AllocateFor(bytes, caller);
    // What nobody has used yet is zero already: too little to ask for it.
    return block == nullptr ? nullptr : std::memset(block, 0, bytes);
  }
  if (site == kNoSite && IsMarked()) {
    site = Mark() == ThreadCache::kBySample ? SampledSite(bytes, 1, caller)
                                            : MarkedSite(caller);
  }
  bool zeroed = false;
  void* block;
  if (site != kNoSite) {
    block = AllocateTracked(bytes, 1, site, &zeroed);
  } else if (bytes <= kMaxPooledSize) {
    block = AllocateUntrackedOf(MediumSizeToClass(bytes), bytes, 16, &zeroed);
  } else {
    block = AllocateLast(kNoClass, bytes, 16, &zeroed, kNoTag);
  }
  if (block == nullptr) return OutOfMemory();
  return zeroed ? block : std::memset(block, 0, bytes);
}

SizeClass ClassFor(size_t size, size_t alignment) {
  if (size > kMaxPooledSize) return kNoClass;
  return alignment <= 16 ? SizeToClass(std::max(size, alignment))
                         : AlignedSizeToClass(size, alignment);
}

void* AllocateAligned(size_t alignment, size_t size, const void* caller) {
  if (alignment <= 16) return AllocateFor(std::max(size, alignment), caller);
  if (IsMarked()) return AllocateMarked(size, alignment, caller);
  return AllocateUntracked(size, alignment);
}

size_t UsableSize(const void* block) {
  if (block == nullptr) return 0;
  if constexpr (kChecked) CheckLive(block);
  const SizeClass size_class = arena.ClassOf(block);
  return size_class != kNoClass ? ClassSize(size_class) : LargeSize(block);
}

namespace {

// Ends the program when `block` is no block of the class. Beside a copy this
// costs little: it is seen here and not when it has been handed out again.
void ExpectBlock(const void* block, SizeClass size_class) {
  if (const Span* const span = arena.SpanOf(block)) {
    static_cast<const Slab*>(span)->IndexOf(size_class, block);
  }
}

[[gnu::noinline]] void* ReallocateSlow(void* block, size_t size,
                                       const void* caller, uint32_t site) {
  if (block == nullptr) {
    return site != kNoSite ? AllocateTracked(size, 1, site)
                           : AllocateFor(size, caller);
  }
  if (size == 0) {
    Free(block);
    return nullptr;
  }
  const size_t old_size = UsableSize(block);
  const SizeClass size_class = arena.ClassOf(block);
  if (size_class != kNoClass) {
    if (StaysInPlace(size_class, size)) {
      if (site == kNoSite) return block;
      if (IsTwin(size_class) && MayMoveToSite(block, site)) {
        MoveToSite(block, site);
        return block;
      }
    }
    ExpectBlock(block, size_class);
  } else if (size > kMaxPooledSize && size <= PTRDIFF_MAX) {
    const ErrnoKeeper keeper;
    const bool stays = site == kNoSite || LargeTag(block) != kNoTag;
    void* const resized = stays ? ResizeLarge(block, size) : nullptr;
    if (resized != nullptr) {
      CountLargeResize(resized, old_size);
      if (site != kNoSite) MoveToSite(resized, site);
      return resized;
    }
  }
  const int saved_errno = errno;
  // The site of the call, or else the block's own.
  uint32_t moved_site = site;
  if (moved_site == kNoSite && IsMarked()) moved_site = MarkedSite(caller);
  if (moved_site == kNoSite) {
    // A block that moves is as likely to be a sample as any other new one.
    const uint32_t own = SiteOfBlock(block);
    if (!IsStack(own)) moved_site = own;
  }
  void* const moved = moved_site != kNoSite
                          ? AllocateTracked(size, 1, moved_site)
                          : AllocateFor(size, caller);
  if (moved == nullptr) {
    // What is to shrink has room where it is.
    if (kChecked || site != kNoSite || size > old_size) return nullptr;
    errno = saved_errno;
    return block;
  }
  std::memcpy(moved, block, std::min(size, old_size));
  Free(block);
  return moved;
}

// For a block of a pool that is counted for nobody, on a thread that counts for
// no site unless that of a sample, where more is asked for than the block has:
// what most calls that move a block come to. A small one takes 57 % of the
// instructions that it takes by ReallocateSlow().
[[gnu::noinline]] void* ReallocateGrown(void* block, SizeClass size_class,
                                        size_t size, const void* caller) {
  ExpectBlock(block, size_class);
  void* const moved = AllocateFor(size, caller);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, block, ClassSize(size_class));
  Free(block);
  return moved;
}

}  // namespace

void* Reallocate(void* block, size_t size, const void* caller, uint32_t site) {
  if constexpr (kChecked) return ReallocateSlow(block, size, caller, site);
  if (site != kNoSite) return ReallocateSlow(block, size, caller, site);
  const SizeClass value = thread_cache.view().ClassOf(block);
  if (value - 1 < kNumClasses - 1) {
    // A buffer that grows bit by bit mostly has room: no more than this then.
    if (StaysInPlace(value, size)) return block;
    if (size > ClassSize(value) && !AreForSites()) {
      return ReallocateGrown(block, value, size, caller);
    }
  } else if (block == nullptr) {
    return AllocateFor(size, caller);
  }
  return ReallocateSlow(block, size, caller, site);
}

namespace {

// Returns the free pages of slabs. Does not say how many: of the slab that
// blocks are taken from, pages that went before would be counted again.
void PurgeSlabs() {
  tiny_pool.backend().Purge();
  l2_pool.backend().Purge();
  l25_pool.backend().Purge();
}

}  // namespace

size_t Release(size_t keep) {
  const ErrnoKeeper keeper;
  const size_t before = arena.GetStats().purged_bytes;
  Reclaim();
  PurgeSlabs();
  arena.Purge(keep);
  const size_t of_tables = arena.PurgeMetadata();
  return arena.GetStats().purged_bytes - before + of_tables;
}

size_t ReleaseAtLeast(size_t bytes) {
  const ErrnoKeeper keeper;
  const size_t before = arena.GetStats().purged_bytes;
  const auto purge = [bytes, before] {
    const Arena::Stats stats = arena.GetStats();
    const size_t done = stats.purged_bytes - before;
    const size_t missing = bytes - std::min(bytes, done);
    if (missing != 0) {
      arena.Purge(stats.dirty_bytes - std::min(stats.dirty_bytes, missing));
    }
    return arena.GetStats().purged_bytes - before;
  };
  if (const size_t done = purge(); done >= bytes) return done;
  Reclaim();
  const size_t done = purge();
  if (done < bytes) PurgeSlabs();
  return done;
}

const char* StageName() { return kStageName; }

void ShowHeap() {
  std::strncpy(hak_observed.stage, kStageName, sizeof(hak_observed.stage) - 1);
  hak_observed.version = kObservedVersion;
  hak_observed.bytes = sizeof(hak_observed);
  hak_observed.tick_milliseconds = kTickMilliseconds;
  hak_observed.age_buckets = kAgeBuckets;
  hak_observed.magic.store(kObservedMagic, std::memory_order_release);
}

namespace {

// All locks, in the one order in which more than one may be held.
template <typename Fn>
void ForEachMutex(Fn fn) {
  fn(ThreadCache::registry_mutex());
  tiny_pool.backend().ForEachMutex(fn);
  l2_pool.backend().ForEachMutex(fn);
  l25_pool.backend().ForEachMutex(fn);
  arena.ForEachMutex(fn);
  fn(direct_mappings.mutex());
  fn(site_table.mutex());
}

// How many calls of fork() this thread is in whose locks are held: more than
// one where a signal handler that interrupted a fork() forks.
constinit thread_local int forks = 0;

// A process of one thread may fork from a signal handler that interrupted
// malloc(), and then needs no lock: nobody else holds any, and those of the
// interrupted call are to be held in the child too, since it goes on there.
// glibc's own malloc does the same.
void BeforeFork() {
  if (forks == 0 && __libc_single_threaded) return;
  if (++forks != 1) return;
  // Before ours, as glibc has it too: who holds the list waits for a FILE, and
  // who holds that may be in malloc().
  if (_IO_list_lock != nullptr) _IO_list_lock();
  // Others are held while one is waited for: as with inner locks (mutex.cc).
  const Mutex::ThreadSetUp scope;
  ForEachMutex([](Mutex& mu)
                   ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.LockForFork(); });
  Mutex::BeginFork();
}

// Whether the locks that BeforeFork() took are to be given back now. If so,
// `forks` stays 1 until that is done.
bool LeavesOutermostFork() {
  if (forks <= 1) return forks == 1;
  --forks;
  return false;
}

void AfterForkInParent() {
  if (!LeavesOutermostFork()) return;
  Mutex::EndFork();
  ForEachMutex([](Mutex& mu) ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.Unlock(); });
  if (_IO_list_unlock != nullptr) _IO_list_unlock();
  forks = 0;
}

void AfterForkInChild() {
  if (!LeavesOutermostFork()) return;
  ForEachMutex([](Mutex& mu) { mu.Remake(); });
  Mutex::EndFork();
  if (_IO_list_resetlock != nullptr) _IO_list_resetlock();
  forks = 0;
  tag_clock.AfterForkInChild();
  ThreadCache::AdoptOrphans();
  RestartBackgroundInChild();
  RestartProfileThreadInChild();
}

}  // namespace

void InstallForkHandlers() {
  pthread_atfork(&BeforeFork, &AfterForkInParent, &AfterForkInChild);
}

bool GetPoolCounters(uint32_t pool, CacheCounters& out) {
  ThreadCache::SumCounters(pool, out);
  if (pool == tiny::kGeometry.index) return tiny_pool.kCached;
  if (pool == l2::kGeometry.index) return l2_pool.kCached;
  return l25_pool.kCached;
}

}  // namespace hakmem::heap
