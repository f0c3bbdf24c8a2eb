// The arena: one reservation of address space, cut into granules of 64 KiB.
//
// It hands out runs of granules and keeps, beside them, what every granule
// holds: the class map, one byte a granule, which the fast path of free reads,
// the span map, which leads from any address to the run it belongs to, and the
// owner map, four bytes a granule, which says what site all blocks there are
// of.
//
// The granules are divided among parts, each a range with a lock of its own and
// with metadata of its own (arena_part.h, metadata.h). A program begins with
// one of them and gets by with it unless its threads often wait for each other
// there. Then twice as many come into use, and each thread takes from the one
// that is its own as long as that has room. What is freed goes back to where it
// came from.

#ifndef HAKMEM_CORE_ARENA_H_
#define HAKMEM_CORE_ARENA_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/base/call_once.h"
#include "absl/base/config.h"
#include "hakmem/core/arena_maps.h"
#include "hakmem/core/arena_part.h"
#include "hakmem/core/demand.h"
#include "hakmem/core/metadata.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/observed.h"
#include "hakmem/core/options.h"
#include "hakmem/core/os.h"
#include "hakmem/core/retention.h"
#include "hakmem/core/size_class.h"

namespace hakmem {

// Thread safety: every function may be called from any thread. Those that are
// about one run take the lock of its part, and those about all runs the locks
// of all parts in use, one after the other: what they say of several parts need
// not be of one instant. Invariants:
//  1. What holds for every part: see there.
//  2. No run lies in two parts.
//  3. Parts that are not in use are as they were in the beginning: nothing of
//     them or of their tables is accessible but to read.
//  4. The owner map is 0 for every granule but those of slabs whose blocks are
//     all for one site; there it may be the key of the site and the block size
//     (site_cache.h).
class Arena {
 public:
  // TSan can keep count of 64 locks that a thread holds, and one that forks
  // holds all of hakmem's.
#ifdef ABSL_HAVE_THREAD_SANITIZER
  static constexpr uint32_t kMostParts = 8;
#else
  static constexpr uint32_t kMostParts = kObservedParts;
#endif

  constexpr Arena() = default;

  // Reads the options, and asks the system what there is, the first time: when
  // the library is loaded, since not every program may ask later. The
  // reservation waits for the first allocation: a program may limit its address
  // space before that.
  void EnsureOptions() {
    absl::call_once(options_once_, [this] { Ask(); });
  }

  // Reads the options and makes the reservation, the first time. False when
  // the system granted none, however small.
  bool EnsureReady() {
    if (!ready_.load(std::memory_order_acquire)) {
      absl::call_once(once_, [this] { SetUp(); });
    }
    return maps_.base != nullptr;
  }

  // Takes `granules` granules, the first of them at an address that is a
  // multiple of `alignment` bytes, and enters `span` in the maps: with the
  // kind and class that it names, and with start and granules filled in.
  // `*zeroed`, unless null, says whether all of it reads as zero; `*pages`,
  // what is known of its pages by what FreeSpan() was told. False, and nothing
  // else changed, when there is no such run.
  bool AllocateRun(Span* span, uint32_t granules, size_t alignment,
                   bool* zeroed, RunPages* pages = nullptr);

  // The same from any granule on, with a span that is made for it, for one
  // lock: a piece of `bytes` of metadata that begins with a copy of `model`.
  // Null for false. Others may come upon the span before the caller does.
  Span* AllocateSpan(const Span& model, size_t bytes, uint32_t granules,
                     bool* zeroed, RunPages* pages = nullptr);

  // Gives the span's granules back, and then the span, which is a piece of
  // `bytes` of metadata; where that is 0, it stays the caller's. Of its pages
  // `absent` went to the system while the span was in use, `lately` of them
  // within HAKMEM_DECAY_MS.
  void FreeSpan(Span* span, size_t bytes, uint32_t absent = 0,
                uint32_t lately = 0);

  // Finds the span whose first byte `block` is, a large block, and takes it
  // out of the maps; the granules are free again, and the span is the caller's.
  // Null when there is none.
  Span* FreeLarge(const void* block);

  // Changes a span's length in place, cutting off its end or taking from the
  // free run behind it, to which the end of the arena may add. False, and
  // nothing changed, when that is not free.
  bool ResizeRun(Span* span, uint32_t granules);

  // Returns free memory to the system until at most `keep` bytes of it are
  // left; says how many bytes went.
  size_t Purge(size_t keep);

  // Says that parts of a span went back to the system.
  void NotePurgedParts(const Span* span);

  // Returns free memory that nobody wanted for long enough; says how many bytes
  // went. `now` is os::CoarseMilliseconds().
  size_t Decay(int64_t now);

  // Where free memory goes later, it does so when nobody wanted it for so many
  // times HAKMEM_DECAY_MS. On the machine of docs/memory.md, "Where giving back
  // costs much", the workloads "server", "strings" and "large" take 0.84, 0.95
  // and 0.6 times as long as they do with 1; with 3 "server" takes 0.92.
  static constexpr int64_t kLaterPeriods = 10;

  // Of `free`, which is bounded by `retention`, in its unit: what nobody wanted
  // for so long that it is to go. That is HAKMEM_DECAY_MS where memory goes at
  // once or where it is `sparse`, little used by those who had it.
  size_t Unwanted(Retention& retention, size_t free, bool sparse, int64_t now);

  // What counts against HAKMEM_LIMIT, in bytes: the granules of slabs and large
  // blocks, free granules that the system still backs, direct mappings, and
  // hakmem's own tables as far as they are backed. A slab counts whole.
  size_t held_bytes();
  // What of it is in no part of the arena.
  size_t direct_bytes() const {
    return direct_bytes_.load(std::memory_order_relaxed);
  }

  // For direct mappings: counts `bytes` as held and returns true, or returns
  // false where that would exceed the limit even after a purge.
  bool Hold(size_t bytes);
  void LetGo(size_t bytes);

  // Whether more is held than HAKMEM_SOFT_LIMIT says, so that nothing should
  // wait for reuse.
  bool pressed() const { return pressed_.load(std::memory_order_relaxed); }
  void SetPressed(bool pressed) {
    pressed_.store(pressed, std::memory_order_relaxed);
  }

  // The limits, in bytes; SIZE_MAX for none. Sums of all parts are checked
  // against them under a part's lock: where there are any, there is one part.
  size_t limit_bytes() const { return limit_bytes_; }
  size_t soft_limit_bytes() const { return soft_limit_bytes_; }

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
    const uint32_t index = maps_.span_map[maps_.GranuleOf(address)].load(
        std::memory_order_relaxed);
    return index == 0 ? nullptr : static_cast<Span*>(maps_.PieceAt(index));
  }

  // SpanOf() for a block that the caller has, and by its granule.
  Span* SpanOfLive(const void* block) const {
    return SpanOfLiveGranule(maps_.GranuleOf(block));
  }
  Span* SpanOfLiveGranule(size_t granule) const {
    return static_cast<Span*>(
        maps_.PieceAt(maps_.span_map[granule].load(std::memory_order_relaxed)));
  }

  // Calls fn(context, span) for the spans that begin in the next `granules`
  // granules from `from`, under the lock of their part, under which none of
  // them goes away. What no part has made accessible is passed over. Returns
  // where to go on, or 0 at the end of the arena.
  uint32_t ForEachSpan(uint32_t from, uint32_t granules,
                       void (*fn)(void* context, Span* span), void* context);

  // Whether the part of a span has more free memory than its program can want
  // back, if that is to be as little used as what is free is.
  bool HasSparseSurplus(const Span* span) {
    return PartOfSpan(span).has_sparse_surplus();
  }

  // Makes room in the owner map for a slab; false when there is no memory.
  bool MakeRoomForOwner(const Span* slab);

  // Enters the key of a slab in the owner map, which has to have room, or 0
  // before the slab goes away; and in the class map the owner's bin, if it is
  // not 0.
  void SetOwner(const Span* slab, uint32_t key, uint32_t bin = 0);

  // A bin of its own for the owner of this key, which gets no slab meanwhile;
  // enters it in the class map for the slabs that it has. 0 when all are given
  // away: it is for ever. Blocks that are freed meanwhile come by the old
  // number or the new one.
  uint32_t GiveOwnBin(uint32_t key, SizeClass twin);

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
    return maps_.owner_map[maps_.GranuleOf(block)].load(
        std::memory_order_relaxed);
  }

  // At least as many as the arena has in use.
  uint32_t granules_with_tables() const {
    uint32_t sum = 0;
    for (const ArenaPart& part : used_parts()) {
      sum += part.granules_with_tables();
    }
    return sum;
  }

  char* AddressOf(uint32_t granule) const { return maps_.AddressOf(granule); }
  const ArenaMaps& maps() const { return maps_; }

  // How many parts there are, and how many of them are in use: the first ones.
  // Constant once EnsureReady() has returned; it grows.
  uint32_t parts() const { return count_; }
  uint32_t parts_in_use() const {
    return parts_in_use_.load(std::memory_order_acquire);
  }
  ArenaPart& part(uint32_t index) { return parts_[index]; }
  // The part that a granule lies in.
  uint32_t PartOf(size_t granule) const {
    return static_cast<uint32_t>(
        std::min<size_t>(granule >> part_shift_, count_ - 1));
  }

  // See Metadata. Of the part that is the thread's own, where that has room;
  // null too when the arena could not be made.
  void* AllocateMetadata(size_t bytes);
  void FreeMetadata(void* piece, size_t bytes);
  // Returns the memory of pages without a piece to the system; says how many
  // bytes.
  size_t PurgeMetadata();
  // Bytes handed out and not given back.
  size_t metadata_bytes() const {
    size_t sum = 0;
    for (const ArenaPart& part : used_parts()) sum += part.metadata_bytes();
    return sum;
  }

  // A piece by its index, and an index, which is never 0, by the piece.
  void* PieceAt(uint32_t index) const { return maps_.PieceAt(index); }
  uint32_t IndexOf(const void* piece) const { return maps_.IndexOf(piece); }

  // Valid once EnsureReady() has returned true.
  const Options& options() const { return options_; }

  // Whether free memory goes of itself; and as soon as it is too much, or only
  // when nobody wanted it for a while.
  bool purges() const { return options_.purge != kPurgeAsked; }
  bool purges_at_once() {
    if (options_.purge == kPurgeAtOnce) return true;
    if (pressed()) return purges();
    return options_.purge == kPurgeByCost && PurgesCheaply();
  }

  // What os::PurgeNanoseconds() says, which is asked when it is first needed.
  enum class PurgeCost : uint8_t { kNotKnown, kLittle, kMuch };
  PurgeCost purge_cost() const {
    return purge_cost_.load(std::memory_order_relaxed);
  }
  void NotePurgeCost(int64_t nanoseconds) {
    purge_cost_.store(
        nanoseconds > kMuchPurge ? PurgeCost::kMuch : PurgeCost::kLittle,
        std::memory_order_relaxed);
  }

  // HAKMEM_DECAY_MS, in milliseconds.
  int64_t decay_period() const {
    return static_cast<int64_t>(options_.decay_ms);
  }

  // HAKMEM_CACHE_BYTES, or its default for the memory that there was when the
  // options were read.
  size_t cache_bytes() const { return cache_bytes_; }

  // os::UsableProcessors(), as it was then.
  uint32_t processors() const { return processors_; }

  // os::GivesHugePages(), as it was then; false too where HAKMEM_HUGE_PAGES
  // refuses them.
  bool gives_huge_pages() const { return gives_huge_pages_; }

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
  // Likewise the parts, of large blocks' memory.
  std::atomic<size_t>& large_regretted() { return large_regretted_; }

  // What the parts have, together, in granules, as they tell where there are
  // several: one sum of two, since every run changes both.
  struct Told {
    uint32_t dirty;  // free, and the system still backs them, by estimate
    uint32_t live;
    uint64_t sum() const { return uint64_t{live} << 32 | dirty; }
  };
  uint32_t dirty_granules() const { return told().dirty; }
  // `change` is that of a sum(), modulo 2^64.
  void Tell(uint64_t change) {
    told_.fetch_add(change, std::memory_order_relaxed);
  }

  // How far what is live in all parts in use, where they are several, is from
  // where it was lately, in granules.
  uint32_t live_swing_granules() const {
    return live_swing_granules_.load(std::memory_order_relaxed);
  }

  // How much, in granules, has lately gone from one part to another and back:
  // by how much more than their sum the parts are away from where they were. On
  // two parts a pool of blocks up to 1 MiB without caches, whose threads free
  // what others have allocated, had six times as many page faults as on one
  // while no more could stay than the sum had been away; it has half as many.
  uint32_t crossing_granules() const {
    return crossing_granules_.load(std::memory_order_relaxed);
  }
  // Says that a part is that much further away, modulo 2^32.
  void NoteSwing(uint32_t change, int64_t now);

  // Bytes of the granules that are in spans.
  size_t live_bytes() const {
    return count_ == 1 ? parts_[0].live_bytes() : told().live * kGranuleSize;
  }

  using Stats = ArenaStats;
  Stats GetStats();

  // Asked page by page: time for every page of the arena that was ever
  // accessible.
  using Residency = ArenaResidency;
  Residency GetResidency();

  // Calls fn(mutex) for the locks of all parts, used or not, in the order in
  // which more than one may be held.
  template <typename Fn>
  void ForEachMutex(Fn fn) {
    for (ArenaPart& part : parts_) fn(part.mutex());
  }

 private:
  // No part is smaller, but for the only one: in granules, 4 GiB.
  static constexpr uint32_t kLeastPart = 2 * ArenaMaps::kStep;

  // Where os::PurgeNanoseconds() is more than this, memory does not go at once
  // of itself. On the machine that most of docs/memory.md's figures are from
  // two pages took 1,600, by a loop of calls. On a virtual machine without help
  // of the processor one takes 5,000 to 6,000 (os_benchmark) and wanting it
  // back twice that, and the workloads "server", "strings" and "peaks" take 0.4
  // to 0.7 of the time if only what nobody wanted for a while goes:
  // docs/memory.md.
  static constexpr int64_t kMuchPurge = 3000;

  bool PurgesCheaply() {
    if (purge_cost() == PurgeCost::kNotKnown) {
      NotePurgeCost(os::PurgeNanoseconds());
    }
    return purge_cost() == PurgeCost::kLittle;
  }

  void Ask();
  void SetUp();
  void Divide();
  void InitPart(uint32_t part);
  uint32_t BeginOf(uint32_t part) const { return part << part_shift_; }
  uint32_t EndOf(uint32_t part) const {
    return part + 1 == count_ ? maps_.granules : BeginOf(part + 1);
  }
  std::span<ArenaPart> used_parts() { return {parts_.data(), parts_in_use()}; }
  std::span<const ArenaPart> used_parts() const {
    return {parts_.data(), parts_in_use()};
  }
  // Whether some part has as much, were it empty. What is longer is none's, and
  // past here sums of the two fit into 32 bits.
  bool FitsIntoPart(uint32_t granules, size_t alignment) const {
    const uint32_t most = EndOf(count_ - 1) - BeginOf(count_ - 1);
    return granules <= most && (alignment >> kGranuleShift) <= most;
  }
  uint32_t OwnPart(uint32_t in_use) const;
  template <typename Fn>
  bool TryParts(Fn allocate);
  Told told() const {
    const uint64_t sum = told_.load(std::memory_order_relaxed);
    return {static_cast<uint32_t>(sum), static_cast<uint32_t>(sum >> 32)};
  }
  void UseMoreParts();
  void UseMorePartsIfContended(const ArenaPart& part) {
    if (parts_in_use() < count_ && part.IsContended()) [[unlikely]]
      UseMoreParts();
  }
  ArenaPart& PartOfSpan(const Span* span) {
    return parts_[PartOf(span->start)];
  }
  ArenaPart& PartOfPiece(const void* piece) {
    const auto offset =
        static_cast<size_t>(static_cast<const char*>(piece) - maps_.metadata);
    return parts_[std::min<size_t>(offset >> metadata_shift_, count_ - 1)];
  }

  ArenaView view_;
  std::atomic<bool> ready_{false};
  absl::once_flag options_once_;
  absl::once_flag once_;

  // Set by Ask() or by SetUp() and constant after it.
  Options options_;
  size_t cache_bytes_ = 0;
  uint32_t processors_ = 1;
  bool gives_huge_pages_ = false;
  size_t limit_bytes_ = SIZE_MAX;
  size_t soft_limit_bytes_ = SIZE_MAX;
  ArenaMaps maps_;
  uint32_t count_ = 1;  // of parts
  // A part has so many granules, as a power of two; but the last has the rest.
  uint32_t part_shift_ = 31;
  uint32_t metadata_shift_ = 63;  // likewise, in bytes

  // This changes with every few runs and more.
  alignas(64) std::atomic<size_t> work_{0};
  std::atomic<size_t> regretted_{0};
  std::atomic<size_t> large_regretted_{0};
  std::atomic<uint64_t> told_{0};
  std::atomic<uint32_t> swing_granules_{0};  // of each part, together
  std::atomic<uint32_t> crossing_granules_{0};
  std::atomic<uint32_t> live_swing_granules_{0};
  RecentLevels live_levels_;  // of the sum
  std::atomic<size_t> direct_bytes_{0};
  // These are read by all, and change rarely.
  alignas(64) std::atomic<uint32_t> parts_in_use_{0};
  std::atomic<bool> pressed_{false};
  std::atomic<PurgeCost> purge_cost_{PurgeCost::kNotKnown};
  std::atomic<uint32_t> own_bins_{0};  // changes under the lock of part 0
  std::array<std::atomic<uint8_t>, kMostOwnBins> own_bin_twins_{};
  Demand demand_;
  std::array<ArenaPart, kMostParts> parts_;
};

// The arena of this process.
extern constinit Arena arena;

}  // namespace hakmem

#endif  // HAKMEM_CORE_ARENA_H_
