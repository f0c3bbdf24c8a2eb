// A part of the arena: a range of its granules and a share of the metadata,
// with a lock of their own.

#ifndef HAKMEM_CORE_ARENA_PART_H_
#define HAKMEM_CORE_ARENA_PART_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "hakmem/core/arena_maps.h"
#include "hakmem/core/demand.h"
#include "hakmem/core/metadata.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/retention.h"
#include "hakmem/core/run_tree.h"

namespace hakmem {

class Arena;

// What an arena has, in bytes.
struct ArenaStats {
  size_t reserved_bytes;
  size_t committed_bytes;
  size_t slab_bytes;
  size_t large_bytes;
  size_t dirty_bytes;
  size_t purged_bytes;  // ever returned to the system
  size_t metadata_bytes;
  size_t table_bytes;  // accessible, beside the arena; metadata included
};

// What the system backs with memory of that, in bytes.
struct ArenaResidency {
  size_t slabs;
  size_t large;
  size_t free;    // granules in no span
  size_t tables;  // the maps beside the arena, and the metadata
};

// Hands out runs of the granules of one range, takes them back, and returns
// free memory to the system. The range becomes accessible from its start on, as
// far as it is needed: up to the frontier.
//
// Thread safety: every function may be called from any thread, after Init().
// What begins before that finds nothing. Each function takes the lock but for
// those that name it. Invariants:
//  1. A granule below the frontier is either in one span, and the span map
//     says which, or in one free run of the tree, and the span map says 0.
//  2. No two free runs touch each other.
//  3. The class map is not 0 for exactly the granules of slabs.
//  4. A dirty granule is free and the system may back it. It may hold old data,
//     unless it is clean as well; that and every other free granule reads as
//     zero.
//  5. No entry of a granule in any map is written but under the lock of its
//     part, and no two parts share a word of one.
class alignas(64) ArenaPart {
 public:
  constexpr ArenaPart() = default;

  // Granules begin..end. Both are multiples of ArenaMaps::kStep, or `end` is
  // that of the arena.
  struct Range {
    uint32_t begin;
    uint32_t end;
  };
  // Reserved address space, whole pages.
  struct Region {
    char* start;
    size_t bytes;
  };

  // Makes it the part of this number, of these granules, with metadata there,
  // the first time.
  void Init(Arena& arena, uint32_t index, Range range, Region metadata)
      ABSL_LOCKS_EXCLUDED(mu_);

  // See Arena::AllocateRun(), and where there is no such run, why.
  enum class Outcome {
    kDone,
    kFull,    // the range has no room
    kRefused  // the system gives no more memory, or a limit does not
  };
  Outcome AllocateRun(Span* span, uint32_t granules, size_t alignment,
                      bool* zeroed, RunPages* pages) ABSL_LOCKS_EXCLUDED(mu_);
  // Likewise Arena::AllocateSpan(): sets `*span`, where that is done.
  Outcome AllocateSpan(Span** span, const Span& model, size_t bytes,
                       uint32_t granules, bool* zeroed, RunPages* pages)
      ABSL_LOCKS_EXCLUDED(mu_);

  // As the functions of the arena of these names, for what is in this part. Of
  // ForEachSpan() the granules that it has been through go from `*granules`.
  void FreeSpan(Span* span, size_t bytes, uint32_t absent, uint32_t lately)
      ABSL_LOCKS_EXCLUDED(mu_);
  void* AllocateMetadata(size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  void FreeMetadata(void* piece, size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  size_t PurgeMetadata() ABSL_LOCKS_EXCLUDED(mu_);
  Span* FreeLarge(const void* block) ABSL_LOCKS_EXCLUDED(mu_);
  bool ResizeRun(Span* span, uint32_t granules) ABSL_LOCKS_EXCLUDED(mu_);
  void NotePurgedParts(const Span* span) ABSL_LOCKS_EXCLUDED(mu_);
  size_t Decay(int64_t now) ABSL_LOCKS_EXCLUDED(mu_);
  uint32_t ForEachSpan(uint32_t from, uint32_t* granules,
                       void (*fn)(void* context, Span* span), void* context)
      ABSL_LOCKS_EXCLUDED(mu_);
  bool MakeRoomForOwner(const Span* slab) ABSL_LOCKS_EXCLUDED(mu_);
  void SetOwner(const Span* slab, uint32_t key, uint32_t bin)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Returns free memory to the system until no more than `*keep` bytes of it
  // are left, and takes those from `*keep`; says how many bytes went.
  size_t Purge(size_t* keep) ABSL_LOCKS_EXCLUDED(mu_);

  // Enters the bin in the class map for the slabs that have this key.
  void EnterOwnBin(uint32_t key, uint32_t bin) ABSL_LOCKS_EXCLUDED(mu_);

  // Add what this part has.
  void AddStats(ArenaStats& stats) ABSL_LOCKS_EXCLUDED(mu_);
  void AddResidency(ArenaResidency& residency) ABSL_LOCKS_EXCLUDED(mu_);

  // See Arena::HasSparseSurplus().
  bool has_sparse_surplus() const {
    return sparse_surplus_.load(std::memory_order_relaxed);
  }

  // Bytes of metadata that are handed out.
  size_t metadata_bytes() const { return metadata_.used_bytes(); }

  // Bytes of the granules that are in spans.
  size_t live_bytes() const {
    return size_t{live_granules_.load(std::memory_order_relaxed)} *
           kGranuleSize;
  }

  // At least as many granules as are in use.
  uint32_t granules_with_tables() const {
    return tables_frontier_.load(std::memory_order_relaxed) - begin_;
  }

  // Bytes of spans, of free granules that the system still backs, and of the
  // metadata likewise.
  size_t held_bytes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return live_bytes() + size_t{dirty_granules_} * kGranuleSize +
           metadata_.resident_bytes();
  }

  // For limits on what is held, which a part can keep if it is the only one.
  // Whether `bytes` more may be held; free memory goes where it is in the way.
  bool MakeRoom(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // To be called when more or less is held than before.
  void NotePressure() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Whether threads have lately waited for the lock so often that another part
  // would be of use; and that this has been seen to.
  bool IsContended() const {
    return waits() - earlier_waits_.load(std::memory_order_relaxed) >=
           kManyWaits;
  }
  void ForgetWaits() {
    earlier_waits_.store(waits(), std::memory_order_relaxed);
  }
  // How often a thread has waited, ever.
  uint32_t waits() const { return waits_.load(std::memory_order_relaxed); }

  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

  // From when on waits need not be counted: there are no more parts.
  void IgnoreWaits() { counts_waits_.store(false, std::memory_order_relaxed); }

  // Holds the lock for its own lifetime; keeps errno. Counts it if that had to
  // wait.
  class ABSL_SCOPED_LOCKABLE Lock {
   public:
    explicit Lock(ArenaPart& part) ABSL_EXCLUSIVE_LOCK_FUNCTION(part.mu_)
        : mu_(part.mu_) {
      if (part.counts_waits_.load(std::memory_order_relaxed)) {
        if (mu_.TryLock()) return;
        part.NoteWait();
      }
      mu_.Lock();
    }
    ~Lock() ABSL_UNLOCK_FUNCTION() {
      const ErrnoKeeper keeper;
      mu_.Unlock();
    }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    Mutex& mu_;
  };

  // So many waits within so many milliseconds are a reason for more parts.
  // Threads that meet at times, however long the program runs, are none.
  static constexpr uint32_t kManyWaits = 64;
  static constexpr int64_t kWaitPeriod = 128;

 private:
  // Whether clean granules are to be purged.
  enum class Clean { kToo, kNot };

  // How many dirty granules are to be left: by the estimate that Dirty() is, or
  // whole ones.
  struct Kept {
    // NOLINTNEXTLINE(google-explicit-constructor)
    Kept(size_t kept, bool counts_whole = false)
        : granules(kept), whole(counts_whole) {}
    size_t granules;
    bool whole;
  };

  void NoteWait();
  const ArenaMaps& maps() const;

  // Runs: arena_part.cc.
  bool CommitTables(uint32_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Outcome Grow(uint32_t granules) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Where a run is to be, of the free run that it is in.
  struct Place {
    uint32_t start;
    uint32_t run;
  };
  Outcome FindPlace(SizeClass size_class, uint32_t granules, size_t alignment,
                    Place* place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakePlace(Place place, Span* span, uint32_t granules, bool* zeroed,
                 RunPages* pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enter(Span* span, uint32_t from, uint32_t to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Leave(const Span* span, uint32_t from, uint32_t to, bool dense = true)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Count(const Span* span, int64_t granules)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsSpaced(SizeClass size_class) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void InsertFree(uint32_t start, uint32_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowFigures() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t Held() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  template <typename Fn>
  void ForEachTable(Fn fn) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Free memory, and how it goes: arena_purge.cc.
  uint32_t Take(Span::Kind kind, uint32_t start, uint32_t length,
                RunPages* pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t TakeDirty(uint32_t start, uint32_t length, RunPages* pages)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkDirty(uint32_t start, uint32_t length, bool dense)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountAbsent(uint32_t absent, uint32_t lately, int64_t now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t TakePurged(uint32_t start, uint32_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Regret(Span::Kind kind, uint32_t purged)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetPurged(int64_t now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PurgeBeyondBound(int64_t now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t Swing(int64_t now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t DirtyInAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Tell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DecayLocked(int64_t now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t PurgeLocked(Kept keep) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PurgeRuns(Kept keep, Clean clean) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool PurgeRun(uint32_t start, uint32_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The dirty granules, less what is absent of them: an estimate, by which the
  // bounds go. What must hold counts them whole.
  uint32_t Dirty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return dirty_granules_ - absent_ / kGranulePages;
  }
  // How many have to go until as many are left, or none at all.
  uint32_t Beyond(Kept keep) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (keep.granules == 0) return dirty_granules_;
    const uint32_t dirty = keep.whole ? dirty_granules_ : Dirty();
    if (dirty <= keep.granules) return 0;
    return static_cast<uint32_t>((dirty - keep.granules) * dirty_granules_ /
                                 dirty);
  }

  // Huge pages: arena_huge.cc.
  void MindHugePages() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HugePageIsFree(uint32_t page) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsFullWith(uint32_t page, uint32_t start, uint32_t end) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkHugePage(uint32_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkWhatIsTouched(uint32_t start, uint32_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PurgeHugePages(Kept keep) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void KeepSmall(uint32_t start, uint32_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MakeHugeAgain(uint32_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Set by Init() and constant after it.
  Arena* arena_ = nullptr;
  uint32_t index_ = 0;
  uint32_t begin_ = 0;
  uint32_t end_ = 0;
  uint32_t first_ = 0;           // granule that may be in a run
  GranuleBits* bits_ = nullptr;  // those of its own granules guarded by mu_
  // Whether waits are counted: where there may be more parts.
  std::atomic<bool> counts_waits_{false};

  std::atomic<bool> sparse_surplus_{false};

  // How often a thread had to wait for the lock, and how often it had when the
  // period of that number began. Beside the lock, and among what is guarded,
  // these and what is above were in the way of who has it: larson with blocks
  // of 32 KiB to 1 MiB had twice as many switches with 2 threads on two cores,
  // and did a tenth less.
  alignas(64) std::atomic<uint32_t> waits_{0};
  std::atomic<uint32_t> earlier_waits_{0};
  std::atomic<int64_t> wait_period_{0};

  // What changes with every run stands together.
  alignas(64) Mutex mu_{Mutex::Locking::kInner};
  RunTree free_ ABSL_GUARDED_BY(mu_);
  Metadata metadata_;  // but for its sums guarded by mu_
  uint32_t frontier_ ABSL_GUARDED_BY(mu_) = 0;   // accessible up to here
  uint32_t dirty_end_ ABSL_GUARDED_BY(mu_) = 0;  // no dirty granule from here
  uint32_t dirty_granules_ ABSL_GUARDED_BY(mu_) = 0;
  // What the arena knows of Dirty() and live_granules_, and of how far the
  // latter swings.
  uint64_t told_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t told_swing_ ABSL_GUARDED_BY(mu_) = 0;
  // Pages of dirty granules that the system does not back, since they went
  // while they were in slabs; and those of them that went in this period of
  // HAKMEM_DECAY_MS and in the last one. Which granules they are in is not
  // known: what is handed out or purged has its share of them.
  uint32_t absent_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t absent_now_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t absent_before_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t large_granules_ ABSL_GUARDED_BY(mu_) = 0;
  // Whether what is touched comes in huge pages, and that is minded.
  bool huge_pages_ ABSL_GUARDED_BY(mu_) = false;
  // Whether there are marks in GranuleBits::purged, of this period and of the
  // last. What went earlier would be gone by now anyway, and is no reason to
  // keep more. When it was one, the workload "server", whose sizes shift, had
  // 1.58 times of what is live at its end where it now has 1.30, for no fewer
  // page faults.
  bool any_purged_[2] ABSL_GUARDED_BY(mu_) = {};
  int64_t purge_period_ ABSL_GUARDED_BY(mu_) = 0;
  Retention retention_ ABSL_GUARDED_BY(mu_);
  // What large blocks have wanted back, and whether any came since decay was
  // last due.
  Retention large_retention_ ABSL_GUARDED_BY(mu_);
  bool large_taken_ ABSL_GUARDED_BY(mu_) = false;
  RecentLevels levels_ ABSL_GUARDED_BY(mu_);       // of live_granules_
  int64_t swing_told_ ABSL_GUARDED_BY(mu_) = -1;   // when told_swing_ was
  uint32_t small_pages_ ABSL_GUARDED_BY(mu_) = 0;  // kept small
  uint32_t owners_frontier_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<uint32_t> tables_frontier_{0};  // tables are writable up to here
  uint64_t purged_granules_ ABSL_GUARDED_BY(mu_) = 0;  // ever

  // Read by all, and changes rarely.
  alignas(64) std::atomic<uint32_t> live_granules_{0};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_ARENA_PART_H_
