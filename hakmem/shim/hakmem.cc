// The native C interface over the heap. Each function's contract stands in
// hakmem.h.

#include "hakmem/shim/hakmem.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "hakmem/shim/background.h"
#include "hakmem/shim/export.h"
#include "hakmem/shim/heap.h"
#include "hakmem/shim/profile_output.h"
#include "hakmem/shim/profile_thread.h"
#include "hakmem/shim/site_report.h"
#include "hakmem/shim/usage.h"

namespace heap = hakmem::heap;

namespace {

// As early as a library can: fork() runs the handlers that prepare in reverse
// order, so those of the program, which may allocate, come before ours.
[[gnu::constructor(101)]] void AtLoad() {
  // Not with the first allocation: that may come in a sandbox.
  hakmem::arena.EnsureOptions();
  heap::InstallForkHandlers();
  hakmem::ThreadCache::MakeExitKey();
  hakmem::ReportAtExit();
  heap::ShowHeap();
  hakmem::PrepareProfiles();
  if (hakmem::arena.options().background != 0) heap::StartBackground();
  heap::StartProfileThread();
}

}  // namespace

extern "C" {

HAKMEM_EXPORT_FAST void* hak_alloc(size_t size) { return heap::Allocate(size); }

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

HAKMEM_EXPORT_FAST void hak_free(void* ptr) { heap::Free(ptr); }

HAKMEM_EXPORT size_t hak_usable_size(const void* ptr) {
  return heap::UsableSize(ptr);
}

HAKMEM_EXPORT size_t hak_release_memory(size_t bytes) {
  return bytes == 0 ? heap::Release(0) : heap::ReleaseAtLeast(bytes);
}

HAKMEM_EXPORT int hak_background_start(void) { return heap::StartBackground(); }

HAKMEM_EXPORT void hak_background_stop(void) { heap::StopBackground(); }

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
  const heap::Usage from = heap::GetUsage();
  now.reserved_bytes = from.reserved;
  now.committed_bytes = from.committed;
  now.slab_bytes = from.slabs;
  now.large_bytes = from.large;
  now.direct_bytes = from.direct;
  now.cache_bytes =
      static_cast<uint64_t>(std::max<int64_t>(0, hakmem::cache_budget.used()));
  now.free_dirty_bytes = from.free_dirty;
  now.metadata_bytes = from.metadata;
  now.live_bytes = from.live();
  now.thread_cache_bytes = from.thread_cached;
  now.depot_bytes = from.depot_cached;
  now.slab_free_bytes = from.slab_free;
  now.slab_tail_bytes = from.slab_tails;
  now.free_run_bytes = from.free_runs;
  now.table_bytes = from.tables;
  now.mapped_bytes = from.mapped;
  if (stats_size > offsetof(hak_stats, slab_resident_bytes)) {
    const heap::Residency residency = heap::GetResidency();
    now.slab_resident_bytes = residency.slabs;
    now.large_resident_bytes = residency.large;
    now.direct_resident_bytes = residency.direct;
    now.free_resident_bytes = residency.free_runs;
    now.table_resident_bytes = residency.tables;
    now.resident_bytes = residency.total();
  }
  // An older caller's structure is shorter, a newer one's longer.
  std::memcpy(stats, &now, std::min(stats_size, sizeof(now)));
  if (stats_size > sizeof(now)) {
    std::memset(reinterpret_cast<char*>(stats) + sizeof(now), 0,
                stats_size - sizeof(now));
  }
  return 0;
}

}  // extern "C"
