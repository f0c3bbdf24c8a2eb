// For tests of what a pool and the calling thread's cache do to each other: a
// pool of the classes of Tiny, and one class of it.

#ifndef HAKMEM_CORE_TINY_TEST_POOL_H_
#define HAKMEM_CORE_TINY_TEST_POOL_H_

#include <cstddef>

#include "hakmem/core/core.h"

namespace hakmem {

inline constexpr PoolGeometry kGeometry = {.first_class = 1,
                                           .last_class = kLastTinyClass,
                                           .index = 0,
                                           .first_capacity = 14,
                                           .magazine_bytes = 4096,
                                           .depot_share = 16};
inline constinit LockedPool locked_pool(kGeometry);
inline constinit CachedPool cached_pool(locked_pool);
inline constexpr SizeClass kClass = 5;

// A block of kClass, and its way back, by the routes that malloc() and free()
// take.
inline void* Allocate() {
  void* const block = thread_cache.Pop(kClass);
  return block != nullptr ? block : cached_pool.Allocate(thread_cache, kClass);
}
inline void Free(void* block) {
  if (!thread_cache.Push(kClass, block)) {
    cached_pool.Free(thread_cache, kClass, block);
  }
}

// Bytes of slabs that are left once all has gone that waits for reuse in depots
// or was left by threads that ended.
inline size_t SlabBytesAfterRelease() {
  ThreadCache::FlushParked(ThreadCache::Parked::kAll);
  cached_pool.DrainDepots();
  locked_pool.ReleaseEmptySlabs();
  return arena.GetStats().slab_bytes;
}

}  // namespace hakmem

#endif  // HAKMEM_CORE_TINY_TEST_POOL_H_
