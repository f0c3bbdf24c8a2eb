// The native C interface to sites. Each function's contract stands in hakmem.h.

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "hakmem/shim/export.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/heap.h"
#include "hakmem/shim/site_report.h"

using namespace hakmem;  // NOLINT: this file is nothing but a door to it

static_assert(HAK_AGE_BUCKETS == kAgeBuckets &&
              HAK_SIZE_BUCKETS == kSizeBuckets);
static_assert(HAK_SITE_OTHER == static_cast<int>(SiteKind::kOther) &&
              HAK_SITE_PLACE == static_cast<int>(SiteKind::kPlace) &&
              HAK_SITE_NUMBER == static_cast<int>(SiteKind::kNumber) &&
              HAK_SITE_CALLER == static_cast<int>(SiteKind::kCaller) &&
              HAK_SITE_SCOPE == static_cast<int>(SiteKind::kScope) &&
              HAK_SITE_STACK == static_cast<int>(SiteKind::kStack));

namespace {

void FillIn(uint32_t site, const SiteSums& sums, hak_site_stats& stats) {
  const ObservedSite& record = SiteTable::Record(site);
  stats.id = record.id;
  stats.kind =
      static_cast<uint64_t>(record.kind.load(std::memory_order_relaxed));
  stats.file = SiteTable::Name(record.file);
  stats.label = SiteTable::Name(record.label);
  stats.line = record.line;
  stats.offset = record.module_offset;
  stats.live_blocks = sums.live_blocks();
  stats.live_bytes = sums.live_bytes();
  const int64_t peak = record.peak_bytes.load(std::memory_order_relaxed);
  stats.peak_bytes = std::max<uint64_t>(
      static_cast<uint64_t>(std::max<int64_t>(peak, 0)), sums.live_bytes());
  stats.total_blocks = sums.allocs;
  stats.total_bytes = sums.alloc_bytes;
  std::copy_n(sums.sizes, kSizeBuckets, stats.sizes);
  std::copy_n(sums.ages, kAgeBuckets, stats.ages);
}

// The site that an id names, without making it; kNoSite when there is none.
uint32_t FindSite(uintptr_t id) {
  uint32_t site;
  if (SiteTable::IsRecord(id, &site)) return site;
  for (const SiteKind kind : {SiteKind::kNumber, SiteKind::kCaller}) {
    site = site_table.FindExisting(kind, id);
    if (site != kNoSite) return site;
  }
  return kNoSite;
}

// hak_sites_check(), once.
int64_t SitesDifference() {
  const SiteSnapshot snapshot;
  const uint32_t sites = snapshot.sites();
  if (!snapshot.ok()) return -1;
  const size_t bytes = (size_t{kSiteMask} * sizeof(int64_t) + os::kPageSize) &
                       ~(os::kPageSize - 1);
  auto* const live = static_cast<int64_t*>(os::Map(bytes, os::kPageSize));
  if (live == nullptr) return -1;
  const auto add = [](void* context, Tag tag, uint64_t block_bytes) {
    static_cast<int64_t*>(context)[SiteOf(tag)] +=
        static_cast<int64_t>(block_bytes);
  };
  ForEachTaggedBlock(add, live);
  direct_mappings.ForEachBlock(add, live);
  int64_t wrong = 0;
  for (uint32_t site = 0; site < sites; ++site) {
    const SiteSums sums = snapshot.SumsOf(site);
    const auto counted = static_cast<int64_t>(
        sums.alloc_bytes - sums.free_bytes + sums.held_bytes);
    wrong += live[site] > counted ? live[site] - counted : counted - live[site];
  }
  os::Unmap(live, bytes);
  return wrong;
}

}  // namespace

extern "C" {

HAKMEM_EXPORT uintptr_t hak_site(const char* file, unsigned line,
                                 const char* label) {
  const uint32_t site = site_table.Place(file, line, label);
  return site == kNoSite ? 0 : SiteTable::IdOf(site);
}

HAKMEM_EXPORT void* hak_alloc_at(size_t size, uintptr_t site_id) {
  return heap::AllocateAt(size, site_id);
}

HAKMEM_EXPORT void* hak_calloc_at(size_t count, size_t size,
                                  uintptr_t site_id) {
  return heap::AllocateZeroed(count, size, __builtin_return_address(0),
                              heap::SiteOfId(site_id));
}

HAKMEM_EXPORT void* hak_aligned_alloc_at(size_t alignment, size_t size,
                                         uintptr_t site_id) {
  if (!std::has_single_bit(alignment)) {
    errno = EINVAL;
    return nullptr;
  }
  const uint32_t site = heap::SiteOfId(site_id);
  return site != kNoSite ? heap::AllocateTracked(size, alignment, site)
                         : heap::AllocateUntracked(size, alignment);
}

HAKMEM_EXPORT void* hak_realloc_at(void* ptr, size_t size, uintptr_t site_id) {
  return heap::Reallocate(ptr, size, __builtin_return_address(0),
                          heap::SiteOfId(site_id));
}

HAKMEM_EXPORT void hak_free_at(void* ptr, uintptr_t site_id) {
  if constexpr (heap::kChecked) heap::CheckSite(ptr, site_id);
  heap::FreeAt(ptr);
}

HAKMEM_EXPORT uintptr_t hak_scope_begin(uintptr_t site_id) {
  const ErrnoKeeper keeper;
  const uint32_t before = heap::Mark();
  const uint32_t site = heap::SiteOfId(site_id);
  if (site == kNoSite) return before;
  std::atomic<SiteKind>& kind = SiteTable::Record(site).kind;
  if (kind.load(std::memory_order_relaxed) == SiteKind::kPlace) {
    kind.store(SiteKind::kScope, std::memory_order_relaxed);
  }
  thread_cache.SetMark(site);
  return before;
}

HAKMEM_EXPORT void hak_scope_end(uintptr_t token) {
  if (token <= ThreadCache::kNotMarked) {
    thread_cache.SetMark(static_cast<uint32_t>(token));
  }
}

HAKMEM_EXPORT int hak_site_stats_get(uintptr_t site_id, hak_site_stats* stats,
                                     size_t stats_size) {
  if (stats == nullptr) return EINVAL;
  const uint32_t site = FindSite(site_id);
  if (site == kNoSite) return ENOENT;
  hak_site_stats now = {};
  FillIn(site, SumSite(site), now);
  // An older caller's structure is shorter, a newer one's longer.
  std::memcpy(stats, &now, std::min(stats_size, sizeof(now)));
  if (stats_size > sizeof(now)) {
    std::memset(reinterpret_cast<char*>(stats) + sizeof(now), 0,
                stats_size - sizeof(now));
  }
  return 0;
}

HAKMEM_EXPORT int hak_sites_visit(void (*visit)(const hak_site_stats* stats,
                                                void* arg),
                                  void* arg) {
  const SiteSnapshot snapshot;
  if (!snapshot.ok()) return ENOMEM;
  for (uint32_t site = 0; site < snapshot.sites(); ++site) {
    const SiteSums sums = snapshot.SumsOf(site);
    // What nobody has come to yet.
    if (site == kOtherSite && sums.allocs == 0) continue;
    hak_site_stats stats = {};
    FillIn(site, sums, stats);
    visit(&stats, arg);
  }
  return 0;
}

HAKMEM_EXPORT int64_t hak_sites_check(void) {
  const ErrnoKeeper keeper;
  // The background thread may be taking free blocks of a site to their slabs,
  // by which they lose its tag. Such a difference does not come again.
  int64_t wrong = SitesDifference();
  for (int retries = 2; wrong > 0 && retries != 0; --retries) {
    wrong = SitesDifference();
  }
  return wrong;
}

HAKMEM_EXPORT char* hak_stats_json(void) {
  // Sites and digits may be added between the first pass, which counts, and the
  // second.
  for (size_t room = 0;;) {
    char* const text =
        room == 0 ? nullptr
                  : static_cast<char*>(heap::AllocateUntracked(room + 1, 1));
    if (room != 0 && text == nullptr) return nullptr;
    TextSink sink(text, room);
    if (!WriteJson(sink)) {
      heap::Free(text);
      errno = ENOMEM;
      return nullptr;
    }
    if (sink.size() <= room) {
      text[sink.size()] = '\0';
      return text;
    }
    heap::Free(text);
    room = sink.size() + sink.size() / 8 + 256;
  }
}

}  // extern "C"
