#include "hakmem/shim/usage.h"

#include <algorithm>

#include "hakmem/core/core.h"
#include "hakmem/shim/stage.h"

namespace hakmem::heap {
namespace {

// Figures that were not read at one instant may contradict each other.
size_t Less(size_t from, size_t what) { return from - std::min(from, what); }

// The tables that threads have of sites.
struct SlotTables {
  size_t bytes = 0;
  size_t resident = 0;
};

SlotTables GetSlotTables(bool ask_for_resident) {
  struct Sum {
    SlotTables tables;
    bool ask_for_resident;
  } sum = {{}, ask_for_resident};
  ThreadCache::ForEachSiteCache(
      [](void* context, const SiteCache& cache) {
        auto* const sum = static_cast<Sum*>(context);
        sum->tables.bytes += cache.table_bytes();
        if (sum->ask_for_resident)
          sum->tables.resident += cache.resident_bytes();
      },
      &sum);
  return sum.tables;
}

}  // namespace

Usage GetUsage() {
  Usage usage = {};
  size_t taken = 0;
  usage.thread_cached = ThreadCache::CachedBytes();
  const auto add = [&usage, &taken](auto& pool) {
    usage.depot_cached += pool.DepotBytes();
    const LockedPool::Usage of_pool = pool.backend().GetUsage();
    usage.slabs += of_pool.slab_bytes;
    usage.slab_free += of_pool.free_bytes;
    taken += of_pool.taken_bytes;
  };
  add(tiny_pool);
  add(l2_pool);
  add(l25_pool);
  usage.small_live = Less(taken, usage.thread_cached + usage.depot_cached);
  usage.slab_tails = Less(usage.slabs, taken + usage.slab_free);
  const Arena::Stats stats = arena.GetStats();
  usage.large = stats.large_bytes;
  usage.free_runs = Less(stats.committed_bytes, usage.slabs + usage.large);
  usage.free_dirty = stats.dirty_bytes;
  usage.committed = stats.committed_bytes;
  usage.reserved = stats.reserved_bytes;
  usage.direct = direct_mappings.mapped_bytes();
  usage.direct_count = direct_mappings.count();
  const size_t slot_tables = GetSlotTables(false).bytes;
  const size_t direct_table = direct_mappings.table_bytes();
  usage.metadata = stats.metadata_bytes + site_table.used_bytes() +
                   slot_tables + direct_table;
  usage.tables = stats.table_bytes + site_table.accessible_bytes() +
                 slot_tables + direct_table;
  usage.mapped = usage.committed + usage.direct + usage.tables;
  return usage;
}

Residency GetResidency() {
  const Arena::Residency of_arena = arena.GetResidency();
  const DirectMappings::Residency of_direct = direct_mappings.GetResidency();
  return {.slabs = of_arena.slabs,
          .large = of_arena.large,
          .free_runs = of_arena.free,
          .direct = of_direct.blocks,
          .tables = of_arena.tables + of_direct.table +
                    site_table.resident_bytes() + GetSlotTables(true).resident};
}

}  // namespace hakmem::heap
