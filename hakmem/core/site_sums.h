// The exact sums of sites: their cells, and what threads have counted beside
// them.

#ifndef HAKMEM_CORE_SITE_SUMS_H_
#define HAKMEM_CORE_SITE_SUMS_H_

#include <cstddef>
#include <cstdint>

#include "hakmem/core/observed.h"
#include "hakmem/core/site.h"

namespace hakmem {

// The upper bounds of these buckets are the powers of two, from 1.
inline constexpr uint32_t kSizeBuckets = 48;

struct SiteSums {
  uint64_t allocs = 0;
  uint64_t frees = 0;
  uint64_t alloc_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t sizes[kSizeBuckets] = {};  // allocs
  uint64_t ages[kAgeBuckets] = {};    // of frees, as far as they are known
  // Of a snapshot: free blocks with the site's tag, in threads' slots and in
  // depots.
  uint64_t held_bytes = 0;

  // Where others go on meanwhile, a free may be seen before its allocation.
  uint64_t live_blocks() const { return allocs > frees ? allocs - frees : 0; }
  uint64_t live_bytes() const {
    return alloc_bytes > free_bytes ? alloc_bytes - free_bytes : 0;
  }
};

// The sums of one site.
SiteSums SumSite(uint32_t site);

// The sums of all sites, as they were at one time, if nobody went on meanwhile.
//
// Thread safety: none of its own. In memory of the system's, so that it may be
// made anywhere.
class SiteSnapshot {
 public:
  SiteSnapshot();
  ~SiteSnapshot();
  SiteSnapshot(const SiteSnapshot&) = delete;
  SiteSnapshot& operator=(const SiteSnapshot&) = delete;

  // False when the system gave no memory: then there are no sites.
  bool ok() const { return sites_ == 0 || memory_ != nullptr; }
  uint32_t sites() const { return memory_ != nullptr ? sites_ : 0; }
  SiteSums SumsOf(uint32_t site) const;

 private:
  struct Counts {
    uint64_t allocs;
    uint64_t frees;
    uint64_t alloc_bytes;
    uint64_t free_bytes;
    uint64_t held;
  };
  struct Ages {
    uint64_t frees[kAgeBuckets];
  };

  uint32_t sites_;
  uint32_t cells_;
  size_t bytes_;
  void* memory_ = nullptr;
  Counts* counts_ = nullptr;  // of cells
  Ages* ages_ = nullptr;      // of sites
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_SITE_SUMS_H_
