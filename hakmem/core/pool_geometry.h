// What makes one pool different from another. A pool crate is this, a locked
// and a cached variant made from it, its tests and its benchmark.

#ifndef HAKMEM_CORE_POOL_GEOMETRY_H_
#define HAKMEM_CORE_POOL_GEOMETRY_H_

#include <cstddef>
#include <cstdint>

#include "hakmem/core/size_class.h"

namespace hakmem {

// The most classes that one pool may span, and with their twins.
inline constexpr SizeClass kMaxPoolClasses = 21;
inline constexpr SizeClass kMaxPoolBins = 2 * kMaxPoolClasses;

struct PoolGeometry {
  SizeClass first_class;
  SizeClass last_class;
  // Index among the pools, 0 to kPools - 1; counters are kept under it.
  uint32_t index;
  // A thread's magazine begins with room for this many blocks.
  uint32_t first_capacity;
  // It grows while it misses, to this many bytes of blocks (though always to
  // kLeastFullCapacity blocks).
  size_t magazine_bytes;
  // Its depots may hold what the program is to want back, up to one part in so
  // many of the last peak: CacheBudget::TakeForPeak().
  size_t peak_divisor = 1;
  // And otherwise all that caches hold may be, for each thread, one part in so
  // many of what is live: CacheBudget::limit().
  size_t depot_share = 8;

  constexpr bool Contains(SizeClass size_class) const {
    const SizeClass plain = PlainOf(size_class);
    return plain >= first_class && plain <= last_class;
  }
  constexpr SizeClass classes() const { return last_class - first_class + 1; }

  // The classes and after them their twins, numbered from 0.
  constexpr SizeClass bins() const { return 2 * classes(); }
  constexpr SizeClass BinOf(SizeClass size_class) const {
    return IsTwin(size_class)
               ? size_class - kTwinDistance - first_class + classes()
               : size_class - first_class;
  }
  constexpr SizeClass ClassOfBin(SizeClass bin) const {
    return bin < classes() ? first_class + bin
                           : first_class + bin - classes() + kTwinDistance;
  }
};

inline constexpr uint32_t kPools = 3;

// Every magazine may grow to this many blocks, however large they are: with
// fewer, a thread that frees and allocates at random misses too often.
inline constexpr uint32_t kLeastFullCapacity = 6;

}  // namespace hakmem

#endif  // HAKMEM_CORE_POOL_GEOMETRY_H_
