// Tags: what hakmem knows of a tracked block beside its address. Four bytes
// that stand in the metadata of the block's slab, span or mapping, or once for
// all blocks of a slab: which site the block belongs to, and when it was born.
//
// Births are kept in ticks of 16 ms, of which a tag holds the lowest 15 bits:
// it reaches back 2^15 ticks, nine minutes. Long before that the sweep comes by
// and marks the block as old. Not every block has a birth (see site_cache.h).

#ifndef HAKMEM_CORE_TAG_H_
#define HAKMEM_CORE_TAG_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/observed.h"

namespace hakmem {

// The index of a site below, the tick of birth above: 2 to 32767, 1 for an old
// block, or 0 where no birth was noted.
using Tag = uint32_t;

inline constexpr int kSiteBits = 17;
inline constexpr uint32_t kSiteMask = (1u << kSiteBits) - 1;
inline constexpr uint32_t kTickMask = ~kSiteMask;
inline constexpr int kTagTickBits = 32 - kSiteBits;

// No block, or one that is not tracked.
inline constexpr Tag kNoTag = ~Tag{0};

// A block of this age, in ticks, may be marked as old.
inline constexpr uint32_t kOldAge = 1u << (kTagTickBits - 1);

// The sweep comes by this often, in ticks.
inline constexpr uint32_t kSweepPeriod = kOldAge / 2;

constexpr uint32_t SiteOf(Tag tag) { return tag & kSiteMask; }

inline constexpr uint32_t kOldBirth = 1u << kSiteBits;

constexpr bool HasBirth(Tag tag) { return (tag & kTickMask) != 0; }

// A tick as a tag has it; of 2^15 the two that would be 0 and 1 are taken for
// the next.
constexpr uint32_t TickBits(uint64_t tick) {
  return std::max(static_cast<uint32_t>(tick) << kSiteBits, 2 * kOldBirth);
}

// Which of kAgeBuckets a block with this tag, which has a birth, is in at
// `now`, as TickBits().
constexpr uint32_t AgeBucket(Tag tag, uint32_t now) {
  const uint32_t birth = tag & kTickMask;
  const uint32_t age =
      birth != kOldBirth ? (now - birth) >> kSiteBits : uint32_t{kOldAge};
  return static_cast<uint32_t>(std::bit_width(age) + 1) / 2;
}

static_assert(AgeBucket(TickBits(70), TickBits(70)) == 0);
static_assert(AgeBucket(TickBits(70), TickBits(73)) == 1);
static_assert(AgeBucket(TickBits(70), TickBits(74)) == 2);
static_assert(AgeBucket(5 | kOldBirth, TickBits(9)) == kAgeBuckets - 1);
static_assert(AgeBucket(TickBits(2), TickBits(kOldAge + 2)) == kAgeBuckets - 1);

// The clock and the sweep. A call that tracks takes the time from here, and now
// and then it lets the clock go on.
//
// Thread safety: every function may be called from any thread. Invariants:
//  1. now() never goes back.
//  2. Every birth in a tag, of one that is not old, was less than 2^15 ticks
//     before now().
class TagClock {
 public:
  constexpr TagClock() = default;

  // The time as a tag has it: a load, and late by the calls that Advance() is
  // not made for.
  uint32_t now() const { return now_.load(std::memory_order_relaxed); }

  // In whole ticks.
  uint64_t tick() const {
    return hak_observed.tick.load(std::memory_order_relaxed);
  }

  // Looks at the system's clock, and sweeps as far as it is time to.
  void Advance();

  // Advance(), as if the system's clock showed `tick`. For tests, too.
  void AdvanceTo(uint64_t tick);

  // In the child of a fork: whoever was advancing it does not exist.
  void AfterForkInChild() {
    advancing_.store(false, std::memory_order_relaxed);
  }

 private:
  bool Sweep(uint32_t elapsed, uint32_t granules);

  alignas(64) std::atomic<uint32_t> now_{2 * kOldBirth};
  std::atomic<bool> advancing_{false};
  // For whoever has set advancing_.
  uint64_t swept_tick_ = 0;  // when the last sweep began
  bool sweeping_ = false;
  uint32_t cursor_ = 0;  // granule where the sweep goes on
};

extern constinit TagClock tag_clock;

// Calls fn(context, tag, bytes) for every tracked block in the arena, `bytes`
// of which it takes; for those of an owner's slab (locked_pool.h) all at once.
// Blocks come and go meanwhile; the arena is locked for short times.
void ForEachTaggedBlock(void (*fn)(void* context, Tag tag, uint64_t bytes),
                        void* context);

// Marks the block of `tag` as old if it is, `elapsed` ticks after `clock`.
void MarkIfOld(std::atomic<Tag>& tag, uint32_t clock, uint32_t elapsed);

}  // namespace hakmem

#endif  // HAKMEM_CORE_TAG_H_
