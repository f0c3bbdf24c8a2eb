#include "hakmem/core/arena_part.h"

#include <algorithm>
#include <new>

#include "hakmem/core/arena.h"
#include "hakmem/core/observed.h"
#include "hakmem/core/os.h"
#include "hakmem/core/slab_use.h"

namespace hakmem {
namespace {

// A part becomes accessible in steps of at least this, and of an eighth of what
// it is already: few calls for a large heap, little for a small one, whose
// accessible part counts against RLIMIT_DATA.
constexpr uint32_t kCommitStep = (4 << 20) / kGranuleSize;

// Of the address space, slabs are spaced in so much: elsewhere gaps that
// nothing fits may be what fills it.
constexpr uint32_t kSpacedShare = 4;

}  // namespace

void ArenaPart::Init(Arena& arena, uint32_t index, Range range,
                     Region metadata) {
  HelgrindIgnore(&counts_waits_, sizeof(counts_waits_));
  HelgrindIgnore(&sparse_surplus_, sizeof(sparse_surplus_));
  HelgrindIgnore(&waits_, sizeof(waits_));
  HelgrindIgnore(&earlier_waits_, sizeof(earlier_waits_));
  HelgrindIgnore(&wait_period_, sizeof(wait_period_));
  HelgrindIgnore(&tables_frontier_, sizeof(tables_frontier_));
  HelgrindIgnore(&live_granules_, sizeof(live_granules_));
  MutexLock lock(mu_);
  if (arena_ != nullptr) return;
  arena_ = &arena;
  index_ = index;
  const uint32_t begin = range.begin;
  begin_ = begin;
  end_ = range.end;
  // Granule 0 stays unused: 0 is the null of the tree.
  first_ = std::max(begin, 1u);
  frontier_ = begin;
  tables_frontier_.store(begin, std::memory_order_relaxed);
  owners_frontier_ = begin;
  dirty_end_ = begin;
  const ArenaMaps& all = maps();
  free_.Init(all.nodes);
  bits_ = all.bits;
  counts_waits_.store(arena.parts() > 1, std::memory_order_relaxed);
  metadata_.Init(metadata.start, metadata.bytes);
  retention_.RememberWith(arena.regretted(), kGranuleSize);
  large_retention_.RememberWith(arena.large_regretted(), kGranuleSize);
}

const ArenaMaps& ArenaPart::maps() const { return arena_->maps(); }

void ArenaPart::NoteWait() {
  const int64_t period = os::CoarseMilliseconds() / kWaitPeriod;
  if (wait_period_.load(std::memory_order_relaxed) != period &&
      wait_period_.exchange(period, std::memory_order_relaxed) != period) {
    ForgetWaits();
  }
  waits_.fetch_add(1, std::memory_order_relaxed);
}

bool ArenaPart::CommitTables(uint32_t end) {
  const uint32_t from = tables_frontier_.load(std::memory_order_relaxed);
  if (end <= from) return true;
  constexpr uint32_t kStep = ArenaMaps::kStep;
  const uint32_t to = std::min(end_, (end + kStep - 1) / kStep * kStep);
  if (!maps().Commit(from, to)) return false;
  tables_frontier_.store(to, std::memory_order_relaxed);
  return true;
}

bool ArenaPart::MakeRoomForOwner(const Span* slab) {
  Lock lock(*this);
  const uint32_t end = slab->start + slab->granules;
  if (end <= owners_frontier_) return true;
  constexpr uint32_t kStep = ArenaMaps::kStep;
  const uint32_t from = owners_frontier_;
  const uint32_t to = std::min(end_, (end + kStep - 1) / kStep * kStep);
  if (!maps().CommitOwners(from, to)) return false;
  HelgrindIgnore(maps().owner_map + from, (to - from) * sizeof(uint32_t));
  owners_frontier_ = to;
  return true;
}

void ArenaPart::SetOwner(const Span* slab, uint32_t key, uint32_t bin) {
  Lock lock(*this);
  const uint32_t end = slab->start + slab->granules;
  if (end > owners_frontier_) return;
  for (uint32_t g = slab->start; g != end; ++g) {
    maps().owner_map[g].store(key, std::memory_order_relaxed);
    if (bin == 0) continue;
    maps().class_map[g].store(static_cast<uint8_t>(bin),
                              std::memory_order_relaxed);
  }
}

void ArenaPart::EnterOwnBin(uint32_t key, uint32_t bin) {
  Lock lock(*this);
  const uint32_t end = std::min(frontier_, owners_frontier_);
  for (uint32_t g = begin_; g < end; ++g) {
    if (maps().owner_map[g].load(std::memory_order_relaxed) != key) continue;
    // Who sees the bin sees its twin.
    maps().class_map[g].store(static_cast<uint8_t>(bin),
                              std::memory_order_release);
  }
}

// Makes room at the frontier for a run of `granules`.
ArenaPart::Outcome ArenaPart::Grow(uint32_t granules) {
  const uint32_t first = std::max(frontier_, first_);
  uint32_t missing = granules;
  if (first > first_ && maps().IsFree(first - 1)) {
    missing -= std::min(granules, free_.LengthAt(first - 1));
  }
  if (missing > end_ - first) return Outcome::kFull;
  uint32_t generous = std::min(
      end_ - first, std::max({missing, kCommitStep, (frontier_ - begin_) / 8}));
  // To the end of a huge page.
  const uint32_t beyond = (first + generous) % kHugeGranules;
  generous = generous - missing >= beyond
                 ? generous - beyond
                 : std::min(end_ - first, generous + kHugeGranules - beyond);
  const uint64_t huge_pages = arena_->options().huge_pages;
  if (frontier_ != begin_ || huge_pages != kHugePagesAsSet) {
    MindHugePages();
  }
  char* const start = maps().AddressOf(frontier_);
  for (const uint32_t step : {generous, missing}) {
    if (!CommitTables(first + step)) continue;
    const size_t bytes = (first + step - frontier_) * kGranuleSize;
    if (!os::Commit(start, bytes)) continue;
    if (huge_pages != kHugePagesAsSet) {
      (huge_pages == kHugePagesAsked ? os::AskForHugePages
                                     : os::RefuseHugePages)(start, bytes);
    }
    frontier_ = first + step;
    InsertFree(first, step);
    return Outcome::kDone;
  }
  return Outcome::kRefused;
}

void ArenaPart::InsertFree(uint32_t start, uint32_t length) {
  const uint32_t end = start + length;
  if (end < frontier_ && maps().IsFree(end)) {
    length += free_.LengthAt(end);
    free_.Remove(end);
  }
  if (start > first_ && maps().IsFree(start - 1)) {
    const uint32_t before = free_.LengthAt(start - 1);
    free_.Resize(start - before, before + length);
  } else {
    free_.Insert(start, length);
  }
}

void ArenaPart::Count(const Span* span, int64_t granules) {
  const uint32_t live = live_granules_.load(std::memory_order_relaxed);
  live_granules_.store(static_cast<uint32_t>(live + granules),
                       std::memory_order_relaxed);
  if (span->kind == Span::Kind::kLarge) {
    large_granules_ = static_cast<uint32_t>(large_granules_ + granules);
    arena_->demand().Add(Demand::kLarge, granules * int64_t{kGranuleSize});
  }
}

void ArenaPart::Enter(Span* span, uint32_t from, uint32_t to) {
  const uint32_t index = maps().IndexOf(span);
  for (uint32_t g = from; g < to; ++g) {
    maps().span_map[g].store(index, std::memory_order_relaxed);
    if (span->size_class != kNoClass) {
      maps().class_map[g].store(
          static_cast<uint8_t>(MapValueOf(span->size_class)),
          std::memory_order_relaxed);
    }
  }
  Count(span, int64_t{to} - from);
}

void ArenaPart::Leave(const Span* span, uint32_t from, uint32_t to,
                      bool dense) {
  for (uint32_t g = from; g < to; ++g) {
    maps().span_map[g].store(0, std::memory_order_relaxed);
    if (span->size_class != kNoClass) {
      maps().class_map[g].store(kNoClass, std::memory_order_relaxed);
    }
  }
  Count(span, int64_t{from} - to);
  MarkDirty(from, to - from, dense);
  InsertFree(from, to - from);
}

// Whether a span is to begin at a multiple of RunTree::kSpacing where a run has
// room there: the slabs of blocks above 32 KiB are, while address space is
// plenty. Of such a block a program often uses the beginning only, and what is
// resident beyond that is what others have left: the fewer places to begin at,
// the fewer pages that anybody has ever touched. The gaps serve small slabs,
// and all before the part grows. The workload "threads" has 21 MiB at its peak
// where it had 34; 23 with half the spacing. Where most of such blocks is used,
// a place has what the largest of all that were there has touched, which is
// more than any of them wants back: a "peaks" of 64 MiB of blocks from 32 KiB
// to 1 MiB had 280,000 page faults where it has 30,000, and took 6 times as
// long.
bool ArenaPart::IsSpaced(SizeClass size_class) const {
  return PlainOf(size_class) > kLastL2Class &&
         frontier_ - begin_ < (end_ - begin_) / kSpacedShare &&
         !SlabUse::Of(size_class).IsMost();
}

ArenaPart::Outcome ArenaPart::FindPlace(SizeClass size_class, uint32_t granules,
                                        size_t alignment, Place* place) {
  // The arena itself is aligned to that only: what needs more is looked for
  // among longer runs.
  constexpr size_t kMost = ArenaMaps::kAlignment;
  const auto align = static_cast<uint32_t>(
      std::max<size_t>(1, std::min(alignment, kMost) >> kGranuleShift));
  const uint32_t search =
      alignment <= kMost
          ? granules
          : granules + static_cast<uint32_t>(alignment >> kGranuleShift);
  if (!MakeRoom(granules * kGranuleSize)) return Outcome::kRefused;
  uint32_t run = IsSpaced(size_class) ? free_.FindSpaced(granules) : 0;
  const uint32_t step = run != 0 ? RunTree::kSpacing : align;
  if (run == 0) run = free_.Find(search, align);
  if (run == 0) {
    const Outcome outcome = Grow(search + align - 1);
    if (outcome != Outcome::kDone) return outcome;
    run = free_.Find(search, align);
  }
  uint32_t start = RunTree::AlignUp(run, step);
  if (alignment > kMost) {
    const auto address = reinterpret_cast<uintptr_t>(maps().AddressOf(run));
    const uintptr_t aligned = (address + alignment - 1) & ~(alignment - 1);
    start = run + static_cast<uint32_t>((aligned - address) >> kGranuleShift);
  }
  *place = {start, run};
  return Outcome::kDone;
}

void ArenaPart::TakePlace(Place place, Span* span, uint32_t granules,
                          bool* zeroed, RunPages* pages) {
  const auto [start, run] = place;
  const uint32_t length = free_.LengthAt(run);
  if (start == run) {
    free_.Remove(run);
  } else {
    free_.Resize(run, start - run);
  }
  const uint32_t end = start + granules;
  if (end != run + length) free_.Insert(end, run + length - end);
  span->start = start;
  span->granules = granules;
  if (huge_pages_) MarkWhatIsTouched(start, end);
  Enter(span, start, end);
  const uint32_t dirty = Take(span->kind, start, granules, pages);
  // What is in slabs is counted by the caches.
  if (span->kind == Span::Kind::kLarge) {
    large_taken_ = true;
    arena_->demand().Note(arena_->decay_period(), os::CoarseMilliseconds());
    arena_->CountWork(granules * kGranuleSize);
  }
  NotePressure();
  ShowFigures();
  if (zeroed != nullptr) *zeroed = dirty == 0;
}

ArenaPart::Outcome ArenaPart::AllocateRun(Span* span, uint32_t granules,
                                          size_t alignment, bool* zeroed,
                                          RunPages* pages) {
  Lock lock(*this);
  Place place = {};
  const Outcome outcome =
      FindPlace(span->size_class, granules, alignment, &place);
  if (outcome == Outcome::kDone) {
    TakePlace(place, span, granules, zeroed, pages);
  }
  return outcome;
}

ArenaPart::Outcome ArenaPart::AllocateSpan(Span** span, const Span& model,
                                           size_t bytes, uint32_t granules,
                                           bool* zeroed, RunPages* pages) {
  Lock lock(*this);
  Place place = {};
  const Outcome outcome =
      FindPlace(model.size_class, granules, kGranuleSize, &place);
  if (outcome != Outcome::kDone) return outcome;
  void* const piece = metadata_.Allocate(bytes);
  if (piece == nullptr) return Outcome::kFull;
  *span = new (piece) Span(model);
  TakePlace(place, *span, granules, zeroed, pages);
  return Outcome::kDone;
}

void ArenaPart::FreeSpan(Span* span, size_t bytes, uint32_t absent,
                         uint32_t lately) {
  Lock lock(*this);
  Leave(span, span->start, span->start + span->granules,
        absent < span->granules * kGranulePages / 2);
  if (bytes != 0) metadata_.Free(span, bytes);
  const int64_t now = os::CoarseMilliseconds();
  if (absent != 0) CountAbsent(absent, lately, now);
  PurgeBeyondBound(now);
}

void* ArenaPart::AllocateMetadata(size_t bytes) {
  Lock lock(*this);
  void* const piece = metadata_.Allocate(bytes);
  ShowFigures();
  return piece;
}

void ArenaPart::FreeMetadata(void* piece, size_t bytes) {
  Lock lock(*this);
  metadata_.Free(piece, bytes);
  ShowFigures();
}

size_t ArenaPart::PurgeMetadata() {
  Lock lock(*this);
  return metadata_.Purge();
}

Span* ArenaPart::FreeLarge(const void* block) {
  Lock lock(*this);
  Span* const span = arena_->SpanOf(block);
  if (span == nullptr || span->kind != Span::Kind::kLarge ||
      maps().AddressOf(span->start) != block) {
    return nullptr;
  }
  Leave(span, span->start, span->start + span->granules);
  PurgeBeyondBound(os::CoarseMilliseconds());
  return span;
}

bool ArenaPart::ResizeRun(Span* span, uint32_t granules) {
  Lock lock(*this);
  const uint32_t end = span->start + span->granules;
  const uint32_t new_end = span->start + granules;
  if (new_end < end) {
    Leave(span, new_end, end);
    PurgeBeyondBound(os::CoarseMilliseconds());
  } else if (new_end > end) {
    if (granules > end_ - span->start) return false;
    if (!MakeRoom((new_end - end) * kGranuleSize)) return false;
    uint32_t length =
        end < frontier_ && maps().IsFree(end) ? free_.LengthAt(end) : 0;
    if (length < new_end - end) {
      if (end + length != frontier_ || Grow(new_end - end) != Outcome::kDone) {
        return false;
      }
      length = free_.LengthAt(end);
    }
    free_.Remove(end);
    if (end + length != new_end) {
      free_.Insert(new_end, end + length - new_end);
    }
    if (huge_pages_) MarkWhatIsTouched(end, new_end);
    Take(span->kind, end, new_end - end, nullptr);
    Enter(span, end, new_end);
    NotePressure();
  }
  span->granules = granules;
  ShowFigures();
  return true;
}

// Of all parts, which are this one where there are limits.
size_t ArenaPart::Held() { return held_bytes() + arena_->direct_bytes(); }

// Of a run that is handed out some may be dirty already, so at times a little
// more goes than would have been needed.
bool ArenaPart::MakeRoom(size_t bytes) {
  const size_t limit = arena_->limit_bytes();
  if (limit == SIZE_MAX) return true;
  const size_t held = Held();
  if (bytes <= limit && held <= limit - bytes) return true;
  const size_t dirty = size_t{dirty_granules_} * kGranuleSize;
  if (bytes > limit || held - dirty > limit - bytes) return false;
  PurgeLocked((limit - bytes - (held - dirty)) >> kGranuleShift);
  // Some of it may have been taken for absent.
  if (Held() > limit - bytes) PurgeLocked(0);
  return Held() <= limit - bytes;
}

void ArenaPart::NotePressure() {
  const size_t limit = arena_->soft_limit_bytes();
  if (limit == SIZE_MAX) return;
  if (Held() > limit && dirty_granules_ != 0) PurgeLocked(0);
  arena_->SetPressed(Held() > limit);
}

uint32_t ArenaPart::ForEachSpan(uint32_t from, uint32_t* granules,
                                void (*fn)(void*, Span*), void* context) {
  Lock lock(*this);
  const uint32_t limit = std::max(frontier_, first_);
  uint32_t granule = std::clamp(from, first_, limit);
  const uint32_t start = granule;
  const uint32_t end =
      *granules < limit - granule ? granule + *granules : limit;
  while (granule < end) {
    Span* const span = arena_->SpanOf(maps().AddressOf(granule));
    if (span == nullptr) {
      // How long a free run is only its ends tell, and since the last call this
      // may have come to lie between them.
      ++granule;
    } else {
      if (span->start == granule) fn(context, span);
      granule = span->start + span->granules;
    }
  }
  *granules -= std::min(*granules, granule - start);
  return granule < limit ? granule : 0;
}

// For those who look from outside, and for the other parts.
void ArenaPart::ShowFigures() {
  const auto show = [](std::atomic<uint64_t>& figure, uint64_t granules) {
    figure.store(granules * kGranuleSize, std::memory_order_relaxed);
  };
  ObservedPart& shown = hak_observed.parts[index_];
  const uint32_t live = live_granules_.load(std::memory_order_relaxed);
  show(shown.committed_bytes, frontier_ - begin_);
  show(shown.slab_bytes, live - large_granules_);
  show(shown.large_bytes, large_granules_);
  show(shown.free_dirty_bytes, dirty_granules_);
  show(shown.purged_bytes, purged_granules_);
  shown.metadata_bytes.store(metadata_.used_bytes(), std::memory_order_relaxed);
  if (arena_->parts() != 1) Tell();
}

void ArenaPart::AddStats(ArenaStats& stats) {
  Lock lock(*this);
  if (frontier_ != begin_) MindHugePages();
  const size_t large = size_t{large_granules_} * kGranuleSize;
  stats.committed_bytes += size_t{frontier_ - begin_} * kGranuleSize;
  stats.large_bytes += large;
  stats.slab_bytes += live_bytes() - large;
  stats.dirty_bytes += size_t{dirty_granules_} * kGranuleSize;
  stats.purged_bytes += purged_granules_ * kGranuleSize;
  stats.metadata_bytes += metadata_.used_bytes();
  ForEachTable(
      [&stats](const void*, size_t bytes) { stats.table_bytes += bytes; });
}

template <typename Fn>
void ArenaPart::ForEachTable(Fn fn) const {
  maps().ForEachTable(begin_, tables_frontier_.load(std::memory_order_relaxed),
                      owners_frontier_, fn);
  metadata_.ForEachAccessible(fn);
}

// No lock is held while the system is asked about blocks: granules may change
// hands meanwhile, and are counted as what they are when their turn comes.
void ArenaPart::AddResidency(ArenaResidency& residency) {
  uint32_t end = 0;
  {
    Lock lock(*this);
    end = frontier_;
    ForEachTable([&residency](const void* start, size_t bytes) {
      residency.tables += os::ResidentBytes(start, bytes);
    });
  }
  unsigned char pages[os::kMostResidencyPages];
  for (uint32_t granule = begin_; granule < end;) {
    const auto count = static_cast<uint32_t>(
        std::min<size_t>(end - granule, sizeof(pages) / kGranulePages));
    os::Residency(maps().AddressOf(granule), count * kGranuleSize, pages);
    for (uint32_t i = 0; i < count; ++i, ++granule) {
      size_t& kind =
          maps().class_map[granule].load(std::memory_order_relaxed) != kNoClass
              ? residency.slabs
          : maps().IsFree(granule) ? residency.free
                                   : residency.large;
      const unsigned char* const first = pages + i * kGranulePages;
      kind += static_cast<size_t>(std::count(first, first + kGranulePages, 1)) *
              os::kPageSize;
    }
  }
}

}  // namespace hakmem
