// The core crate: all that the three pools share. What lies above it includes
// this and nothing else of it.

#ifndef HAKMEM_CORE_CORE_H_
#define HAKMEM_CORE_CORE_H_

#include "hakmem/core/arena.h"          // IWYU pragma: export
#include "hakmem/core/cache_budget.h"   // IWYU pragma: export
#include "hakmem/core/cached_pool.h"    // IWYU pragma: export
#include "hakmem/core/large.h"          // IWYU pragma: export
#include "hakmem/core/locked_pool.h"    // IWYU pragma: export
#include "hakmem/core/mutex.h"          // IWYU pragma: export
#include "hakmem/core/observed.h"       // IWYU pragma: export
#include "hakmem/core/options.h"        // IWYU pragma: export
#include "hakmem/core/os.h"             // IWYU pragma: export
#include "hakmem/core/own_thread.h"     // IWYU pragma: export
#include "hakmem/core/pool_geometry.h"  // IWYU pragma: export
#include "hakmem/core/profile.h"        // IWYU pragma: export
#include "hakmem/core/report.h"         // IWYU pragma: export
#include "hakmem/core/site.h"           // IWYU pragma: export
#include "hakmem/core/site_cache.h"     // IWYU pragma: export
#include "hakmem/core/site_sums.h"      // IWYU pragma: export
#include "hakmem/core/size_class.h"     // IWYU pragma: export
#include "hakmem/core/slab.h"           // IWYU pragma: export
#include "hakmem/core/tag.h"            // IWYU pragma: export
#include "hakmem/core/thread_cache.h"   // IWYU pragma: export

#endif  // HAKMEM_CORE_CORE_H_
