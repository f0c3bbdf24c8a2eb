// For tests that fork: blocks of all pools, and what hakmem has of them.

#ifndef HAKMEM_SHIM_ALL_POOLS_H_
#define HAKMEM_SHIM_ALL_POOLS_H_

#include <stdlib.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>

#include "hakmem/shim/hakmem.h"

namespace hakmem {

// Of every pool and above.
inline constexpr size_t kSizes[] = {16,    500,    1000,   4000,
                                    30000, 100000, 800000, 3000000};

// Allocates a block of each size and frees them, and ends the program when one
// is not what it was.
inline void UseAllPools() {
  void* blocks[std::size(kSizes)];
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    blocks[i] = malloc(kSizes[i]);
    if (blocks[i] == nullptr) abort();
    std::memset(blocks[i], static_cast<int>(i),
                std::min<size_t>(kSizes[i], 64));
  }
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    if (*static_cast<unsigned char*>(blocks[i]) != i) abort();
    free(blocks[i]);
  }
}

inline hak_stats Stats() {
  hak_stats stats;
  if (hak_stats_get(&stats, sizeof(stats)) != 0) abort();
  return stats;
}

}  // namespace hakmem

#endif  // HAKMEM_SHIM_ALL_POOLS_H_
