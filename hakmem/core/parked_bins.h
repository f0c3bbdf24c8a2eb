// What a thread leaves to a thread to come: its bins as they were, with their
// magazines, instead of blocks that go back one by one and are fetched again.

#ifndef HAKMEM_CORE_PARKED_BINS_H_
#define HAKMEM_CORE_PARKED_BINS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/magazine.h"
#include "hakmem/core/metadata.h"
#include "hakmem/core/pool_geometry.h"
#include "hakmem/core/size_class.h"

namespace hakmem {

class CachedPool;

// Lives in metadata. Thread safety: none of its own; belongs to the registry of
// threads, or to whoever took it from there. Its magazines hold blocks of their
// class that belong to nobody else, and the budget of caches counts `capacity`
// as it does for a thread.
struct ParkedBins {
  struct Bin {
    Magazine* current;
    Magazine* previous;
    uint32_t capacity;  // 0: the class was not in use
    bool drawn;         // since it was last trimmed
  };

  ParkedBins* next;
  bool stale;          // nobody wanted it since this was last asked
  int64_t trimmed_at;  // the bins: threads that follow each other are as one
  std::array<CachedPool*, kPools> pools;
  std::array<Bin, kNumBins> bins;
};

inline constexpr size_t kParkedBinsBytes =
    (sizeof(ParkedBins) + Metadata::kUnit - 1) & ~(Metadata::kUnit - 1);
static_assert(kParkedBinsBytes <= Metadata::kMaxPiece);

}  // namespace hakmem

#endif  // HAKMEM_CORE_PARKED_BINS_H_
