// The heap: the three pools of this stage, large blocks, and the routes between
// them. All public calls, of hakmem.h, malloc.cc and new.cc, end here.
//
// The fast paths stand in this header, so that malloc() and free() are one
// function each: some fifteen instructions without a lock, a shared line or a
// stack frame. They are the same in every stage. A stage only decides which
// pools give their bins any room; a bin without room always takes the slow
// path, and the slow path leads to the locked pool.

#ifndef HAKMEM_SHIM_HEAP_H_
#define HAKMEM_SHIM_HEAP_H_

#include <cstddef>

#include "hakmem/core/core.h"
#include "hakmem/shim/tracked.h"

namespace hakmem::heap {

// Whether this library looks at what the program says of its blocks
// (--config=checked): see check.cc. Costs nothing where it is false.
#ifdef HAKMEM_CHECKED
inline constexpr bool kChecked = true;
#else
inline constexpr bool kChecked = false;
#endif

// End the program with one line on stderr: unless `block` is null or a live
// block, as far as its slab can tell; and unless it is null or was allocated by
// Allocate(size) or, for an `alignment` above 1, AllocateAligned().
void CheckLive(const void* block);
void CheckSize(const void* block, size_t size, size_t alignment);

// The slow paths, out of line. Contracts as for Allocate() and Free().
// AllocateSlow() is for sizes of which ThreadCache::PopCounted() has counted
// one. `value` is what this thread's view says of `block`. It is a size_t,
// since that is what Free() has in a register: as a SizeClass it cost one
// instruction there.
void* AllocateSlow(size_t size, const void* caller);
void* AllocateMedium(size_t size, const void* caller);
void FreeSlow(void* block, size_t value);

// AllocateFor() the address that `caller()` returns. Asks for it where it is
// needed, so that the fast path does without.
template <typename Caller>
[[gnu::always_inline]] inline void* AllocateBy(size_t size, Caller caller) {
  if (size > kMaxTinySize) [[unlikely]]
    return AllocateMedium(size, caller());
  const size_t bin = thread_cache.SmallBin(size);
  void* const block = thread_cache.Pop(bin);
  if (block != nullptr) [[likely]]
    return block;
  // For every bin, door or not: to ask first which it is would take two
  // instructions, as many as what is no door takes in PopCounted().
  void* taken;
  if (thread_cache.PopCounted(bin, &taken)) [[likely]]
    return taken;
  const void* const by = caller();
  if (thread_cache.mark() == ThreadCache::kByCaller &&
      TakeByRecent(size, by, &taken)) {
    return taken;
  }
  return AllocateSlow(size, by);
}

// A block of at least `size` bytes, aligned to 16 (8 when size <= 8), or null
// with errno set to ENOMEM. `caller` is the address in the program that the
// call returns to, for HAKMEM_SITES=caller.
inline void* AllocateFor(size_t size, const void* caller) {
  return AllocateBy(size, [caller] { return caller; });
}

// AllocateFor() whoever called the function that this is part of.
[[gnu::always_inline]] inline void* Allocate(size_t size) {
  return AllocateBy(
      size, []() __attribute__((always_inline)) {
        return __builtin_return_address(0);
      });
}

// The same, whatever site the thread's plain allocations belong to: none.
void* AllocateUntracked(size_t size, size_t alignment);

// The same of a class that serves such a size and alignment. Who needs zeros
// gives `zeroed`, which says whether the block is known to read as zero.
void* AllocateUntrackedOf(SizeClass size_class, size_t size, size_t alignment,
                          bool* zeroed = nullptr);

// Takes a block back; null is ignored. errno is kept. Ends the program with one
// line on stderr when `block` is seen to be no live block.
inline void Free(void* block) {
  const SizeClass size_class = thread_cache.view().ClassOf(block);
  if (!thread_cache.Push(size_class, block)) [[unlikely]]
    FreeSlow(block, size_class);
}

// Free(), by a caller who says what the block was allocated with.
inline void FreeSized(void* block, size_t size, size_t alignment) {
  if constexpr (kChecked) CheckSize(block, size, alignment);
  Free(block);
}

// As AllocateFor(count * size, caller), all bytes zero; for `site` unless it is
// kNoSite.
void* AllocateZeroed(size_t count, size_t size, const void* caller,
                     uint32_t site = kNoSite);

// As AllocateFor(), at a multiple of `alignment`, a power of two.
void* AllocateAligned(size_t alignment, size_t size, const void* caller);

// realloc(): see hak_realloc(), and for a `site` that is not kNoSite
// hak_realloc_at().
void* Reallocate(void* block, size_t size, const void* caller,
                 uint32_t site = kNoSite);

// Bytes of the block that may be used; 0 for null.
size_t UsableSize(const void* block);

// The class that serves AllocateAligned(alignment, size), or Allocate(size) for
// an alignment of 1; kNoClass where that is a large block.
SizeClass ClassFor(size_t size, size_t alignment);

// Returns to the system what only waits for reuse, but for `keep` bytes: what
// this thread and the depots have cached, empty slabs, free runs. The caches of
// other threads stay theirs. Says how many bytes the system got; those that
// other threads returned meanwhile may be among them.
size_t Release(size_t keep);

// As much of the same as it takes for the system to get `bytes` bytes, or all.
size_t ReleaseAtLeast(size_t bytes);

// Parts of the above, for tracked.cc. A block from the class's bin or its pool,
// or null; `zeroed` as above, but false before.
void* AllocateFromClass(SizeClass size_class, bool* zeroed = nullptr);
// A block of any size where no pool could serve it, with errno ENOMEM if null.
void* AllocateLast(SizeClass size_class, size_t size, size_t alignment,
                   bool* zeroed, Tag tag);
// The locked pool of a class.
LockedPool& BackendOf(SizeClass size_class);
// Gives a block whose bin is full to its pool.
void FreeToPool(SizeClass size_class, void* block);
// Brings all memory that only waits for reuse back to the arena.
void Reclaim();
// Sets errno to ENOMEM; null.
void* OutOfMemory();

// Name of the stage that this library was built as.
const char* StageName();

// Completes what tools read from outside (observed.h). Once, early.
void ShowHeap();

// Registers the handlers that keep the heap whole over fork(). Once, early.
void InstallForkHandlers();

// Adds the counters of one pool to `out`; says whether the pool has thread
// caches, without which they are 0.
bool GetPoolCounters(uint32_t pool, CacheCounters& out);

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_HEAP_H_
