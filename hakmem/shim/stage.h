// The stage: which variant of each pool this library is made of. BUILD.bazel
// compiles the shim once for each stage, with HAKMEM_STAGE set to one of the
// numbers below.

#ifndef HAKMEM_SHIM_STAGE_H_
#define HAKMEM_SHIM_STAGE_H_

#include "hakmem/l2/l2.h"
#include "hakmem/l25/l25.h"
#include "hakmem/tiny/tiny.h"

#define HAKMEM_STAGE_UNLOCKED 0
#define HAKMEM_STAGE_P0 1
#define HAKMEM_STAGE_TLS_TINY 2
#define HAKMEM_STAGE_TLS_L2 3
#define HAKMEM_STAGE_TLS_FULL 4

namespace hakmem {

#if HAKMEM_STAGE == HAKMEM_STAGE_UNLOCKED

inline constexpr const char* kStageName = "unlocked";
inline LockedPool& tiny_pool = tiny::unlocked_pool;
inline LockedPool& l2_pool = l2::unlocked_pool;
inline LockedPool& l25_pool = l25::unlocked_pool;

#else

#if HAKMEM_STAGE >= HAKMEM_STAGE_TLS_TINY
inline CachedPool& tiny_pool = tiny::cached_pool;
#else
inline LockedPool& tiny_pool = tiny::locked_pool;
#endif

#if HAKMEM_STAGE >= HAKMEM_STAGE_TLS_L2
inline CachedPool& l2_pool = l2::cached_pool;
#else
inline LockedPool& l2_pool = l2::locked_pool;
#endif

#if HAKMEM_STAGE >= HAKMEM_STAGE_TLS_FULL
inline CachedPool& l25_pool = l25::cached_pool;
#else
inline LockedPool& l25_pool = l25::locked_pool;
#endif

inline constexpr const char* kStageName =
    HAKMEM_STAGE == HAKMEM_STAGE_P0         ? "p0"
    : HAKMEM_STAGE == HAKMEM_STAGE_TLS_TINY ? "tls_tiny"
    : HAKMEM_STAGE == HAKMEM_STAGE_TLS_L2   ? "tls_l2"
                                            : "tls_full";

#endif

}  // namespace hakmem

#endif  // HAKMEM_SHIM_STAGE_H_
