// The arena: one reservation of address space, cut into granules of 64 KiB.
//
// It hands out runs of granules and keeps, beside them, what every granule
// holds: the class map, one byte a granule, which the fast path of free reads,
// the span map, which leads from any address to the run it belongs to, and the
// owner map, four bytes a granule, which says what site all blocks there are
// of.

#ifndef HAKMEM_CORE_ARENA_H_
#define HAKMEM_CORE_ARENA_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "absl/base/call_once.h"
#include "absl/base/thread_annotations.h"
#include "hakmem/core/demand.h"
#include "hakmem/core/metadata.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/options.h"
#include "hakmem/core/os.h"
#include "hakmem/core/retention.h"
#include "hakmem/core/run_tree.h"
#include "hakmem/core/size_class.h"

namespace hakmem {

// A run of granules that is in use. Lives in metadata.
struct Span {
  enum class Kind : uint8_t { kSlab, kLarge };

  uint32_t start;  // first granule
  uint32_t granules;
  Kind kind;
  uint8_t size_class;  // of a slab; kNoClass for a large block
};

inline constexpr uint32_t kHugeGranules = os::kHugePageSize / kGranuleSize;

// What it takes to tell an address's class. Constant once the arena exists;
// before that, no address is inside of it.
struct ArenaView {
  uintptr_t base = 0;
  uintptr_t eighths = 0;  // bytes reserved, divided by 8
  const std::atomic<uint8_t>* class_map = nullptr;
  const std::atomic<uint32_t>* owner_map = nullptr;

  // How many times 8 bytes `address` is from the start; `eighths` or more for
  // addresses outside of the arena and for those that are not a multiple of 8,
  // which no block is. The rotation carries the three lowest bits to the top,
  // where they put the offset out of range, so that one comparison covers both.
  uintptr_t EighthOf(const void* address) const {
    return std::rotr(reinterpret_cast<uintptr_t>(address) - base, 3);
  }
  static size_t GranuleOfEighth(uintptr_t eighth) {
    return eighth >> (kGranuleShift - 3);
  }

  // The class of the slab that `address` lies in, or its door for a twin (see
  // size_class.h); kNoClass for anything else.
  SizeClass ClassOf(const void* address) const {
    const uintptr_t eighth = EighthOf(address);
    if (eighth >= eighths) [[unlikely]]
      return kNoClass;
    return class_map[GranuleOfEighth(eighth)].load(std::memory_order_relaxed);
  }
};

// Thread safety: every function may be called from any thread. Invariants:
//  1. A granule below the frontier is either in one span, and the span map
//     says which, or in one free run of the tree, and the span map says 0.
//  2. No two free runs touch each other.
//  3. The class map is not 0 for exactly the granules of slabs.
//  4. A dirty granule is free and the system may back it. It may hold old data,
//     unless it is clean as well; that and every other free granule reads as
//     zero.
//  5. The owner map is 0 for every granule but those of slabs whose blocks are
//     all for one site; there it may be the key of the site and the block size
//     (site_cache.h).
class Arena {
 public:
  constexpr Arena() = default;

  // Reads the options, the first time. The reservation waits for the first
  // allocation: a program may limit its address space before that.
  void EnsureOptions() {
    absl::call_once(options_once_, [this] { options_ = ReadOptions(); });
  }

  // Reads the options and makes the reservation, the first time. False when
  // the system granted none, however small.
  bool EnsureReady() {
    if (!ready_.load(std::memory_order_acquire)) {
      absl::call_once(once_, [this] { SetUp(); });
    }
    return base_ != nullptr;
  }

  // Takes `granules` granules, the first of them at an address that is a
  // multiple of `alignment` bytes, and enters `span` in the maps: with the
  // kind and class that it names, and with start and granules filled in.
  // `*zeroed`, unless null, says whether all of it reads as zero; `*missed`,
  // how many pages of it went to the system lately, out of slabs (see
  // FreeRun()). False, and nothing else changed, when there is no such run.
  bool AllocateRun(Span* span, uint32_t granules, size_t alignment,
                   bool* zeroed, uint32_t* missed = nullptr)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Gives the span's granules back. The span itself stays the caller's. Of its
  // pages `absent` went to the system while the span was in use, `lately` of
  // them within HAKMEM_DECAY_MS.
  void FreeRun(Span* span, uint32_t absent = 0, uint32_t lately = 0)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Finds the span whose first byte `block` is, a large block, and takes it
  // out of the maps; the granules are free again. Null when there is none.
  Span* FreeLarge(const void* block) ABSL_LOCKS_EXCLUDED(mu_);

  // Changes a span's length in place, cutting off its end or taking from the
  // free run behind it, to which the end of the arena may add. False, and
  // nothing changed, when that is not free.
  bool ResizeRun(Span* span, uint32_t granules) ABSL_LOCKS_EXCLUDED(mu_);

  // Returns free memory to the system until at most `keep` bytes of it are
  // left; says how many bytes went.
  size_t Purge(size_t keep) ABSL_LOCKS_EXCLUDED(mu_);

  // Says that parts of a span went back to the system.
  void NotePurgedParts(const Span* span) ABSL_LOCKS_EXCLUDED(mu_);

  // Returns free memory that nobody wanted for HAKMEM_DECAY_MS; says how many
  // bytes went. `now` is os::CoarseMilliseconds().
  size_t Decay(int64_t now) ABSL_LOCKS_EXCLUDED(mu_);

  // What counts against HAKMEM_LIMIT, in bytes: the granules of slabs and large
  // blocks, free granules that the system still backs, direct mappings, and
  // hakmem's own tables as far as they are backed. A slab counts whole.
  size_t held_bytes() ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    return HeldLocked();
  }

  // For direct mappings: counts `bytes` as held and returns true, or returns
  // false where that would exceed the limit even after a purge.
  bool Hold(size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  void LetGo(size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // Whether more is held than HAKMEM_SOFT_LIMIT says, so that nothing should
  // wait for reuse.
  bool pressed() const { return pressed_.load(std::memory_order_relaxed); }

  // Empty, or as it will be for ever.
  ArenaView view() const {
    return ready_.load(std::memory_order_acquire) ? view_ : ArenaView();
  }

  // Whether `address` lies in the arena.
  bool Contains(const void* address) const {
    const ArenaView now = view();
    return (reinterpret_cast<uintptr_t>(address) - now.base) >> 3 < now.eighths;
  }

  // The class, also a twin, of the slab that `address` lies in, or kNoClass.
  SizeClass ClassOf(const void* address) const {
    const SizeClass value = view().ClassOf(address);
    if (value >= kFirstOwnBin) [[unlikely]]
      return TwinOfOwnBin(value);
    return ClassOfMapValue(value);
  }

  // The span that `address` lies in, or null. `address` must be in the arena.
  // The answer holds while the caller owns a block of the span or the lock of
  // the pool whose slab it is.
  Span* SpanOf(const void* address) const {
    const size_t granule =
        static_cast<size_t>(static_cast<const char*>(address) - base_) >>
        kGranuleShift;
    if (granule >= tables_frontier_.load(std::memory_order_acquire)) {
      return nullptr;
    }
    const uint32_t index = span_map_[granule].load(std::memory_order_relaxed);
    return index == 0 ? nullptr
                      : static_cast<Span*>(metadata_.FromIndex(index));
  }

  // SpanOf() for a block that the caller has, and by its granule.
  Span* SpanOfLive(const void* block) const {
    return SpanOfLiveGranule(
        static_cast<size_t>(static_cast<const char*>(block) - base_) >>
        kGranuleShift);
  }
  Span* SpanOfLiveGranule(size_t granule) const {
    return static_cast<Span*>(metadata_.FromIndex(
        span_map_[granule].load(std::memory_order_relaxed)));
  }

  // Calls fn(context, span) for the spans that begin in the next `granules`
  // granules from `from`, under the arena's lock, under which none of them goes
  // away. Returns where to go on, or 0 at the end of the arena.
  uint32_t ForEachSpan(uint32_t from, uint32_t granules,
                       void (*fn)(void* context, Span* span), void* context)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Enters the key of a slab in the owner map, or 0 before the slab goes away;
  // and in the class map the owner's bin, if it is not 0. Where there is no
  // memory for the owner map both stay as they are.
  void SetOwner(const Span* slab, uint32_t key, uint32_t bin = 0)
      ABSL_LOCKS_EXCLUDED(mu_);

  // A bin of its own for the owner of this key, which gets no slab meanwhile;
  // enters it in the class map for the slabs that it has. 0 when all are given
  // away: it is for ever. Blocks that are freed meanwhile come by the old
  // number or the new one.
  uint32_t GiveOwnBin(uint32_t key, SizeClass twin) ABSL_LOCKS_EXCLUDED(mu_);

  // How many are given away.
  uint32_t own_bins() const {
    return own_bins_.load(std::memory_order_relaxed);
  }

  // The twin of the owner that has this bin.
  SizeClass TwinOfOwnBin(uint32_t bin) const {
    return own_bin_twins_[bin - kFirstOwnBin].load(std::memory_order_relaxed);
  }

  // What the owner map says of the granule that `block`, of a slab, lies in.
  uint32_t OwnerOf(const void* block) const {
    return owner_map_[static_cast<size_t>(static_cast<const char*>(block) -
                                          base_) >>
                      kGranuleShift]
        .load(std::memory_order_relaxed);
  }

  // At least as many as the arena has in use.
  uint32_t granules_with_tables() const {
    return tables_frontier_.load(std::memory_order_relaxed);
  }

  char* AddressOf(uint32_t granule) const {
    return base_ + (size_t{granule} << kGranuleShift);
  }

  // Metadata and options; valid once EnsureReady() has returned true.
  Metadata& metadata() { return metadata_; }
  const Options& options() const { return options_; }

  // HAKMEM_DECAY_MS, in milliseconds.
  int64_t decay_period() const {
    return static_cast<int64_t>(options_.decay_ms);
  }

  // HAKMEM_CACHE_BYTES, or its default for this machine.
  size_t cache_bytes() const { return cache_bytes_; }

  // os::UsableProcessors(), as it was at the first allocation.
  uint32_t processors() const { return processors_; }

  // Counts what the program allocates, in bytes, as far as it does not get it
  // back at once from a magazine; and the sum: the measure of how busy it is.
  void CountWork(size_t bytes) {
    work_.fetch_add(bytes, std::memory_order_relaxed);
  }
  size_t work() const { return work_.load(std::memory_order_relaxed); }

  // What the program has of all this; its part kLarge is the arena's own.
  Demand& demand() { return demand_; }
  // How far that is from where it was lately, in bytes: see Demand.
  size_t Swing(int64_t now) { return demand_.Swing(decay_period(), now); }

  // What the arena and the pools remember together to have wanted back of small
  // blocks' memory, in bytes: see Retention.
  constexpr std::atomic<size_t>& regretted() { return regretted_; }

  // Bytes of the granules that are in spans.
  size_t live_bytes() const {
    return size_t{live_granules_.load(std::memory_order_relaxed)} *
           kGranuleSize;
  }

  struct Stats {
    size_t reserved_bytes;
    size_t committed_bytes;
    size_t slab_bytes;
    size_t large_bytes;
    size_t dirty_bytes;
    size_t purged_bytes;  // ever returned to the system
    size_t metadata_bytes;
    size_t table_bytes;  // accessible, beside the arena; metadata included
  };
  Stats GetStats() ABSL_LOCKS_EXCLUDED(mu_);

  // What the system backs with memory, asked page by page: time for every page
  // of the arena that was ever accessible. In bytes.
  struct Residency {
    size_t slabs;
    size_t large;
    size_t free;    // granules in no span
    size_t tables;  // the maps beside the arena, and the metadata
  };
  Residency GetResidency() ABSL_LOCKS_EXCLUDED(mu_);

  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

 private:
  // Whether clean granules are to be purged.
  enum class Clean { kToo, kNot };

  void SetUp();
  bool Reserve(uint64_t arena_bytes);
  // Calls fn(start, bytes) for what is accessible beside the arena.
  template <typename Fn>
  void ForEachTable(Fn fn);
  bool CommitTables(uint32_t granules) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Grow(uint32_t granules) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enter(Span* span, uint32_t from, uint32_t to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Leave(const Span* span, uint32_t from, uint32_t to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Count(const Span* span, int64_t granules)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsSpaced(const Span& span) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void InsertFree(uint32_t start, uint32_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t TakeDirty(uint32_t start, uint32_t length, uint32_t* missed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The dirty granules, less what is absent of them: an estimate, by which the
  // bounds go. What must hold counts them whole.
  uint32_t Dirty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    constexpr uint32_t kPages = kGranuleSize / os::kPageSize;
    return dirty_granules_ - absent_ / kPages;
  }
  // How many dirty granules are to be left: by that estimate, or whole ones.
  struct Kept {
    // NOLINTNEXTLINE(google-explicit-constructor)
    Kept(size_t kept, bool counts_whole = false)
        : granules(kept), whole(counts_whole) {}
    size_t granules;
    bool whole;
  };
  // How many have to go until as many are left, or none at all.
  uint32_t Beyond(Kept keep) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (keep.granules == 0) return dirty_granules_;
    const uint32_t dirty = keep.whole ? dirty_granules_ : Dirty();
    if (dirty <= keep.granules) return 0;
    return static_cast<uint32_t>((dirty - keep.granules) * dirty_granules_ /
                                 dirty);
  }
  void LookForHugePages() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
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
  uint32_t TakePurged(uint32_t start, uint32_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkDirty(uint32_t start, uint32_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetPurged(int64_t now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t PurgeLocked(Kept keep) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PurgeRuns(Kept keep, Clean clean) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool PurgeRun(uint32_t start, uint32_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t HeldLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MakeRoom(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NotePressure() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t DecayLocked(int64_t now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Regret(Span::Kind kind, uint32_t purged)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PurgeBeyondBound() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowFigures() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsFree(uint32_t granule) const {
    return span_map_[granule].load(std::memory_order_relaxed) == 0;
  }

  ArenaView view_;
  std::atomic<bool> ready_{false};
  absl::once_flag options_once_;
  absl::once_flag once_;

  // Set by SetUp() and constant after it.
  Options options_;
  Metadata metadata_;
  size_t cache_bytes_ = 0;
  uint32_t processors_ = 1;
  size_t limit_bytes_ = SIZE_MAX;
  size_t soft_limit_bytes_ = SIZE_MAX;
  char* base_ = nullptr;
  uint32_t limit_ = 0;  // granules reserved
  std::atomic<uint8_t>* class_map_ = nullptr;
  std::atomic<uint32_t>* span_map_ = nullptr;
  std::atomic<uint32_t>* owner_map_ = nullptr;
  RunTree::Node* nodes_ = nullptr;
  uint64_t* dirty_ = nullptr;  // one bit a granule
  // Likewise: dirty, but only because a huge page may back it of which other
  // parts were touched.
  uint64_t* clean_ = nullptr;
  // Likewise: went to the system in this period of HAKMEM_DECAY_MS, and in the
  // last one, and was not used since. What went earlier would be gone by now
  // anyway, and is no reason to keep more. When it was one, the workload
  // "server", whose sizes shift, had 1.58 times of what is live at its end
  // where it now has 1.30, for no fewer page faults.
  uint64_t* purged_now_ = nullptr;
  uint64_t* purged_before_ = nullptr;

  // What changes has cache lines of its own: every thread reads what is above.
  alignas(64) Mutex mu_{Mutex::Locking::kInner};
  RunTree free_ ABSL_GUARDED_BY(mu_);
  uint32_t frontier_ ABSL_GUARDED_BY(mu_) = 0;  // granules accessible
  std::atomic<uint32_t> tables_frontier_{0};    // granules that have tables
  std::atomic<uint32_t> owners_frontier_{0};    // those with a writable owner
  std::atomic<uint32_t> own_bins_{0};           // changes under mu_
  std::array<std::atomic<uint8_t>, kMostOwnBins> own_bin_twins_{};
  uint32_t dirty_end_ ABSL_GUARDED_BY(mu_) = 0;  // no dirty granule from here
  uint32_t dirty_granules_ ABSL_GUARDED_BY(mu_) = 0;
  // Pages of dirty granules that the system does not back, since they went
  // while they were in slabs; and those of them that went in this period of
  // HAKMEM_DECAY_MS and in the last one. Which granules they are in is not
  // known: what is handed out or purged has its share of them.
  uint32_t absent_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t absent_now_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t absent_before_ ABSL_GUARDED_BY(mu_) = 0;
  // Huge pages that are kept small, and how many those are.
  uint64_t* small_ = nullptr;
  uint32_t small_pages_ ABSL_GUARDED_BY(mu_) = 0;
  // Whether what is touched comes in huge pages, as far as that is known.
  bool huge_pages_ ABSL_GUARDED_BY(mu_) = false;
  bool huge_pages_known_ ABSL_GUARDED_BY(mu_) = false;
  Retention retention_ ABSL_GUARDED_BY(mu_){regretted_, kGranuleSize};
  // What large blocks have wanted back, and whether any came since decay was
  // last due.
  Retention large_retention_ ABSL_GUARDED_BY(mu_);
  bool large_taken_ ABSL_GUARDED_BY(mu_) = false;
  int64_t purge_period_ ABSL_GUARDED_BY(mu_) = 0;
  bool any_purged_now_ ABSL_GUARDED_BY(mu_) = false;
  bool any_purged_before_ ABSL_GUARDED_BY(mu_) = false;
  uint32_t large_granules_ ABSL_GUARDED_BY(mu_) = 0;
  size_t direct_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t purged_granules_ ABSL_GUARDED_BY(mu_) = 0;  // ever
  std::atomic<size_t> work_{0};
  std::atomic<size_t> regretted_{0};
  // These are read by all, and change rarely.
  alignas(64) std::atomic<uint32_t> live_granules_{0};  // of slabs and large
                                                        // blocks
  std::atomic<bool> pressed_{false};
  Demand demand_;
};

// The arena of this process.
extern constinit Arena arena;

}  // namespace hakmem

#endif  // HAKMEM_CORE_ARENA_H_
