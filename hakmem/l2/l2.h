// L2: the pool of blocks up to 32 KiB, in five doubling groups from 2 KiB.
//
// The pool comes in three variants, each a library of its own that defines one
// of the objects below; a stage links the one that it needs, and cached brings
// locked along as its back end.

#ifndef HAKMEM_L2_L2_H_
#define HAKMEM_L2_L2_H_

#include "hakmem/core/core.h"

namespace hakmem::l2 {

inline constexpr PoolGeometry kGeometry = {
    .first_class = kLastTinyClass + 1,
    .last_class = kLastL2Class,
    .index = 1,
    .first_capacity = 6,
    // With half of it larson of 2-32 KiB on four threads is 13 % slower, and
    // the workload "mixed" has 33 MiB at its peak instead of 42.
    .magazine_bytes = 256 * 1024,
    // With all of it growing strings have 42 MiB at their peak in place of 35.
    // With none the workload "peaks" takes 1.15 times as long.
    .peak_divisor = 2,
};

// :l2_locked. Every call takes the pool's lock.
extern constinit LockedPool locked_pool;

// :l2_cached. Thread caches over locked_pool.
extern constinit CachedPool cached_pool;

// :l2_unlocked. As locked_pool without the lock, to measure what that costs;
// for one thread at a time.
extern constinit LockedPool unlocked_pool;

}  // namespace hakmem::l2

#endif  // HAKMEM_L2_L2_H_
