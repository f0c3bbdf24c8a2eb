#include "hakmem/core/arena.h"

#include <bit>

#include "absl/base/internal/sysinfo.h"
#include "hakmem/core/cgroup.h"
#include "hakmem/core/os.h"

namespace hakmem {

constinit Arena arena;

namespace {

constexpr uint64_t kLeastArena = uint64_t{4} << 20;

// Default of HAKMEM_SOFT_LIMIT: HAKMEM_LIMIT less this part of it.
constexpr size_t kSoftLimitShare = 8;

// Default of HAKMEM_CACHE_BYTES: this part of the memory that there is for this
// process.
constexpr size_t kDefaultCacheShare = 64;

// Threads have numbers in the order in which they first need one, from 1 on.
constinit std::atomic<uint32_t> threads{0};
constinit thread_local uint32_t thread_number
    __attribute__((tls_model("initial-exec"))) = 0;

uint32_t ThreadNumber() {
  if (thread_number == 0) [[unlikely]]
    thread_number = threads.fetch_add(1, std::memory_order_relaxed) + 1;
  return thread_number;
}

}  // namespace

void Arena::Ask() {
  options_ = ReadOptions();
  const CgroupLimits limits =
      ReadCgroupLimits("/proc/self/cgroup", "/sys/fs/cgroup");
  cache_bytes_ = options_.cache_bytes != 0
                     ? options_.cache_bytes
                     : os::UsableMemory(limits) / kDefaultCacheShare;
  processors_ = os::UsableProcessors(limits);
  if (options_.mincore == kMincoreNever) os::ForbidMincore();
  // Abseil's locks ask for it when threads first wait for each other.
  absl::base_internal::NumCPUs();
  gives_huge_pages_ =
      options_.huge_pages != kHugePagesNever &&
      os::GivesHugePages(options_.huge_pages == kHugePagesAsked);
  if (options_.limit != 0) {
    limit_bytes_ = options_.limit;
    soft_limit_bytes_ = options_.limit - options_.limit / kSoftLimitShare;
  }
  if (options_.soft_limit != 0) soft_limit_bytes_ = options_.soft_limit;
}

void Arena::SetUp() {
  Mutex::DetectValgrind();
  HelgrindIgnore(&work_, sizeof(work_));
  HelgrindIgnore(&pressed_, sizeof(pressed_));
  HelgrindIgnore(&purge_cost_, sizeof(purge_cost_));
  HelgrindIgnore(&demand_, sizeof(demand_));
  HelgrindIgnore(&regretted_, sizeof(regretted_));
  HelgrindIgnore(&large_regretted_, sizeof(large_regretted_));
  HelgrindIgnore(&told_, sizeof(told_));
  HelgrindIgnore(&swing_granules_, sizeof(swing_granules_));
  HelgrindIgnore(&crossing_granules_, sizeof(crossing_granules_));
  HelgrindIgnore(&live_swing_granules_, sizeof(live_swing_granules_));
  HelgrindIgnore(&live_levels_, sizeof(live_levels_));
  HelgrindIgnore(&direct_bytes_, sizeof(direct_bytes_));
  HelgrindIgnore(&parts_in_use_, sizeof(parts_in_use_));
  HelgrindIgnore(&threads, sizeof(threads));
  EnsureOptions();
  hak_observed.start_milliseconds = os::CoarseMilliseconds();
  uint64_t bytes = options_.arena_bytes & ~uint64_t{kGranuleSize - 1};
  // Under a limit on address space leave half of it to everything else.
  const size_t limit = os::AddressSpaceLimit();
  while (bytes > limit / 2 && bytes > kLeastArena) bytes /= 2;
  while (!maps_.Reserve(bytes)) {
    bytes = (bytes / 2) & ~uint64_t{kGranuleSize - 1};
    if (bytes < kLeastArena) break;
  }
  if (maps_.base != nullptr) {
    const auto start = reinterpret_cast<uintptr_t>(maps_.base);
    hak_observed.arena_start = start;
    hak_observed.arena_bytes = bytes;
    view_ = {.base = start,
             .eighths = bytes >> 3,
             .class_map = maps_.class_map,
             .owner_map = maps_.owner_map};
  }
  Divide();
  ready_.store(true, std::memory_order_release);
}

// As many parts as processors, fewer where they would be small, and one where
// sums of all parts are to be kept below a limit. With two on two processors
// the workload "threads" takes 0.88 times as long as with one, and has 27 MiB
// where it has 24; with four no less time, and 31 MiB.
void Arena::Divide() {
  uint64_t parts = options_.arena_parts;
  if (parts == 0) parts = std::bit_floor(processors_);
  if (limit_bytes_ != SIZE_MAX || soft_limit_bytes_ != SIZE_MAX) parts = 1;
  count_ = static_cast<uint32_t>(std::clamp<uint64_t>(
      maps_.granules / kLeastPart, 1, std::min<uint64_t>(parts, kMostParts)));
  if (count_ > 1) {
    part_shift_ =
        static_cast<uint32_t>(std::bit_width(maps_.granules / count_) - 1);
    metadata_shift_ = static_cast<uint32_t>(
        std::bit_width(maps_.metadata_bytes / count_) - 1);
  }
  InitPart(0);
  parts_in_use_.store(1, std::memory_order_release);
}

void Arena::InitPart(uint32_t part) {
  const size_t before = size_t{part} << metadata_shift_;
  const size_t bytes = part + 1 == count_ ? maps_.metadata_bytes - before
                                          : size_t{1} << metadata_shift_;
  parts_[part].Init(*this, part, {BeginOf(part), EndOf(part)},
                    {maps_.metadata + before, bytes});
}

uint32_t Arena::OwnPart(uint32_t in_use) const {
  return in_use == 1 ? 0 : ThreadNumber() % in_use;
}

// Several threads may be here at once: they do the same.
void Arena::UseMoreParts() {
  uint32_t in_use = parts_in_use();
  const uint32_t more = std::min(in_use * 2, count_);
  for (uint32_t i = in_use; i < more; ++i) {
    InitPart(i);
  }
  parts_in_use_.compare_exchange_strong(in_use, more, std::memory_order_release,
                                        std::memory_order_relaxed);
  for (uint32_t i = 0; i < more; ++i) {
    parts_[i].ForgetWaits();
    if (more == count_) parts_[i].IgnoreWaits();
  }
}

void Arena::NoteSwing(uint32_t change, int64_t now) {
  const size_t each =
      swing_granules_.fetch_add(change, std::memory_order_relaxed) + change;
  const size_t of_all =
      live_levels_.Swing(live_bytes() >> kGranuleShift, decay_period(), now);
  live_swing_granules_.store(static_cast<uint32_t>(of_all),
                             std::memory_order_relaxed);
  crossing_granules_.store(static_cast<uint32_t>(each - std::min(each, of_all)),
                           std::memory_order_relaxed);
}

// Calls allocate(part) for the parts in use, the thread's own one first, until
// that says something other than kFull; if none does, for twice as many.
template <typename Fn>
bool Arena::TryParts(Fn allocate) {
  for (;;) {
    const uint32_t in_use = parts_in_use();
    const uint32_t own = OwnPart(in_use);
    bool refused = false;
    for (uint32_t i = 0; i < in_use; ++i) {
      ArenaPart& part = parts_[(own + i) % in_use];
      const ArenaPart::Outcome outcome = allocate(part);
      if (outcome == ArenaPart::Outcome::kDone) {
        UseMorePartsIfContended(part);
        return true;
      }
      refused |= outcome == ArenaPart::Outcome::kRefused;
    }
    // Others would be refused as well.
    if (refused || in_use == count_) return false;
    UseMoreParts();
  }
}

bool Arena::AllocateRun(Span* span, uint32_t granules, size_t alignment,
                        bool* zeroed, RunPages* pages) {
  if (pages != nullptr) *pages = {};
  if (!EnsureReady() || !FitsIntoPart(granules, alignment)) return false;
  return TryParts([&](ArenaPart& part) {
    return part.AllocateRun(span, granules, alignment, zeroed, pages);
  });
}

Span* Arena::AllocateSpan(const Span& model, size_t bytes, uint32_t granules,
                          bool* zeroed, RunPages* pages) {
  if (pages != nullptr) *pages = {};
  if (!EnsureReady() || !FitsIntoPart(granules, kGranuleSize)) return nullptr;
  Span* span = nullptr;
  TryParts([&](ArenaPart& part) {
    return part.AllocateSpan(&span, model, bytes, granules, zeroed, pages);
  });
  return span;
}

void Arena::FreeSpan(Span* span, size_t bytes, uint32_t absent,
                     uint32_t lately) {
  ArenaPart& part = PartOfSpan(span);
  const bool elsewhere = bytes != 0 && &PartOfPiece(span) != &part;
  part.FreeSpan(span, elsewhere ? 0 : bytes, absent, lately);
  UseMorePartsIfContended(part);
  if (elsewhere) FreeMetadata(span, bytes);
}

void* Arena::AllocateMetadata(size_t bytes) {
  if (!EnsureReady()) return nullptr;
  void* piece = nullptr;
  TryParts([&piece, bytes](ArenaPart& part) {
    piece = part.AllocateMetadata(bytes);
    return piece == nullptr ? ArenaPart::Outcome::kFull
                            : ArenaPart::Outcome::kDone;
  });
  return piece;
}

void Arena::FreeMetadata(void* piece, size_t bytes) {
  ArenaPart& part = PartOfPiece(piece);
  part.FreeMetadata(piece, bytes);
  UseMorePartsIfContended(part);
}

size_t Arena::PurgeMetadata() {
  size_t purged = 0;
  for (ArenaPart& part : used_parts()) purged += part.PurgeMetadata();
  return purged;
}

Span* Arena::FreeLarge(const void* block) {
  const uint32_t part = PartOf(maps_.GranuleOf(block));
  // A block of the program's lies in one that is.
  if (part >= parts_in_use()) return nullptr;
  Span* const span = parts_[part].FreeLarge(block);
  UseMorePartsIfContended(parts_[part]);
  return span;
}

bool Arena::ResizeRun(Span* span, uint32_t granules) {
  return PartOfSpan(span).ResizeRun(span, granules);
}

void Arena::NotePurgedParts(const Span* span) {
  PartOfSpan(span).NotePurgedParts(span);
}

bool Arena::MakeRoomForOwner(const Span* slab) {
  return PartOfSpan(slab).MakeRoomForOwner(slab);
}

void Arena::SetOwner(const Span* slab, uint32_t key, uint32_t bin) {
  PartOfSpan(slab).SetOwner(slab, key, bin);
}

// The caller keeps the owner's slabs as they are, by the lock of their class,
// under which every change of the owner's in the maps is made: so the parts
// need not be locked all at once.
uint32_t Arena::GiveOwnBin(uint32_t key, SizeClass twin) {
  uint32_t bin = 0;
  {
    MutexLock lock(parts_[0].mutex());
    const uint32_t count = own_bins_.load(std::memory_order_relaxed);
    if (count == kMostOwnBins) return 0;
    bin = kFirstOwnBin + count;
    own_bin_twins_[count].store(static_cast<uint8_t>(twin),
                                std::memory_order_relaxed);
    own_bins_.store(count + 1, std::memory_order_relaxed);
  }
  for (ArenaPart& part : used_parts()) part.EnterOwnBin(key, bin);
  return bin;
}

size_t Arena::Purge(size_t keep) {
  size_t purged = 0;
  for (ArenaPart& part : used_parts()) purged += part.Purge(&keep);
  return purged;
}

size_t Arena::Decay(int64_t now) {
  size_t purged = 0;
  for (ArenaPart& part : used_parts()) purged += part.Decay(now);
  return purged;
}

size_t Arena::held_bytes() {
  size_t held = direct_bytes();
  for (ArenaPart& part : used_parts()) {
    MutexLock lock(part.mutex());
    held += part.held_bytes();
  }
  return held;
}

// Before the options have been read there is no limit.
bool Arena::Hold(size_t bytes) {
  if (soft_limit_bytes_ == SIZE_MAX) {
    direct_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    return true;
  }
  MutexLock lock(parts_[0].mutex());
  if (!parts_[0].MakeRoom(bytes)) return false;
  direct_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  parts_[0].NotePressure();
  return true;
}

void Arena::LetGo(size_t bytes) {
  direct_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  if (soft_limit_bytes_ == SIZE_MAX) return;
  MutexLock lock(parts_[0].mutex());
  parts_[0].NotePressure();
}

uint32_t Arena::ForEachSpan(uint32_t from, uint32_t granules,
                            void (*fn)(void*, Span*), void* context) {
  const uint32_t in_use = parts_in_use();
  for (uint32_t i = PartOf(from); i < in_use; ++i) {
    const uint32_t next = parts_[i].ForEachSpan(std::max(from, BeginOf(i)),
                                                &granules, fn, context);
    if (next != 0) return next;
  }
  return 0;
}

Arena::Stats Arena::GetStats() {
  Stats stats = {};
  stats.reserved_bytes = size_t{maps_.granules} * kGranuleSize;
  for (ArenaPart& part : used_parts()) part.AddStats(stats);
  stats.table_bytes += maps_.class_map_bytes();
  return stats;
}

Arena::Residency Arena::GetResidency() {
  Residency residency = {};
  for (ArenaPart& part : used_parts()) part.AddResidency(residency);
  if (maps_.base != nullptr) {
    residency.tables +=
        os::ResidentBytes(maps_.class_map, maps_.class_map_bytes());
  }
  return residency;
}

}  // namespace hakmem
