#include "hakmem/core/arena.h"

#include <algorithm>
#include <utility>

#include "hakmem/core/observed.h"
#include "hakmem/core/os.h"
#include "hakmem/core/report.h"

namespace hakmem {

constinit Arena arena;

namespace {

// The side tables become accessible for this many granules (2 GiB of arena) at
// a time: four system calls, and 690 KiB of address space that stays untouched
// until it is needed.
constexpr uint32_t kTablesStep = 32768;

// The arena becomes accessible in steps of at least this, and of an eighth of
// what it is already: few calls for a large heap, little for a small one, whose
// accessible part counts against RLIMIT_DATA.
constexpr uint32_t kCommitStep = (4 << 20) / kGranuleSize;

constexpr uint64_t kLeastArena = uint64_t{4} << 20;

// The arena begins with a huge page.
constexpr size_t kArenaAlignment = os::kHugePageSize;

// So much of the class map lies before the first huge page of it: what an arena
// of 8 GiB uses. Of a huge page nearly all would be wasted. And the span map
// begins with a huge page, of which only the first part is accessible.
constexpr size_t kClassMapHead = 128 << 10;

// Of what is live, this part may stay with the process as free memory. With a
// 64th, here and for pages of slabs, the workload "server" had 0.01 to 0.02 of
// it more at the end of its phases, for 4 % fewer page faults; with a 256th
// less than 0.01 less, for 3 % more.
constexpr uint32_t kRetainedShare = 128;

// So many times as much as large blocks have wanted back may stay, up to as
// much as they hold, and it stays while they come and go. Hardly two buffers of
// a program are of one size, so they need free memory in many places: a program
// that replaces buffers of 5 to 25 MiB took 1.4 times as long with the rule
// that other runs have, 1.08 times with 4 in place of 8, and 1.2 times when at
// most half of what they hold could stay; its peak was the same.
constexpr uint32_t kLargeRegret = 8;

// Of the address space, slabs are spaced in so much: elsewhere gaps that
// nothing fits may be what fills it.
constexpr uint32_t kSpacedShare = 4;

// Default of HAKMEM_SOFT_LIMIT: HAKMEM_LIMIT less this part of it.
constexpr size_t kSoftLimitShare = 8;

// Default of HAKMEM_CACHE_BYTES: this part of the machine's memory.
constexpr size_t kDefaultCacheShare = 64;

constexpr size_t PageUp(size_t bytes) {
  return (bytes + os::kPageSize - 1) & ~(os::kPageSize - 1);
}

// Metadata's share of the reservation: a slab of the smallest blocks needs a
// 56th, and magazines as much as the blocks that they hold, but only for what
// is cached.
constexpr size_t MetadataBytes(uint64_t arena_bytes) {
  return std::max<size_t>(arena_bytes / 16, size_t{4} << 20);
}

}  // namespace

void Arena::SetUp() {
  Mutex::DetectValgrind();
  HelgrindIgnore(&live_granules_, sizeof(live_granules_));
  HelgrindIgnore(&work_, sizeof(work_));
  HelgrindIgnore(&pressed_, sizeof(pressed_));
  HelgrindIgnore(&demand_, sizeof(demand_));
  HelgrindIgnore(&regretted_, sizeof(regretted_));
  HelgrindIgnore(&tables_frontier_, sizeof(tables_frontier_));
  EnsureOptions();
  hak_observed.start_milliseconds = os::CoarseMilliseconds();
  cache_bytes_ = options_.cache_bytes != 0
                     ? options_.cache_bytes
                     : os::PhysicalMemory() / kDefaultCacheShare;
  processors_ = os::UsableProcessors();
  if (options_.limit != 0) {
    limit_bytes_ = options_.limit;
    soft_limit_bytes_ = options_.limit - options_.limit / kSoftLimitShare;
  }
  if (options_.soft_limit != 0) soft_limit_bytes_ = options_.soft_limit;
  uint64_t bytes = options_.arena_bytes & ~uint64_t{kGranuleSize - 1};
  // Under a limit on address space leave half of it to everything else.
  const size_t limit = os::AddressSpaceLimit();
  while (bytes > limit / 2 && bytes > kLeastArena) bytes /= 2;
  while (!Reserve(bytes)) {
    bytes = (bytes / 2) & ~uint64_t{kGranuleSize - 1};
    if (bytes < kLeastArena) break;
  }
  ready_.store(true, std::memory_order_release);
}

bool Arena::Reserve(uint64_t arena_bytes) {
  const size_t granules = arena_bytes >> kGranuleShift;
  const size_t class_bytes = PageUp(granules);
  const size_t span_bytes = PageUp(granules * sizeof(uint32_t));
  const size_t owner_bytes = span_bytes;
  const size_t node_bytes = PageUp(granules * sizeof(RunTree::Node));
  const size_t dirty_bytes = PageUp(granules / 8 + sizeof(uint64_t));
  const size_t metadata_bytes = MetadataBytes(arena_bytes);
  const size_t gap =
      class_bytes < os::kHugePageSize ? 0 : os::kHugePageSize - kClassMapHead;
  const size_t total = arena_bytes + gap + class_bytes + kClassMapHead +
                       span_bytes + owner_bytes + node_bytes + 5 * dirty_bytes +
                       metadata_bytes;
  auto* const start = static_cast<char*>(os::Reserve(total, kArenaAlignment));
  if (start == nullptr) return false;
  char* next = start + arena_bytes + gap;
  const auto carve = [&next](size_t bytes) {
    char* const piece = next;
    next += bytes;
    return piece;
  };
  class_map_ = reinterpret_cast<std::atomic<uint8_t>*>(carve(class_bytes));
  carve(kClassMapHead);
  span_map_ = reinterpret_cast<std::atomic<uint32_t>*>(carve(span_bytes));
  owner_map_ = reinterpret_cast<std::atomic<uint32_t>*>(carve(owner_bytes));
  nodes_ = reinterpret_cast<RunTree::Node*>(carve(node_bytes));
  dirty_ = reinterpret_cast<uint64_t*>(carve(dirty_bytes));
  clean_ = reinterpret_cast<uint64_t*>(carve(dirty_bytes));
  small_ = reinterpret_cast<uint64_t*>(carve(dirty_bytes));
  purged_now_ = reinterpret_cast<uint64_t*>(carve(dirty_bytes));
  purged_before_ = reinterpret_cast<uint64_t*>(carve(dirty_bytes));
  metadata_.Init(carve(metadata_bytes), metadata_bytes);
  // The class map is read for any address in the arena, so all of it has to be
  // accessible; 16 bytes a MiB of arena, of which few are ever touched. So is
  // the owner map, of which only the part that is written to counts.
  if (!os::Commit(class_map_, class_bytes) ||
      !os::AllowReading(owner_map_, owner_bytes)) {
    os::Unmap(start, total);
    return false;
  }
  base_ = start;
  limit_ = static_cast<uint32_t>(granules);
  {
    MutexLock lock(mu_);
    free_.Init(nodes_);
  }
  hak_observed.arena_start = reinterpret_cast<uintptr_t>(start);
  hak_observed.arena_bytes = arena_bytes;
  view_ = {.base = reinterpret_cast<uintptr_t>(start),
           .eighths = arena_bytes >> 3,
           .class_map = class_map_,
           .owner_map = owner_map_};
  return true;
}

bool Arena::CommitTables(uint32_t granules) {
  const uint32_t from = tables_frontier_.load(std::memory_order_relaxed);
  if (granules <= from) return true;
  const uint32_t to = std::min(
      limit_, (granules + kTablesStep - 1) / kTablesStep * kTablesStep);
  const auto commit = [from, to](auto* table, size_t numerator,
                                 size_t denominator) {
    auto* const bytes = reinterpret_cast<char*>(table);
    const size_t begin = from * numerator / denominator;  // a page's multiple
    const size_t end = PageUp((to * numerator + denominator - 1) / denominator);
    return os::Commit(bytes + begin, end - begin);
  };
  if (!commit(span_map_, sizeof(uint32_t), 1) ||
      !commit(nodes_, sizeof(RunTree::Node), 1) || !commit(dirty_, 1, 8) ||
      !commit(clean_, 1, 8) || !commit(small_, 1, 8) ||
      !commit(purged_now_, 1, 8) || !commit(purged_before_, 1, 8)) {
    return false;
  }
  tables_frontier_.store(to, std::memory_order_release);
  return true;
}

void Arena::SetOwner(const Span* slab, uint32_t key, uint32_t bin) {
  MutexLock lock(mu_);
  const uint32_t end = slab->start + slab->granules;
  const uint32_t from = owners_frontier_.load(std::memory_order_relaxed);
  if (end > from) {
    if (key == 0) return;
    const uint32_t to =
        std::min(limit_, (end + kTablesStep - 1) / kTablesStep * kTablesStep);
    const size_t bytes = PageUp((to - from) * sizeof(uint32_t));
    if (!os::Commit(owner_map_ + from, bytes)) return;
    HelgrindIgnore(owner_map_ + from, bytes);
    owners_frontier_.store(to, std::memory_order_relaxed);
  }
  for (uint32_t g = slab->start; g != end; ++g) {
    owner_map_[g].store(key, std::memory_order_relaxed);
    if (bin == 0) continue;
    class_map_[g].store(static_cast<uint8_t>(bin), std::memory_order_relaxed);
  }
}

uint32_t Arena::GiveOwnBin(uint32_t key, SizeClass twin) {
  MutexLock lock(mu_);
  const uint32_t count = own_bins_.load(std::memory_order_relaxed);
  if (count == kMostOwnBins) return 0;
  const uint32_t bin = kFirstOwnBin + count;
  own_bin_twins_[count].store(static_cast<uint8_t>(twin),
                              std::memory_order_relaxed);
  own_bins_.store(count + 1, std::memory_order_relaxed);
  const uint32_t end =
      std::min(frontier_, owners_frontier_.load(std::memory_order_relaxed));
  for (uint32_t g = 0; g < end; ++g) {
    if (owner_map_[g].load(std::memory_order_relaxed) != key) continue;
    // Who sees the bin sees its twin.
    class_map_[g].store(static_cast<uint8_t>(bin), std::memory_order_release);
  }
  return bin;
}

// Makes room at the end of the arena for a run of `granules`.
bool Arena::Grow(uint32_t granules) {
  // Granule 0 stays unused: 0 is the null of the tree.
  const uint32_t first = std::max<uint32_t>(frontier_, 1);
  uint32_t missing = granules;
  if (first > 1 && IsFree(first - 1))
    missing -= std::min(granules, free_.LengthAt(first - 1));
  if (missing > limit_ - first) return false;
  uint32_t generous =
      std::min(limit_ - first, std::max({missing, kCommitStep, frontier_ / 8}));
  // To the end of a huge page.
  const uint32_t beyond = (first + generous) % kHugeGranules;
  generous = generous - missing >= beyond
                 ? generous - beyond
                 : std::min(limit_ - first, generous + kHugeGranules - beyond);
  if (frontier_ != 0 || options_.huge_pages != kHugePagesAsSet) {
    LookForHugePages();
  }
  for (const uint32_t step : {generous, missing}) {
    if (!CommitTables(first + step)) continue;
    if (!os::Commit(AddressOf(frontier_),
                    (first + step - frontier_) * kGranuleSize)) {
      continue;
    }
    if (options_.huge_pages != kHugePagesAsSet) {
      (options_.huge_pages == kHugePagesAsked ? os::AskForHugePages
                                              : os::RefuseHugePages)(
          AddressOf(frontier_), (first + step - frontier_) * kGranuleSize);
    }
    frontier_ = first + step;
    InsertFree(first, step);
    return true;
  }
  return false;
}

void Arena::InsertFree(uint32_t start, uint32_t length) {
  if (start > 1 && IsFree(start - 1)) {
    const uint32_t before = free_.LengthAt(start - 1);
    start -= before;
    length += before;
    free_.Remove(start);
  }
  const uint32_t end = start + length;
  if (end < frontier_ && IsFree(end)) {
    length += free_.LengthAt(end);
    free_.Remove(end);
  }
  free_.Insert(start, length);
}

void Arena::Count(const Span* span, int64_t granules) {
  const uint32_t live = live_granules_.load(std::memory_order_relaxed);
  live_granules_.store(static_cast<uint32_t>(live + granules),
                       std::memory_order_relaxed);
  if (span->kind == Span::Kind::kLarge) {
    large_granules_ = static_cast<uint32_t>(large_granules_ + granules);
    demand_.Add(Demand::kLarge, granules * int64_t{kGranuleSize});
  }
}

void Arena::Enter(Span* span, uint32_t from, uint32_t to) {
  const uint32_t index = metadata_.IndexOf(span);
  for (uint32_t g = from; g < to; ++g) {
    span_map_[g].store(index, std::memory_order_relaxed);
    if (span->size_class != kNoClass) {
      class_map_[g].store(static_cast<uint8_t>(MapValueOf(span->size_class)),
                          std::memory_order_relaxed);
    }
  }
  Count(span, int64_t{to} - from);
}

void Arena::Leave(const Span* span, uint32_t from, uint32_t to) {
  for (uint32_t g = from; g < to; ++g) {
    span_map_[g].store(0, std::memory_order_relaxed);
    if (span->size_class != kNoClass) {
      class_map_[g].store(kNoClass, std::memory_order_relaxed);
    }
  }
  Count(span, int64_t{from} - to);
  MarkDirty(from, to - from);
  InsertFree(from, to - from);
}

// Calls fn(word, mask) for the words of the dirty map that cover the granules.
template <typename Fn>
static void ForEachWord(uint64_t* map, uint32_t start, uint32_t length, Fn fn) {
  const uint32_t end = start + length;
  while (start < end) {
    const uint32_t bit = start % 64;
    const uint32_t count = std::min(64 - bit, end - start);
    const uint64_t ones =
        count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    fn(map[start / 64], ones << bit);
    start += count;
  }
}

// Clears the marks of a run that is being handed out; says how many granules
// may hold old data. `*missed`, unless null: as AllocateRun().
uint32_t Arena::TakeDirty(uint32_t start, uint32_t length, uint32_t* missed) {
  const auto clear = [start, length](uint64_t* map) {
    uint32_t taken = 0;
    ForEachWord(map, start, length, [&taken](uint64_t& word, uint64_t mask) {
      taken += static_cast<uint32_t>(std::popcount(word & mask));
      word &= ~mask;
    });
    return taken;
  };
  const uint32_t taken = clear(dirty_);
  if (absent_ != 0 && taken != 0) {
    // Rounded up, so that with the last dirty granule the last of them goes.
    const uint64_t dirty = dirty_granules_;
    const auto take_share = [taken, dirty](uint32_t& pages) {
      const auto share =
          static_cast<uint32_t>((uint64_t{pages} * taken + dirty - 1) / dirty);
      pages -= share;
      return share;
    };
    take_share(absent_);
    const uint32_t lately =
        take_share(absent_now_) + take_share(absent_before_);
    if (missed != nullptr) *missed = lately;
  }
  dirty_granules_ -= taken;
  return huge_pages_ ? taken - clear(clean_) : taken;
}

void Arena::MarkDirty(uint32_t start, uint32_t length) {
  ForEachWord(dirty_, start, length,
              [](uint64_t& word, uint64_t mask) { word |= mask; });
  dirty_granules_ += length;
  dirty_end_ = std::max(dirty_end_, start + length);
}

// Whether a span is to begin at a multiple of RunTree::kSpacing where a run has
// room there: the slabs of blocks above 32 KiB are, while address space is
// plenty. Of such a block a program often uses the beginning only, and what is
// resident beyond that is what others have left: the fewer places to begin at,
// the fewer pages that anybody has ever touched. The gaps serve small slabs,
// and all before the arena grows. The workload "threads" has 21 MiB at its peak
// where it had 34; 23 with half the spacing.
bool Arena::IsSpaced(const Span& span) const {
  return PlainOf(span.size_class) > kLastL2Class &&
         frontier_ < limit_ / kSpacedShare;
}

bool Arena::AllocateRun(Span* span, uint32_t granules, size_t alignment,
                        bool* zeroed, uint32_t* missed) {
  if (missed != nullptr) *missed = 0;
  if (!EnsureReady()) return false;
  // More than there is; and past here sums of the two fit into 32 bits.
  if (granules > limit_ || (alignment >> kGranuleShift) > limit_) return false;
  // The arena itself is aligned to kArenaAlignment only: what needs more is
  // looked for among longer runs.
  const auto align = static_cast<uint32_t>(std::max<size_t>(
      1, std::min(alignment, kArenaAlignment) >> kGranuleShift));
  const uint32_t search =
      alignment <= kArenaAlignment
          ? granules
          : granules + static_cast<uint32_t>(alignment >> kGranuleShift);
  MutexLock lock(mu_);
  if (!MakeRoom(granules * kGranuleSize)) return false;
  const bool spaced = IsSpaced(*span);
  uint32_t run = spaced ? free_.FindSpaced(granules) : 0;
  const uint32_t step = run != 0 ? RunTree::kSpacing : align;
  if (run == 0) run = free_.Find(search, align);
  if (run == 0) {
    if (!Grow(search + align - 1)) return false;
    run = free_.Find(search, align);
  }
  const uint32_t length = free_.LengthAt(run);
  uint32_t start = RunTree::AlignUp(run, step);
  if (alignment > kArenaAlignment) {
    const auto address = reinterpret_cast<uintptr_t>(AddressOf(run));
    const uintptr_t aligned = (address + alignment - 1) & ~(alignment - 1);
    start = run + static_cast<uint32_t>((aligned - address) >> kGranuleShift);
  }
  free_.Remove(run);
  if (start != run) free_.Insert(run, start - run);
  const uint32_t end = start + granules;
  if (end != run + length) free_.Insert(end, run + length - end);
  span->start = start;
  span->granules = granules;
  if (huge_pages_) MarkWhatIsTouched(start, end);
  Enter(span, start, end);
  if (absent_ != 0) ForgetPurged(os::CoarseMilliseconds());
  const uint32_t dirty = TakeDirty(start, granules, missed);
  retention_.Taken(Dirty());
  // What is in slabs is counted by the caches.
  if (span->kind == Span::Kind::kLarge) {
    large_taken_ = true;
    demand_.Note(decay_period(), os::CoarseMilliseconds());
    CountWork(granules * kGranuleSize);
  }
  if (const uint32_t purged = TakePurged(start, granules); purged != 0) {
    Regret(span->kind, purged);
  }
  NotePressure();
  ShowFigures();
  if (zeroed != nullptr) *zeroed = dirty == 0;
  return true;
}

void Arena::FreeRun(Span* span, uint32_t absent, uint32_t lately) {
  MutexLock lock(mu_);
  Leave(span, span->start, span->start + span->granules);
  if (absent != 0) {
    ForgetPurged(os::CoarseMilliseconds());
    absent_ += absent;
    absent_now_ += lately;
  }
  PurgeBeyondBound();
}

Span* Arena::FreeLarge(const void* block) {
  MutexLock lock(mu_);
  Span* const span = SpanOf(block);
  if (span == nullptr || span->kind != Span::Kind::kLarge ||
      AddressOf(span->start) != block) {
    return nullptr;
  }
  Leave(span, span->start, span->start + span->granules);
  PurgeBeyondBound();
  return span;
}

bool Arena::ResizeRun(Span* span, uint32_t granules) {
  MutexLock lock(mu_);
  const uint32_t end = span->start + span->granules;
  const uint32_t new_end = span->start + granules;
  if (new_end < end) {
    Leave(span, new_end, end);
    PurgeBeyondBound();
  } else if (new_end > end) {
    if (granules > limit_ - span->start) return false;
    if (!MakeRoom((new_end - end) * kGranuleSize)) return false;
    uint32_t length = end < frontier_ && IsFree(end) ? free_.LengthAt(end) : 0;
    if (length < new_end - end) {
      if (end + length != frontier_ || !Grow(new_end - end)) return false;
      length = free_.LengthAt(end);
    }
    free_.Remove(end);
    if (end + length != new_end) {
      free_.Insert(new_end, end + length - new_end);
    }
    if (huge_pages_) MarkWhatIsTouched(end, new_end);
    TakeDirty(end, new_end - end, nullptr);
    retention_.Taken(Dirty());
    if (const uint32_t purged = TakePurged(end, new_end - end); purged != 0) {
      Regret(span->kind, purged);
    }
    Enter(span, end, new_end);
    NotePressure();
  }
  span->granules = granules;
  ShowFigures();
  return true;
}

// Clears the marks of what was lately purged in a run that is being handed out;
// says how many granules had them.
uint32_t Arena::TakePurged(uint32_t start, uint32_t length) {
  if (!any_purged_now_ && !any_purged_before_) return 0;
  ForgetPurged(os::CoarseMilliseconds());
  uint32_t taken = 0;
  for (uint64_t* const map : {purged_now_, purged_before_}) {
    ForEachWord(map, start, length, [&taken](uint64_t& word, uint64_t mask) {
      taken += static_cast<uint32_t>(std::popcount(word & mask));
      word &= ~mask;
    });
  }
  return taken;
}

void Arena::Regret(Span::Kind kind, uint32_t purged) {
  const int64_t now = os::CoarseMilliseconds();
  if (kind == Span::Kind::kLarge) {
    large_retention_.Regret(size_t{purged} * kLargeRegret, large_granules_,
                            now);
  } else {
    retention_.Regret(size_t{purged} * kRegret, frontier_, now);
  }
}

// With each period the marks of the last but one go, if there are any: that
// takes time for every 64 granules of the arena.
void Arena::ForgetPurged(int64_t now) {
  const int64_t period = now / decay_period();
  const int64_t passed = period - purge_period_;
  if (passed <= 0) return;
  purge_period_ = period;
  absent_before_ = passed == 1 ? absent_now_ : 0;
  absent_now_ = 0;
  for (int64_t i = std::min<int64_t>(passed, 2); i > 0; --i) {
    std::swap(purged_now_, purged_before_);
    std::swap(any_purged_now_, any_purged_before_);
    if (!any_purged_now_) continue;
    std::fill_n(purged_now_, (frontier_ + 63) / 64, 0);
    any_purged_now_ = false;
  }
}

size_t Arena::HeldLocked() {
  return live_bytes() + size_t{dirty_granules_} * kGranuleSize + direct_bytes_ +
         metadata_.resident_bytes();
}

// Whether `bytes` more may be held. Free memory goes where it is in the way: of
// a run that is handed out some may be dirty already, so at times it is a
// little more than would have been needed.
bool Arena::MakeRoom(size_t bytes) {
  if (limit_bytes_ == SIZE_MAX) return true;
  const size_t held = HeldLocked();
  if (bytes <= limit_bytes_ && held <= limit_bytes_ - bytes) return true;
  const size_t dirty = size_t{dirty_granules_} * kGranuleSize;
  if (bytes > limit_bytes_ || held - dirty > limit_bytes_ - bytes) return false;
  PurgeLocked((limit_bytes_ - bytes - (held - dirty)) >> kGranuleShift);
  // Some of it may have been taken for absent.
  if (HeldLocked() > limit_bytes_ - bytes) PurgeLocked(0);
  return HeldLocked() <= limit_bytes_ - bytes;
}

void Arena::NotePressure() {
  if (soft_limit_bytes_ == SIZE_MAX) return;
  if (HeldLocked() > soft_limit_bytes_ && dirty_granules_ != 0) PurgeLocked(0);
  pressed_.store(HeldLocked() > soft_limit_bytes_, std::memory_order_relaxed);
}

bool Arena::Hold(size_t bytes) {
  MutexLock lock(mu_);
  if (!MakeRoom(bytes)) return false;
  direct_bytes_ += bytes;
  NotePressure();
  return true;
}

void Arena::LetGo(size_t bytes) {
  MutexLock lock(mu_);
  direct_bytes_ -= bytes;
  NotePressure();
}

void Arena::PurgeBeyondBound() {
  NotePressure();
  if (options_.purge == 0) return;
  const int64_t now = os::CoarseMilliseconds();
  const size_t plain =
      (demand_.bytes() / kRetainedShare + options_.retain_bytes) >>
      kGranuleShift;
  retention_.Reconsider(Dirty(), decay_period(), now);
  const size_t bound =
      pressed() ? 0
                : retention_.Bound(large_retention_.Bound(plain, SIZE_MAX, now),
                                   Swing(now) >> kGranuleShift, now);
  if (Dirty() > bound) {
    // A little more than needed, so that the next free does not come here
    // again; of a peak to which the program comes back, no more than that.
    PurgeLocked(bound - std::min(bound, plain) / 4);
  }
  DecayLocked(now);
  ShowFigures();
}

size_t Arena::DecayLocked(int64_t now) {
  if (options_.purge == 0) return 0;
  ForgetPurged(now);
  size_t surplus = retention_.Surplus(Dirty(), decay_period(), now);
  if (surplus != 0 && std::exchange(large_taken_, false)) {
    surplus -= std::min(surplus, large_retention_.Bound(0, SIZE_MAX, now));
  }
  return surplus == 0 ? 0 : PurgeLocked(Dirty() - surplus);
}

size_t Arena::Decay(int64_t now) {
  MutexLock lock(mu_);
  const size_t purged = DecayLocked(now);
  ShowFigures();
  return purged;
}

// Where there are huge pages, those first that are free as a whole: to purge a
// part of one splits it, and the system gets the part back only when it is
// short of memory. What nobody has used of them is wanted next, and goes last.
size_t Arena::PurgeLocked(Kept keep) {
  ForgetPurged(os::CoarseMilliseconds());
  const uint32_t before = dirty_granules_;
  if (huge_pages_) {
    PurgeHugePages(keep);
    PurgeRuns(keep, Clean::kNot);
  }
  PurgeRuns(keep, Clean::kToo);
  return size_t{before - dirty_granules_} * kGranuleSize;
}

// From the top down: allocation takes the lowest addresses first, so the
// highest are wanted last.
void Arena::PurgeRuns(Kept keep, Clean clean) {
  const auto word_of = [this, clean](uint32_t index) {
    return clean == Clean::kToo ? dirty_[index]
                                : dirty_[index] & ~clean_[index];
  };
  uint32_t end = dirty_end_;
  while (Beyond(keep) != 0 && end > 0) {
    const uint64_t word = word_of((end - 1) / 64)
                          << (63 - (end - 1) % 64);  // bit end-1 on top
    if (word == 0) {
      end = (end - 1) / 64 * 64;
      continue;
    }
    end -= static_cast<uint32_t>(std::countl_zero(word));
    // [start, end) is dirty, and no longer than what is to go.
    uint32_t start = end;
    while (start > 0 && end - start < Beyond(keep) &&
           ((word_of((start - 1) / 64) >> ((start - 1) % 64)) & 1) != 0) {
      --start;
    }
    if (!PurgeRun(start, end)) break;
    if (huge_pages_) KeepSmall(start, end);
    end = start;
  }
  if (clean == Clean::kToo) dirty_end_ = end;
}

// Returns granules, all of them free, to the system; false when it refuses. To
// want back what was clean is no reason to keep more.
bool Arena::PurgeRun(uint32_t start, uint32_t end) {
  if (!os::Purge(AddressOf(start), (end - start) * kGranuleSize)) return false;
  const bool huge_pages = huge_pages_;
  ForEachWord(purged_now_, start, end - start,
              [this, huge_pages](uint64_t& word, uint64_t mask) {
                const auto index = &word - purged_now_;
                mask &= dirty_[index];
                word |= huge_pages ? mask & ~clean_[index] : mask;
              });
  any_purged_now_ = true;
  const uint32_t before = dirty_granules_;
  TakeDirty(start, end - start, nullptr);
  purged_granules_ += before - dirty_granules_;
  return true;
}

size_t Arena::Purge(size_t keep) {
  MutexLock lock(mu_);
  const size_t purged =
      PurgeLocked({keep >> kGranuleShift, /*counts_whole=*/true});
  ShowFigures();
  return purged;
}

uint32_t Arena::ForEachSpan(uint32_t from, uint32_t granules,
                            void (*fn)(void*, Span*), void* context) {
  MutexLock lock(mu_);
  const uint32_t limit = std::max(frontier_, 1u);
  const uint32_t end =
      granules < limit - std::min(from, limit) ? from + granules : limit;
  // Granule 0 is never in use.
  uint32_t granule = std::max(from, 1u);
  while (granule < end) {
    Span* const span = SpanOf(AddressOf(granule));
    if (span == nullptr) {
      granule += free_.LengthAt(granule);
    } else {
      if (span->start == granule) fn(context, span);
      granule = span->start + span->granules;
    }
  }
  return granule < limit ? granule : 0;
}

// For those who look from outside.
void Arena::ShowFigures() {
  const auto show = [](std::atomic<uint64_t>& figure, uint64_t granules) {
    figure.store(granules * kGranuleSize, std::memory_order_relaxed);
  };
  const uint32_t live = live_granules_.load(std::memory_order_relaxed);
  show(hak_observed.committed_bytes, frontier_);
  show(hak_observed.slab_bytes, live - large_granules_);
  show(hak_observed.large_bytes, large_granules_);
  show(hak_observed.free_dirty_bytes, dirty_granules_);
  show(hak_observed.purged_bytes, purged_granules_);
}

Arena::Stats Arena::GetStats() {
  MutexLock lock(mu_);
  if (frontier_ != 0) LookForHugePages();
  Stats stats;
  stats.reserved_bytes = size_t{limit_} * kGranuleSize;
  stats.committed_bytes = size_t{frontier_} * kGranuleSize;
  stats.large_bytes = size_t{large_granules_} * kGranuleSize;
  stats.slab_bytes = live_bytes() - stats.large_bytes;
  stats.dirty_bytes = size_t{dirty_granules_} * kGranuleSize;
  stats.purged_bytes = purged_granules_ * kGranuleSize;
  stats.metadata_bytes = metadata_.used_bytes();
  stats.table_bytes = 0;
  ForEachTable(
      [&stats](const void*, size_t bytes) { stats.table_bytes += bytes; });
  return stats;
}

template <typename Fn>
void Arena::ForEachTable(Fn fn) {
  if (base_ == nullptr) return;
  const size_t granules = tables_frontier_.load(std::memory_order_acquire);
  fn(class_map_, PageUp(limit_));
  fn(span_map_, PageUp(granules * sizeof(uint32_t)));
  fn(owner_map_, PageUp(owners_frontier_.load(std::memory_order_relaxed) *
                        sizeof(uint32_t)));
  fn(nodes_, PageUp(granules * sizeof(RunTree::Node)));
  fn(dirty_, PageUp(granules / 8));
  fn(clean_, PageUp(granules / 8));
  fn(small_, PageUp(granules / 8));
  fn(purged_now_, PageUp(granules / 8));
  fn(purged_before_, PageUp(granules / 8));
  metadata_.ForEachAccessible(fn);
}

// No lock is held while the system is asked: granules may change hands
// meanwhile, and are counted as what they are when their turn comes.
Arena::Residency Arena::GetResidency() {
  Residency residency = {};
  uint32_t end = 0;
  {
    MutexLock lock(mu_);
    end = frontier_;
    ForEachTable([&residency](const void* start, size_t bytes) {
      residency.tables += os::ResidentBytes(start, bytes);
    });
  }
  constexpr size_t kPages = kGranuleSize / os::kPageSize;
  unsigned char pages[os::kMostResidencyPages];
  for (uint32_t granule = 0; granule < end;) {
    const auto count = static_cast<uint32_t>(
        std::min<size_t>(end - granule, sizeof(pages) / kPages));
    os::Residency(AddressOf(granule), count * kGranuleSize, pages);
    for (uint32_t i = 0; i < count; ++i, ++granule) {
      size_t& kind =
          class_map_[granule].load(std::memory_order_relaxed) != kNoClass
              ? residency.slabs
          : IsFree(granule) ? residency.free
                            : residency.large;
      const unsigned char* const first = pages + i * kPages;
      kind += static_cast<size_t>(std::count(first, first + kPages, 1)) *
              os::kPageSize;
    }
  }
  return residency;
}

}  // namespace hakmem
