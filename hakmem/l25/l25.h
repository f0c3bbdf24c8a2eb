// L2.5: the pool of blocks up to 1 MiB, in five doubling groups from 64 KiB.
//
// The pool comes in three variants, each a library of its own that defines one
// of the objects below; a stage links the one that it needs, and cached brings
// locked along as its back end.

#ifndef HAKMEM_L25_L25_H_
#define HAKMEM_L25_L25_H_

#include "hakmem/core/core.h"

namespace hakmem::l25 {

inline constexpr PoolGeometry kGeometry = {
    .first_class = kLastL2Class + 1,
    .last_class = kLastL25Class,
    .index = 2,
    .first_capacity = 2,
    .magazine_bytes = 2 * 1024 * 1024,
    .depot_share = 16,
};

// :l25_locked. Every call takes the pool's lock.
extern constinit LockedPool locked_pool;

// :l25_cached. Thread caches over locked_pool.
extern constinit CachedPool cached_pool;

// :l25_unlocked. As locked_pool without the lock, to measure what that costs;
// for one thread at a time.
extern constinit LockedPool unlocked_pool;

}  // namespace hakmem::l25

#endif  // HAKMEM_L25_L25_H_
