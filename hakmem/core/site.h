// Sites: the places of a program that hakmem counts blocks for.
//
// A site is known by its index, which is what a block's tag holds, and to the
// program by an id: for a site that has a record made for it (hak_site()) that
// record's address, from which the index follows by arithmetic; for every other
// one a number of the program's, a caller's address or the hash of a stack,
// which are looked up. What is counted stands in cells, one for each site and
// block size. Records and cells never move and never go away, and tools read
// them from outside (observed.h).

#ifndef HAKMEM_CORE_SITE_H_
#define HAKMEM_CORE_SITE_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/observed.h"
#include "hakmem/core/size_class.h"
#include "hakmem/core/tag.h"

namespace hakmem {

// Sites beside site 0, which has the blocks of all that come when the table is
// full.
inline constexpr uint32_t kMaxSites = 65536;
inline constexpr uint32_t kOtherSite = 0;
static_assert(kMaxSites < kSiteMask);

// No site: nothing can be tracked.
inline constexpr uint32_t kNoSite = kSiteMask;

// The size of a large block as a cell has it: by its power of two, rounded up.
inline uint32_t LargeSizeClass(size_t bytes) {
  return kLargeCells + static_cast<uint32_t>(std::bit_width(bytes - 1));
}

// Thread safety: every function may be called from any thread. Looking up a
// site or a cell that is there takes no lock; a new one takes the table's,
// which comes after every other. Invariants:
//  1. Records and cells that the counts include are complete.
//  2. A tag never names a site without a cell for its block's size.
class SiteTable {
 public:
  constexpr SiteTable() = default;

  // Reserves the tables, the first time. False when there is no room for them.
  bool EnsureReady() {
    return ready_.load(std::memory_order_acquire) || SetUp();
  }

  // Whether `id` is the address of a site's record; `*index` is the site's
  // then.
  static bool IsRecord(uintptr_t id, uint32_t* index) {
    const uintptr_t offset =
        id - hak_observed.sites.address.load(std::memory_order_relaxed);
    const uintptr_t number =
        std::rotr(offset, std::countr_zero(sizeof(ObservedSite)));
    *index = static_cast<uint32_t>(number);
    return number < hak_observed.sites.count.load(std::memory_order_relaxed);
  }
  static uintptr_t IdOf(uint32_t site) {
    return reinterpret_cast<uintptr_t>(&Record(site));
  }
  static ObservedSite& Record(uint32_t site) {
    return reinterpret_cast<ObservedSite*>(
        hak_observed.sites.address.load(std::memory_order_relaxed))[site];
  }
  static ObservedCell& Cell(uint32_t cell) {
    return reinterpret_cast<ObservedCell*>(
        hak_observed.cells.address.load(std::memory_order_relaxed))[cell];
  }
  // A text of a record; "" for offset 0.
  static const char* Name(uint64_t offset) {
    return reinterpret_cast<const char*>(
               hak_observed.names.address.load(std::memory_order_relaxed)) +
           offset;
  }
  static uint32_t count() {
    return static_cast<uint32_t>(
        hak_observed.sites.count.load(std::memory_order_acquire));
  }

  // The site of a line of source, made when it is new: the same file, line and
  // label are the same site. Texts are copied. kNoSite when there is no table.
  uint32_t Place(const char* file, uint32_t line, const char* label)
      ABSL_LOCKS_EXCLUDED(mu_);

  // The site of a number or of a caller's address, made when it is new.
  uint32_t Find(SiteKind kind, uint64_t id) ABSL_LOCKS_EXCLUDED(mu_);

  // The same where it is there already; else kNoSite.
  uint32_t FindExisting(SiteKind kind, uint64_t id) const;

  // The site of a stack of return addresses, innermost first, for the samples
  // that are taken so (sampling.h).
  uint32_t Stack(const uint64_t* frames, uint32_t frame_count,
                 uint64_t sampled_at) ABSL_LOCKS_EXCLUDED(mu_);

  // The innermost return address of a site that is a stack.
  static uintptr_t StackCaller(uint32_t site);

  // The cell of a site and a size, made when it is new. Where there is no room
  // for it `*site` becomes kOtherSite, which has all of its cells.
  uint32_t CellOf(uint32_t* site, uint32_t size_class) ABSL_LOCKS_EXCLUDED(mu_);

  // Bytes of memory that the tables have in use.
  size_t used_bytes() const;

  // Of the tables, in bytes: what is accessible, and what of it the system
  // backs with memory, asked page by page.
  size_t accessible_bytes() ABSL_LOCKS_EXCLUDED(mu_);
  size_t resident_bytes() ABSL_LOCKS_EXCLUDED(mu_);

  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

 private:
  // What a new record has beside its kind.
  struct NewSite {
    uint64_t id = 0;  // but for a place
    const char* file = nullptr;
    uint32_t line = 0;
    const char* label = nullptr;
    uint64_t module_offset = 0;
    const uint64_t* frames = nullptr;
    uint32_t frame_count = 0;
  };

  bool SetUp() ABSL_LOCKS_EXCLUDED(mu_);
  bool Reserve() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  template <typename Same>
  uint32_t LookUp(uint64_t hash, Same same) const;
  uint32_t Add(SiteKind kind, uint64_t hash, const NewSite& site)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t AddCell(uint32_t site, uint32_t size_class)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t ListedCellOf(uint32_t* site, uint32_t size_class)
      ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t AddName(std::string_view text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t AddFile(std::string_view text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MakeRoom(ObservedRegion& region, size_t* committed, uint64_t elements)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Calls fn(start, bytes) for what is accessible.
  template <typename Fn>
  void ForEachTable(Fn fn) ABSL_LOCKS_EXCLUDED(mu_);
  std::atomic<uint32_t>& BucketOf(uint64_t hash) const;

  std::atomic<bool> ready_{false};
  std::atomic<uint32_t>* buckets_ = nullptr;  // set before ready_

  // Cells that were found before: a cell's index, above it its size and above
  // that its site; 0 is none. A site that has blocks of twenty sizes has a long
  // list, and what is sampled is looked up when it comes and when it goes.
  static constexpr int kCellBits = 18;
  static constexpr int kCellSizeBits = 7;
  static constexpr uint32_t kRecentCells = 512;
  std::array<std::atomic<uint64_t>, kRecentCells> recent_cells_{};

  Mutex mu_{Mutex::Locking::kInner};
  bool failed_ ABSL_GUARDED_BY(mu_) = false;
  bool warned_ ABSL_GUARDED_BY(mu_) = false;
  size_t sites_committed_ ABSL_GUARDED_BY(mu_) = 0;
  size_t cells_committed_ ABSL_GUARDED_BY(mu_) = 0;
  size_t names_committed_ ABSL_GUARDED_BY(mu_) = 0;
  size_t frames_committed_ ABSL_GUARDED_BY(mu_) = 0;
  // The last few names of files: most sites have that of one of them.
  static constexpr uint32_t kRecentFiles = 32;
  uint64_t recent_files_[kRecentFiles] ABSL_GUARDED_BY(mu_) = {};
  uint32_t next_recent_ ABSL_GUARDED_BY(mu_) = 0;
};

extern constinit SiteTable site_table;

// Adds what a thread has counted of a cell whose blocks all have block_bytes.
void AddToCell(ObservedCell& cell, uint64_t allocs, uint64_t frees);

// The same for one large block that came or went.
void AddLargeAlloc(ObservedCell& cell, uint64_t bytes);
void AddLargeFree(ObservedCell& cell, uint64_t bytes);

// Counts the age of a block with this tag that is gone, if it has a birth.
void AddAge(Tag tag);

}  // namespace hakmem

#endif  // HAKMEM_CORE_SITE_H_
