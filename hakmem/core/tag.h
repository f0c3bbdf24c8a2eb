// Tags: what hakmem knows of a tracked block beside its address. Four bytes
// that stand in the metadata of the block's slab, span or mapping: which site
// the block belongs to, and when it was born.
//
// Births are kept in ticks of 16 ms, of which a tag holds the lowest 15 bits:
// so far it reaches back as 2^15 ticks, nine minutes. Long before that the
// sweep comes by and marks the block as old, after which its age is no longer
// asked.

#ifndef HAKMEM_CORE_TAG_H_
#define HAKMEM_CORE_TAG_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/observed.h"

namespace hakmem {

struct Span;

// The index of a site below, the tick of birth above: 1 to 32767, or 0 for an
// old block.
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

// A tick as a tag has it; the one in 2^15 that would be 0 is taken for the
// next.
constexpr uint32_t TickBits(uint64_t tick) {
  const auto low = static_cast<uint32_t>(tick) << kSiteBits;
  return low != 0 ? low : 1u << kSiteBits;
}

// Which of kAgeBuckets a block with this tag is in at `now`, as TickBits().
constexpr uint32_t AgeBucket(Tag tag, uint32_t now) {
  const uint32_t birth = tag & kTickMask;
  const uint32_t age =
      birth != 0 ? (now - birth) >> kSiteBits : uint32_t{kOldAge};
  return static_cast<uint32_t>(std::bit_width(age) + 1) / 2;
}

static_assert(AgeBucket(TickBits(70), TickBits(70)) == 0);
static_assert(AgeBucket(TickBits(70), TickBits(73)) == 1);
static_assert(AgeBucket(TickBits(70), TickBits(74)) == 2);
static_assert(AgeBucket(5, TickBits(9)) == kAgeBuckets - 1);
static_assert(AgeBucket(TickBits(1), TickBits(kOldAge + 1)) == kAgeBuckets - 1);

// The clock and the sweep. A call that tracks takes the time from here, and now
// and then it lets the clock go on.
//
// Thread safety: every function may be called from any thread. Invariants:
//  1. now() never goes back.
//  2. Every tag that is not old was born less than 2^15 ticks before now().
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
  alignas(64) std::atomic<uint32_t> now_{1u << kSiteBits};
  std::atomic<bool> advancing_{false};
  // For whoever has set advancing_.
  uint64_t swept_tick_ = 0;  // when the last sweep began
  bool sweeping_ = false;
};

extern constinit TagClock tag_clock;

// What holds tagged blocks, a slab or a large block's span, is in one list, by
// which the sweep finds it.
struct TagNode {
  TagNode* next;
  TagNode* previous;
  Span* span;
};

// Thread safety: every function may be called from any thread; the lock comes
// after those of the pools and before no other.
class TagList {
 public:
  constexpr TagList() = default;

  void Add(TagNode* node, Span* span) ABSL_LOCKS_EXCLUDED(mu_);
  // Before anything of the span is given back.
  void Remove(TagNode* node) ABSL_LOCKS_EXCLUDED(mu_);

  // Calls fn(context, tag, bytes) for every tracked block in a slab or a span.
  // Blocks come and go meanwhile.
  void ForEachBlock(void (*fn)(void* context, Tag tag, uint64_t bytes),
                    void* context) ABSL_LOCKS_EXCLUDED(mu_);

  // Marks blocks as old, of `spans` spans from where the last call stopped, or
  // from the first; true when it has come to the end. See MarkIfOld().
  bool Sweep(uint32_t clock, uint32_t elapsed, size_t spans)
      ABSL_LOCKS_EXCLUDED(mu_);

  size_t count() const { return count_.load(std::memory_order_relaxed); }
  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

 private:
  Mutex mu_{Mutex::Locking::kInner};
  TagNode* first_ ABSL_GUARDED_BY(mu_) = nullptr;
  TagNode* cursor_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::atomic<size_t> count_{0};
};

extern constinit TagList tag_list;

// Marks the block of `tag` as old if it is, `elapsed` ticks after `clock`.
void MarkIfOld(std::atomic<Tag>& tag, uint32_t clock, uint32_t elapsed);

}  // namespace hakmem

#endif  // HAKMEM_CORE_TAG_H_
