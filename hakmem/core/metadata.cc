#include "hakmem/core/metadata.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "hakmem/core/mutex.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// Small programs need a few dozen KiB of metadata; the system call costs about
// as much as filling a page.
constexpr uint32_t kCommitStep = 256 * 1024 / os::kPageSize;

// Whole pages that stay with the process for the next table: this many, and an
// eighth of what was ever used.
constexpr uint32_t kRetainedPages = 64;
constexpr uint32_t kRetainedShare = 8;

constexpr uint64_t kWhole = ~uint64_t{0};

// The units from which aligned holes of twice 2^order units begin, by those of
// 2^order units.
constexpr uint64_t Doubled(uint64_t holes, uint32_t order) {
  constexpr uint64_t kAligned[] = {0x5555555555555555, 0x1111111111111111,
                                   0x0101010101010101, 0x0001000100010001,
                                   0x0000000100000001, 0x0000000000000001};
  return holes & (holes >> (1u << order)) & kAligned[order];
}

// The units from which a free and aligned hole of 2^order units begins.
constexpr uint64_t Holes(uint64_t free, uint32_t order) {
  for (uint32_t o = 0; o < order; ++o) free = Doubled(free, o);
  return free;
}

constexpr uint64_t MaskOf(uint32_t first, uint32_t units) {
  return (units == 64 ? kWhole : (uint64_t{1} << units) - 1) << first;
}

}  // namespace

static_assert(Metadata::kMaxPiece == os::kPageSize &&
              Metadata::kMaxPiece == 64 * Metadata::kUnit);

void Metadata::Init(char* region, size_t bytes) {
  HelgrindIgnore(&used_, sizeof(used_));
  HelgrindIgnore(&resident_, sizeof(resident_));
  region_ = region;
  limit_ = static_cast<uint32_t>(bytes / os::kPageSize);
  // The table of pages stands in the first of them: so page 0 is no page that
  // could be handed out.
  pages_ = reinterpret_cast<Page*>(region);
  frontier_ = static_cast<uint32_t>(TableBytes(limit_) / os::kPageSize);
}

// The list that a page with these free units belongs to; kLists when none.
uint32_t Metadata::ListFor(uint64_t free) {
  if (free == kWhole) return kWholeDirty;
  if (free == 0) return kLists;
  // Where there are holes of a size there are some of all smaller ones. Without
  // a loop: each slab comes here three times, and that was 5 % of making it and
  // giving it back.
  uint32_t largest = 0;
  uint64_t holes = free;
  [&]<uint32_t... kOrder>(std::integer_sequence<uint32_t, kOrder...>) {
    ((holes = Doubled(holes, kOrder), largest += holes != 0 ? 1 : 0), ...);
  }
  (std::make_integer_sequence<uint32_t, kOrders - 1>{});
  return largest;
}

void Metadata::Link(uint32_t page, uint32_t list) {
  if (list == kLists) return;
  const uint32_t head = lists_[list];
  pages_[page].next = head;
  pages_[page].previous = kNoPage;
  if (head != kNoPage) pages_[head].previous = page;
  lists_[list] = page;
}

void Metadata::Unlink(uint32_t page, uint32_t list) {
  if (list == kLists) return;
  const uint32_t next = pages_[page].next;
  const uint32_t previous = pages_[page].previous;
  (previous != kNoPage ? pages_[previous].next : lists_[list]) = next;
  if (next != kNoPage) pages_[next].previous = previous;
}

void Metadata::AddResident(ptrdiff_t bytes) {
  resident_.store(
      resident_.load(std::memory_order_relaxed) + static_cast<size_t>(bytes),
      std::memory_order_relaxed);
}

void Metadata::AddUsed(ptrdiff_t bytes) {
  used_.store(
      used_.load(std::memory_order_relaxed) + static_cast<size_t>(bytes),
      std::memory_order_relaxed);
}

// Adds one page to the clean ones.
bool Metadata::Grow() {
  if (frontier_ == limit_) return false;
  if (frontier_ >= committed_) {
    const uint32_t to = std::min(limit_, frontier_ + kCommitStep);
    const size_t have = TableBytes(committed_);
    const size_t need = TableBytes(to);
    if (need != have) {
      if (!os::Commit(region_ + have, need - have)) return false;
    }
    if (!os::Commit(region_ + frontier_ * os::kPageSize,
                    (to - frontier_) * os::kPageSize)) {
      return false;
    }
    AddResident(static_cast<ptrdiff_t>(need - have));
    committed_ = to;
  }
  pages_[frontier_].free = kWhole;
  Link(frontier_, kWholeClean);
  ++frontier_;
  return true;
}

// A page with a hole of 2^order units, taken out of its list, or kNoPage.
uint32_t Metadata::FindPage(uint32_t order) {
  for (uint32_t list = order; list < kLists; ++list) {
    const uint32_t page = lists_[list];
    if (page == kNoPage) continue;
    Unlink(page, list);
    if (list == kWholeDirty) --whole_dirty_;
    if (list == kWholeClean) AddResident(os::kPageSize);
    return page;
  }
  if (!Grow()) return kNoPage;
  return FindPage(kWholeClean);
}

void* Metadata::Allocate(size_t bytes) {
  const auto units = static_cast<uint32_t>(bytes / kUnit);
  const auto order = static_cast<uint32_t>(std::bit_width(units - 1));
  const uint32_t page = FindPage(order);
  if (page == kNoPage) return nullptr;
  uint64_t& free = pages_[page].free;
  const auto first =
      static_cast<uint32_t>(std::countr_zero(Holes(free, order)));
  free &= ~MaskOf(first, units);
  Link(page, ListFor(free));
  AddUsed(static_cast<ptrdiff_t>(bytes));
  return region_ + page * os::kPageSize + first * kUnit;
}

void Metadata::Free(void* piece, size_t bytes) {
  const auto unit =
      static_cast<size_t>(static_cast<char*>(piece) - region_) / kUnit;
  const auto page = static_cast<uint32_t>(unit / 64);
  uint64_t& free = pages_[page].free;
  Unlink(page, ListFor(free));
  free |= MaskOf(unit % 64, static_cast<uint32_t>(bytes / kUnit));
  const uint32_t list = ListFor(free);
  Link(page, list);
  AddUsed(-static_cast<ptrdiff_t>(bytes));
  if (list != kWholeDirty) return;
  const uint32_t bound = kRetainedPages + frontier_ / kRetainedShare;
  if (++whole_dirty_ > bound) PurgeWhole(bound / 2);
}

size_t Metadata::PurgeWhole(uint32_t keep) {
  size_t purged = 0;
  while (whole_dirty_ > keep) {
    const uint32_t page = lists_[kWholeDirty];
    if (!os::Purge(region_ + page * os::kPageSize, os::kPageSize)) break;
    Unlink(page, kWholeDirty);
    Link(page, kWholeClean);
    --whole_dirty_;
    purged += os::kPageSize;
  }
  AddResident(-static_cast<ptrdiff_t>(purged));
  return purged;
}

size_t Metadata::Purge() { return PurgeWhole(0); }

}  // namespace hakmem
