#include "hakmem/core/slab_use.h"

#include <algorithm>
#include <array>

#include "hakmem/core/arena.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

constinit std::array<SlabUse, kLastL25Class + 1> uses;

// At most so many slabs keep their tails for one that returns it, and tells
// whether that is worth while again.
constexpr uint32_t kMostKept = 127;

// A slab is filled where all but this part of its pages are resident: some of
// its blocks are maybe just being given out.
constexpr size_t kFillsShare = 16;

bool MayAsk() {
  const uint64_t mincore = arena.options().mincore;
  return mincore == kMincoreAlways ||
         (mincore == kMincoreIfUnfiltered && !os::IsFiltered());
}

}  // namespace

SlabUse& SlabUse::Of(SizeClass size_class) { return uses[PlainOf(size_class)]; }

uint32_t SlabUse::UnusedPages(const void* start, uint32_t pages) {
  HelgrindIgnore(this, sizeof(*this));
  const uint8_t left = slabs_left_.load(std::memory_order_relaxed);
  if (left != 0) {
    slabs_left_.store(left - 1, std::memory_order_relaxed);
  } else {
    if (MayAsk()) {
      const size_t resident = os::ResidentBytes(start, pages * os::kPageSize);
      NoteResident(resident / os::kPageSize, pages);
    }
    const auto place =
        static_cast<uint32_t>(reinterpret_cast<uintptr_t>(start) >> 16);
    slabs_left_.store(
        static_cast<uint8_t>(kUnasked + (place * 0x9E3779B1u >> 26)),
        std::memory_order_relaxed);
  }
  const uint32_t share = share_.load(std::memory_order_relaxed);
  if (share == 0) return 0;
  return pages - (pages * share + kWhole - 1) / kWhole;
}

// More at once, less by and by.
void SlabUse::NoteResident(size_t resident, size_t pages) {
  const auto now = static_cast<uint32_t>(resident * kWhole / pages);
  const uint32_t before = share_.load(std::memory_order_relaxed);
  const uint32_t share = std::max({now, (before * 3 + now) / 4, uint32_t{1}});
  share_.store(static_cast<uint8_t>(share), std::memory_order_relaxed);
}

void SlabUse::NoteMade() {
  HelgrindIgnore(this, sizeof(*this));
  made_.fetch_add(1, std::memory_order_relaxed);
}

// If the watched one has gone meanwhile, somebody else's pages are counted: it
// says what is worth doing.
bool SlabUse::FillsSoon(const void* start, size_t bytes) {
  HelgrindIgnore(this, sizeof(*this));
  if (const uint8_t left = until_watched_.load(std::memory_order_relaxed);
      left != 0) {
    until_watched_.store(left - 1, std::memory_order_relaxed);
    return fills_.load(std::memory_order_relaxed);
  }
  until_watched_.store(kWatchedOf - 1, std::memory_order_relaxed);
  const void* const watched =
      watched_.exchange(start, std::memory_order_relaxed);
  if (watched != nullptr) {
    fills_.store(MayAsk() && os::ResidentBytes(watched, bytes) >=
                                 bytes - bytes / kFillsShare,
                 std::memory_order_relaxed);
  }
  return false;
}

bool SlabUse::KeepsTail() {
  const uint8_t left = tails_left_.load(std::memory_order_relaxed);
  if (left != 0) {
    tails_left_.store(left - 1, std::memory_order_relaxed);
    return true;
  }
  const uint8_t kept = tails_kept_.load(std::memory_order_relaxed);
  if (kept != 0) tails_left_.store(kept, std::memory_order_relaxed);
  return false;
}

void SlabUse::NoteTail(bool soon) {
  const uint32_t before = tails_kept_.load(std::memory_order_relaxed);
  const uint32_t kept = soon ? std::min(2 * before + 1, kMostKept) : before / 2;
  if (kept == before) return;
  HelgrindIgnore(this, sizeof(*this));
  tails_kept_.store(static_cast<uint8_t>(kept), std::memory_order_relaxed);
}

}  // namespace hakmem
