#include "hakmem/core/site_sums.h"

#include <algorithm>
#include <bit>

#include "hakmem/core/locked_pool.h"
#include "hakmem/core/os.h"
#include "hakmem/core/site_cache.h"
#include "hakmem/core/thread_cache.h"

namespace hakmem {
namespace {

uint32_t CellCount() {
  return static_cast<uint32_t>(
      hak_observed.cells.count.load(std::memory_order_acquire));
}

void AddCounts(const ObservedCell& cell, uint64_t allocs, uint64_t frees,
               uint64_t alloc_bytes, uint64_t free_bytes, SiteSums& sums) {
  const uint32_t bucket =
      cell.size_class < kLargeCells
          ? static_cast<uint32_t>(std::bit_width(cell.block_bytes - 1))
          : cell.size_class - kLargeCells;
  sums.allocs += allocs;
  sums.frees += frees;
  sums.alloc_bytes += allocs * cell.block_bytes + alloc_bytes;
  sums.free_bytes += frees * cell.block_bytes + free_bytes;
  sums.sizes[bucket] += allocs;
}

uint64_t Read(const std::atomic<uint64_t>& count) {
  return count.load(std::memory_order_relaxed);
}

// Calls fn(counted) for the slots of all threads.
template <typename Fn>
void ForEachSlot(Fn fn) {
  ThreadCache::ForEachSiteCache(
      [](void* context, const SiteCache& cache) {
        cache.ForEachSlot(*static_cast<Fn*>(context));
      },
      &fn);
}

}  // namespace

SiteSums SumSite(uint32_t site) {
  SiteSums sums;
  const ObservedSite& record = SiteTable::Record(site);
  uint32_t next = record.first_cell.load(std::memory_order_acquire);
  while (next != 0) {
    const ObservedCell& cell = SiteTable::Cell(next - 1);
    AddCounts(cell, Read(cell.allocs), Read(cell.frees), Read(cell.alloc_bytes),
              Read(cell.free_bytes), sums);
    next = cell.next;
  }
  for (uint32_t age = 0; age < kAgeBuckets; ++age) {
    sums.ages[age] = Read(record.ages[age]);
  }
  ForEachSlot([&sums, site](const SiteCache::Counted& counted) {
    if (counted.site != site) return;
    sums.ages[0] += counted.young;
    AddCounts(SiteTable::Cell(counted.cell), counted.allocs,
              static_cast<uint64_t>(counted.frees), 0, 0, sums);
  });
  return sums;
}

SiteSnapshot::SiteSnapshot() : sites_(SiteTable::count()), cells_(CellCount()) {
  if (sites_ == 0) return;
  bytes_ = cells_ * sizeof(Counts) + sites_ * sizeof(Ages);
  bytes_ = (bytes_ + os::kPageSize - 1) & ~(os::kPageSize - 1);
  memory_ = os::Map(bytes_, os::kPageSize);
  if (memory_ == nullptr) return;
  counts_ = static_cast<Counts*>(memory_);
  ages_ = reinterpret_cast<Ages*>(counts_ + cells_);
  ForEachSlot([this](const SiteCache::Counted& counted) {
    if (counted.cell >= cells_) return;
    Counts& counts = counts_[counted.cell];
    counts.allocs += counted.allocs;
    counts.frees += static_cast<uint64_t>(counted.frees);
    counts.held += static_cast<uint64_t>(counted.held);
    if (counted.site < sites_) ages_[counted.site].frees[0] += counted.young;
  });
  for (uint32_t i = 0; i < cells_; ++i) {
    const ObservedCell& cell = SiteTable::Cell(i);
    counts_[i].allocs += Read(cell.allocs);
    counts_[i].frees += Read(cell.frees);
    counts_[i].alloc_bytes += Read(cell.alloc_bytes);
    counts_[i].free_bytes += Read(cell.free_bytes);
    const uint32_t owner = cell.owner.load(std::memory_order_acquire);
    if (owner != 0) counts_[i].held += LockedPool::DepotOf(owner).blocks();
  }
  for (uint32_t site = 0; site < sites_; ++site) {
    const ObservedSite& record = SiteTable::Record(site);
    for (uint32_t age = 0; age < kAgeBuckets; ++age) {
      ages_[site].frees[age] += Read(record.ages[age]);
    }
  }
}

SiteSnapshot::~SiteSnapshot() {
  if (memory_ != nullptr) os::Unmap(memory_, bytes_);
}

SiteSums SiteSnapshot::SumsOf(uint32_t site) const {
  SiteSums sums;
  std::copy_n(ages_[site].frees, kAgeBuckets, sums.ages);
  uint32_t next =
      SiteTable::Record(site).first_cell.load(std::memory_order_acquire);
  while (next != 0) {
    const ObservedCell& cell = SiteTable::Cell(next - 1);
    if (next <= cells_) {
      const Counts& counts = counts_[next - 1];
      AddCounts(cell, counts.allocs, counts.frees, counts.alloc_bytes,
                counts.free_bytes, sums);
      sums.held_bytes += counts.held * cell.block_bytes;
    }
    next = cell.next;
  }
  return sums;
}

}  // namespace hakmem
