// The native C interface over the heap. Each function's contract stands in
// hakmem.h.

#include "hakmem/shim/hakmem.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "hakmem/shim/export.h"
#include "hakmem/shim/heap.h"
#include "hakmem/shim/site_report.h"

using hakmem::arena;
namespace heap = hakmem::heap;

namespace {

// As early as a library can: fork() runs the handlers that prepare in reverse
// order, so those of the program, which may allocate, come before ours.
[[gnu::constructor(101)]] void AtLoad() {
  heap::InstallForkHandlers();
  hakmem::ThreadCache::MakeExitKey();
  hakmem::ReportAtExit();
  heap::ShowHeap();
}

}  // namespace

extern "C" {

HAKMEM_EXPORT void* hak_alloc(size_t size) { return heap::Allocate(size); }

HAKMEM_EXPORT void* hak_calloc(size_t count, size_t size) {
  return heap::AllocateZeroed(count, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* hak_realloc(void* ptr, size_t size) {
  return heap::Reallocate(ptr, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void* hak_aligned_alloc(size_t alignment, size_t size) {
  if (!std::has_single_bit(alignment)) {
    errno = EINVAL;
    return nullptr;
  }
  return heap::AllocateAligned(alignment, size, __builtin_return_address(0));
}

HAKMEM_EXPORT void hak_free(void* ptr) { heap::Free(ptr); }

HAKMEM_EXPORT size_t hak_usable_size(const void* ptr) {
  return heap::UsableSize(ptr);
}

HAKMEM_EXPORT size_t hak_release_memory(void) { return heap::Release(0); }

HAKMEM_EXPORT const char* hak_config(void) { return heap::StageName(); }

HAKMEM_EXPORT int hak_stats_get(hak_stats* stats, size_t stats_size) {
  if (stats == nullptr) return EINVAL;
  hak_stats now = {};
  for (uint32_t i = 0; i < HAK_POOLS; ++i) {
    hakmem::CacheCounters counters;
    hak_pool_stats& out = now.pools[i];
    out.cached = heap::GetPoolCounters(i, counters) ? 1 : 0;
    out.alloc_misses = counters.alloc_misses;
    out.free_misses = counters.free_misses;
    out.refills = counters.refills;
    out.flushes = counters.flushes;
    out.blocks_loaded = counters.blocks_loaded;
    out.blocks_unloaded = counters.blocks_unloaded;
  }
  const hakmem::Arena::Stats from = arena.GetStats();
  now.reserved_bytes = from.reserved_bytes;
  now.committed_bytes = from.committed_bytes;
  now.slab_bytes = from.slab_bytes;
  now.large_bytes = from.large_bytes;
  now.direct_bytes = hakmem::direct_mappings.mapped_bytes();
  now.cache_bytes =
      static_cast<uint64_t>(std::max<int64_t>(0, hakmem::cache_budget.used()));
  now.free_dirty_bytes = from.dirty_bytes;
  now.metadata_bytes = from.metadata_bytes + hakmem::site_table.used_bytes();
  // An older caller's structure is shorter, a newer one's longer.
  std::memcpy(stats, &now, std::min(stats_size, sizeof(now)));
  if (stats_size > sizeof(now)) {
    std::memset(reinterpret_cast<char*>(stats) + sizeof(now), 0,
                stats_size - sizeof(now));
  }
  return 0;
}

}  // extern "C"
