// Tiny: the pool of blocks up to 1 KiB, in eight doubling groups from 8 bytes.
//
// The pool comes in three variants, each a library of its own that defines one
// of the objects below; a stage links the one that it needs, and cached brings
// locked along as its back end.

#ifndef HAKMEM_TINY_TINY_H_
#define HAKMEM_TINY_TINY_H_

#include "hakmem/core/core.h"

namespace hakmem::tiny {

inline constexpr PoolGeometry kGeometry = {
    .first_class = 1,
    .last_class = kLastTinyClass,
    .index = 0,
    .first_capacity = 14,
    .magazine_bytes = 128 * 1024,
};

// :tiny_locked. Every call takes the pool's lock.
extern constinit LockedPool locked_pool;

// :tiny_cached. Thread caches over locked_pool.
extern constinit CachedPool cached_pool;

// :tiny_unlocked. As locked_pool without the lock, to measure what that costs;
// for one thread at a time.
extern constinit LockedPool unlocked_pool;

}  // namespace hakmem::tiny

#endif  // HAKMEM_TINY_TINY_H_
