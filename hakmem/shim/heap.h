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
void* AllocateSlow(size_t size);
void* AllocateMedium(size_t size);
void FreeSlow(void* block);

// A block of at least `size` bytes, aligned to 16 (8 when size <= 8), or null
// with errno set to ENOMEM.
inline void* Allocate(size_t size) {
  if (size > kMaxTinySize) [[unlikely]]
    return AllocateMedium(size);
  void* const block = thread_cache.PopSmall(size);
  if (block == nullptr) [[unlikely]]
    return AllocateSlow(size);
  return block;
}

// Takes a block back; null is ignored. errno is kept. Ends the program with one
// line on stderr when `block` is seen to be no live block.
inline void Free(void* block) {
  if (!thread_cache.Push(block)) [[unlikely]]
    FreeSlow(block);
}

// Free(), by a caller who says what the block was allocated with.
inline void FreeSized(void* block, size_t size, size_t alignment) {
  if constexpr (kChecked) CheckSize(block, size, alignment);
  Free(block);
}

// As Allocate(count * size), all bytes zero.
void* AllocateZeroed(size_t count, size_t size);

// As Allocate(), at a multiple of `alignment`, a power of two.
void* AllocateAligned(size_t alignment, size_t size);

// realloc(): see hak_realloc().
void* Reallocate(void* block, size_t size);

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

// Name of the stage that this library was built as.
const char* StageName();

// Registers the handlers that keep the heap whole over fork(). Once, early.
void InstallForkHandlers();

// Adds the counters of one pool to `out`; says whether the pool has thread
// caches, without which they are 0.
bool GetPoolCounters(uint32_t pool, CacheCounters& out);

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_HEAP_H_
