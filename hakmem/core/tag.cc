#include "hakmem/core/tag.h"

#include "absl/base/attributes.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/large.h"
#include "hakmem/core/os.h"
#include "hakmem/core/slab.h"

namespace hakmem {

constinit TagClock tag_clock;

namespace {

// The clock goes on in steps up to this, in ticks, while the sweep follows. A
// program that has tracked nothing for longer has all of its blocks looked at
// before the clock goes on.
constexpr uint64_t kLongestStep = 1024;

// A sweep takes half of the time until the next one begins: so it comes to each
// block in time also where a block was born just behind it.
constexpr uint64_t kSweepTime = kSweepPeriod / 2;
static_assert(kOldAge + kSweepPeriod + kSweepTime + 2 * kLongestStep <
              2 * kOldAge);

// Granules that are looked at under one hold of the arena's lock.
constexpr uint32_t kSpansAtATime = 64;

// Calls fn(tag) for each tag of a slab or span.
template <typename Fn>
void ForEachTag(Span* span, Fn fn) {
  if (span->kind == Span::Kind::kLarge) {
    fn(static_cast<LargeSpan*>(span)->tag);
    return;
  }
  // Of others nothing need be there when they have just come into the maps.
  if (!IsTwin(span->size_class)) return;
  auto* const slab = static_cast<Slab*>(span);
  for (uint32_t i = 0; i < slab->tags(); ++i) fn(slab->TagOf(i));
}

// How much each tag of a slab or span is for: a block, or all of an owner's
// slab that is not free there. The lock of its pool is not held: TSan is not to
// look.
ABSL_ATTRIBUTE_NO_SANITIZE_THREAD uint64_t BytesOfATag(const Span* span) {
  if (span->kind == Span::Kind::kLarge) return span->granules * kGranuleSize;
  const uint64_t bytes = ClassSize(span->size_class);
  if (!IsTwin(span->size_class)) return bytes;
  const auto* const slab = static_cast<const Slab*>(span);
  if (slab->owner == 0) return bytes;
  return bytes * (slab->blocks() -
                  *const_cast<const volatile uint16_t*>(&slab->free_count));
}

}  // namespace

void MarkIfOld(std::atomic<Tag>& tag, uint32_t clock, uint32_t elapsed) {
  Tag now = tag.load(std::memory_order_relaxed);
  if (now == kNoTag || (now & kTickMask) <= kOldBirth) return;
  const uint32_t age = (clock - (now & kTickMask)) >> kSiteBits;
  if (age + elapsed < kOldAge) return;
  // Fails where the block has just been freed, which is as well.
  tag.compare_exchange_strong(now, SiteOf(now) | kOldBirth,
                              std::memory_order_relaxed);
}

void TagClock::Advance() {
  AdvanceTo(static_cast<uint64_t>(os::CoarseMilliseconds()) /
            kTickMilliseconds);
}

void TagClock::AdvanceTo(uint64_t tick) {
  if (tick <= this->tick()) return;
  if (advancing_.exchange(true, std::memory_order_acquire)) return;
  const uint64_t last = this->tick();
  if (tick > last) {
    const uint64_t step = last == 0 ? 0 : tick - last;
    if (step > kLongestStep) {
      const auto elapsed =
          static_cast<uint32_t>(std::min<uint64_t>(step, kOldAge));
      cursor_ = 0;
      while (!Sweep(elapsed, kSpansAtATime)) {
      }
      direct_mappings.Sweep(now(), elapsed);
      swept_tick_ = tick;
      sweeping_ = false;
    }
    now_.store(TickBits(tick), std::memory_order_relaxed);
    hak_observed.tick.store(tick, std::memory_order_relaxed);
    if (last == 0) swept_tick_ = tick;
    if (!sweeping_ && tick - swept_tick_ >= kSweepPeriod) {
      sweeping_ = true;
      swept_tick_ = tick;
    }
    if (sweeping_ &&
        Sweep(0, static_cast<uint32_t>(
                     arena.granules_with_tables() * step / kSweepTime + 1))) {
      direct_mappings.Sweep(now(), 0);
      sweeping_ = false;
    }
  }
  advancing_.store(false, std::memory_order_release);
}

// Marks the old ones of the next so many granules; true when it has come to the
// end, after which it begins anew.
bool TagClock::Sweep(uint32_t elapsed, uint32_t granules) {
  struct Time {
    uint32_t clock;
    uint32_t elapsed;
  } time = {now(), elapsed};
  cursor_ = arena.ForEachSpan(
      cursor_, granules,
      [](void* context, Span* span) {
        const auto* const time = static_cast<const Time*>(context);
        ForEachTag(span, [time](std::atomic<Tag>& tag) {
          MarkIfOld(tag, time->clock, time->elapsed);
        });
      },
      &time);
  return cursor_ == 0;
}

void ForEachTaggedBlock(void (*fn)(void*, Tag, uint64_t), void* context) {
  struct Call {
    void (*fn)(void*, Tag, uint64_t);
    void* context;
  } call = {fn, context};
  uint32_t granule = 0;
  do {
    granule = arena.ForEachSpan(
        granule, kSpansAtATime,
        [](void* context, Span* span) {
          const auto* const call = static_cast<const Call*>(context);
          const uint64_t bytes = BytesOfATag(span);
          ForEachTag(span, [=](const std::atomic<Tag>& tag) {
            const Tag now = tag.load(std::memory_order_relaxed);
            if (now != kNoTag) call->fn(call->context, now, bytes);
          });
        },
        &call);
  } while (granule != 0);
}

}  // namespace hakmem
