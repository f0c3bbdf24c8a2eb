#include "hakmem/core/tag.h"

#include "hakmem/core/arena.h"
#include "hakmem/core/large.h"
#include "hakmem/core/os.h"
#include "hakmem/core/slab.h"

namespace hakmem {

constinit TagClock tag_clock;
constinit TagList tag_list;

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

// Calls fn(tag) for each tag of a slab or span.
template <typename Fn>
void ForEachTag(Span* span, Fn fn) {
  if (span->kind == Span::Kind::kLarge) {
    fn(static_cast<LargeSpan*>(span)->tag);
    return;
  }
  auto* const slab = static_cast<Slab*>(span);
  for (uint32_t i = 0; i < slab->blocks; ++i) fn(slab->TagOf(i));
}

}  // namespace

void MarkIfOld(std::atomic<Tag>& tag, uint32_t clock, uint32_t elapsed) {
  Tag now = tag.load(std::memory_order_relaxed);
  if (now == kNoTag || (now & kTickMask) == 0) return;
  const uint32_t age = (clock - (now & kTickMask)) >> kSiteBits;
  if (age + elapsed < kOldAge) return;
  // Fails where the block has just been freed, which is as well.
  tag.compare_exchange_strong(now, SiteOf(now), std::memory_order_relaxed);
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
      // The first may be the rest of one that is under way.
      tag_list.Sweep(now(), elapsed, SIZE_MAX);
      tag_list.Sweep(now(), elapsed, SIZE_MAX);
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
        tag_list.Sweep(now(), 0, tag_list.count() * step / kSweepTime + 1)) {
      direct_mappings.Sweep(now(), 0);
      sweeping_ = false;
    }
  }
  advancing_.store(false, std::memory_order_release);
}

void TagList::Add(TagNode* node, Span* span) {
  MutexLock lock(mu_);
  node->span = span;
  node->next = first_;
  node->previous = nullptr;
  if (first_ != nullptr) first_->previous = node;
  first_ = node;
  count_.store(count() + 1, std::memory_order_relaxed);
}

void TagList::Remove(TagNode* node) {
  MutexLock lock(mu_);
  if (cursor_ == node) cursor_ = node->next;
  (node->previous != nullptr ? node->previous->next : first_) = node->next;
  if (node->next != nullptr) node->next->previous = node->previous;
  count_.store(count() - 1, std::memory_order_relaxed);
}

void TagList::ForEachBlock(void (*fn)(void*, Tag, uint64_t), void* context) {
  MutexLock lock(mu_);
  for (const TagNode* node = first_; node != nullptr; node = node->next) {
    Span* const span = node->span;
    const uint64_t bytes = span->kind == Span::Kind::kLarge
                               ? span->granules * kGranuleSize
                               : ClassSize(span->size_class);
    ForEachTag(span, [=](const std::atomic<Tag>& tag) {
      const Tag now = tag.load(std::memory_order_relaxed);
      if (now != kNoTag) fn(context, now, bytes);
    });
  }
}

bool TagList::Sweep(uint32_t clock, uint32_t elapsed, size_t spans) {
  MutexLock lock(mu_);
  // What is put in front meanwhile is young.
  if (cursor_ == nullptr) cursor_ = first_;
  for (; cursor_ != nullptr && spans != 0; --spans) {
    ForEachTag(cursor_->span,
               [=](std::atomic<Tag>& tag) { MarkIfOld(tag, clock, elapsed); });
    cursor_ = cursor_->next;
  }
  return cursor_ == nullptr;
}

}  // namespace hakmem
