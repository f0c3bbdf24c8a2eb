// The free memory of a part of the arena: what the system may still back of it,
// how much of that may stay, and how the rest goes.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

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

// Runs swing as blocks do, or by this part of it more.
constexpr size_t kSlackShare = 4;

// Calls fn(bits[i], mask) for those that have the granules.
template <typename Fn>
void ForEachBits(GranuleBits* bits, uint32_t start, uint32_t length, Fn fn) {
  const uint32_t end = start + length;
  while (start < end) {
    const uint32_t bit = start % 64;
    const uint32_t count = std::min(64 - bit, end - start);
    const uint64_t ones =
        count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    fn(bits[start / 64], ones << bit);
    start += count;
  }
}

// Clears one of the marks of the granules; says how many had it.
uint32_t Clear(uint64_t GranuleBits::*mark, GranuleBits* bits, uint32_t start,
               uint32_t length) {
  uint32_t taken = 0;
  ForEachBits(bits, start, length, [&](GranuleBits& of, uint64_t mask) {
    taken += static_cast<uint32_t>(std::popcount(of.*mark & mask));
    of.*mark &= ~mask;
  });
  return taken;
}

}  // namespace

// Of a run that is being handed out; says how many of its granules may hold old
// data. `*pages`, unless null: as Arena::AllocateRun().
uint32_t ArenaPart::Take(Span::Kind kind, uint32_t start, uint32_t length,
                         RunPages* pages) {
  if (absent_ != 0 || any_purged_[0] || any_purged_[1]) {
    ForgetPurged(os::CoarseMilliseconds());
  }
  const uint32_t dirty = TakeDirty(start, length, pages);
  retention_.Taken(Dirty());
  if (const uint32_t purged = TakePurged(start, length); purged != 0) {
    Regret(kind, purged);
  }
  return dirty;
}

// Clears the marks of granules that are not dirty any more.
uint32_t ArenaPart::TakeDirty(uint32_t start, uint32_t length,
                              RunPages* pages) {
  const uint32_t taken = Clear(&GranuleBits::dirty, bits_, start, length);
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
    if (pages != nullptr) pages->missed = lately;
  }
  if (taken != 0) {
    const uint32_t dense = Clear(&GranuleBits::dense, bits_, start, length);
    if (pages != nullptr) pages->dense = dense;
  }
  dirty_granules_ -= taken;
  if (!huge_pages_) return taken;
  return taken - Clear(&GranuleBits::clean, bits_, start, length);
}

void ArenaPart::MarkDirty(uint32_t start, uint32_t length, bool dense) {
  ForEachBits(bits_, start, length, [dense](GranuleBits& of, uint64_t mask) {
    of.dirty |= mask;
    if (dense) of.dense |= mask;
  });
  dirty_granules_ += length;
  dirty_end_ = std::max(dirty_end_, start + length);
}

void ArenaPart::CountAbsent(uint32_t absent, uint32_t lately, int64_t now) {
  ForgetPurged(now);
  absent_ += absent;
  absent_now_ += lately;
}

// Clears the marks of what was lately purged in a run that is being handed out;
// says how many granules had them.
uint32_t ArenaPart::TakePurged(uint32_t start, uint32_t length) {
  if (!any_purged_[0] && !any_purged_[1]) return 0;
  uint32_t taken = 0;
  ForEachBits(bits_, start, length, [&taken](GranuleBits& of, uint64_t mask) {
    for (uint64_t& purged : of.purged) {
      taken += static_cast<uint32_t>(std::popcount(purged & mask));
      purged &= ~mask;
    }
  });
  return taken;
}

void ArenaPart::Regret(Span::Kind kind, uint32_t purged) {
  const int64_t now = os::CoarseMilliseconds();
  if (kind == Span::Kind::kLarge) {
    large_retention_.Regret(size_t{purged} * kLargeRegret, large_granules_,
                            now);
  } else {
    retention_.Regret(size_t{purged} * kRegret, frontier_ - begin_, now);
  }
}

// With each period the marks of the last but one go, if there are any: that
// takes time for every 64 granules of the part.
void ArenaPart::ForgetPurged(int64_t now) {
  const int64_t period = now / arena_->decay_period();
  const int64_t passed = period - purge_period_;
  if (passed <= 0) return;
  purge_period_ = period;
  absent_before_ = passed == 1 ? absent_now_ : 0;
  absent_now_ = 0;
  for (int64_t i = std::min<int64_t>(passed, 2); i-- > 0;) {
    const int64_t parity = (period - i) % 2;
    if (!any_purged_[parity]) continue;
    std::for_each(bits_ + begin_ / 64, bits_ + (frontier_ + 63) / 64,
                  [parity](GranuleBits& of) { of.purged[parity] = 0; });
    any_purged_[parity] = false;
  }
}

// What may stay is one sum for all parts. Each frees what it has of what is too
// much: that is mostly what has just come back to it. With an equal share of
// the sum for each a pool of blocks up to 1 MiB without caches took five times
// as long on four parts, since none could keep a slab or two.
void ArenaPart::PurgeBeyondBound(int64_t now) {
  NotePressure();
  if (!arena_->purges()) {
    ShowFigures();
    return;
  }
  const size_t plain = (arena_->demand().bytes() / kRetainedShare +
                        arena_->options().retain_bytes) >>
                       kGranuleShift;
  retention_.Reconsider(Dirty(), arena_->decay_period(), now);
  const size_t dirty = DirtyInAll();
  const size_t swing = Swing(now);
  const auto bound_for = [&](size_t wanted_back) {
    mu_.AssertHeld();
    if (arena_->pressed()) return size_t{0};
    return retention_.Bound(large_retention_.Bound(plain, SIZE_MAX, now),
                            wanted_back, now);
  };
  // What is wanted back will be as little used as what is free now is.
  const bool sparse =
      absent_ != 0 &&
      dirty > bound_for(swing * uint64_t{Dirty()} / dirty_granules_);
  if (sparse != sparse_surplus_.load(std::memory_order_relaxed)) {
    sparse_surplus_.store(sparse, std::memory_order_relaxed);
  }
  if (const size_t bound = bound_for(swing);
      dirty > bound && arena_->purges_at_once()) {
    // A little more than needed, so that the next free does not come here
    // again; of a peak to which the program comes back, no more than that.
    const size_t surplus = dirty - bound + std::min(bound, plain) / 4;
    PurgeLocked(Dirty() - std::min<size_t>(Dirty(), surplus));
  }
  DecayLocked(now);
  ShowFigures();
}

// How far demand is from where it was lately, in granules, and what goes from
// part to part: that leaves the sum as it is, and is wanted all the same. Slabs
// are more than their blocks: what is in runs counts as far as it is not much
// more. A "peaks" of 32 MiB of blocks from 64 to 128 KiB has 18,000 page faults
// where it had 23,000; without the limit the workload "server", in which what
// is live is steady and slabs come and go, had up to 1.57 times of it resident.
size_t ArenaPart::Swing(int64_t now) {
  const size_t of_blocks = arena_->Swing(now) >> kGranuleShift;
  const size_t most = of_blocks + of_blocks / kSlackShare;
  const size_t live = live_granules_.load(std::memory_order_relaxed);
  const int64_t period = arena_->decay_period();
  if (arena_->parts_in_use() == 1) {
    return std::clamp(levels_.Swing(live, period, now), of_blocks, most);
  }
  if (std::exchange(swing_told_, now) == now) {
    levels_.Note(live, period, now);
  } else {
    const auto own = static_cast<uint32_t>(levels_.Swing(live, period, now));
    arena_->NoteSwing(own - std::exchange(told_swing_, own), now);
  }
  return std::clamp<size_t>(arena_->live_swing_granules(), of_blocks, most) +
         arena_->crossing_granules();
}

// Dirty() of all parts together.
size_t ArenaPart::DirtyInAll() {
  if (arena_->parts() == 1) return Dirty();
  Tell();
  return arena_->dirty_granules();
}

void ArenaPart::Tell() {
  const uint64_t sum =
      Arena::Told{Dirty(), live_granules_.load(std::memory_order_relaxed)}
          .sum();
  if (sum == told_) return;
  arena_->Tell(sum - std::exchange(told_, sum));
}

void ArenaPart::DecayLocked(int64_t now) {
  if (!arena_->purges()) return;
  ForgetPurged(now);
  const bool sparse = Dirty() < dirty_granules_ / 2;
  size_t surplus = arena_->Unwanted(retention_, Dirty(), sparse, now);
  if (surplus != 0 && std::exchange(large_taken_, false)) {
    surplus -= std::min(surplus, large_retention_.Bound(0, SIZE_MAX, now));
  }
  if (surplus != 0) PurgeLocked(Dirty() - surplus);
}

// Sparse memory takes less time to return, as there is less of it, and while it
// is more than can be wanted each slab returns its own: where it stayed longer,
// the workload "threads" took 1.64 times as long and 1.08 times the memory.
size_t Arena::Unwanted(Retention& retention, size_t free, bool sparse,
                       int64_t now) {
  // What it costs is found out when there is something that could go.
  const bool is_known =
      options_.purge != kPurgeByCost || purge_cost() != PurgeCost::kNotKnown;
  const bool later = !sparse && is_known && !purges_at_once();
  const size_t surplus = retention.Surplus(
      free, decay_period() * (later ? kLaterPeriods : 1), now);
  if (surplus != 0 && !sparse && !is_known && !purges_at_once()) return 0;
  return surplus;
}

// Where threads free to other parts, the bound may fall below what is left
// here.
size_t ArenaPart::Decay(int64_t now) {
  Lock lock(*this);
  const uint32_t before = dirty_granules_;
  if (arena_->parts_in_use() > 1) {
    PurgeBeyondBound(now);
  } else {
    DecayLocked(now);
    ShowFigures();
  }
  return size_t{before - dirty_granules_} * kGranuleSize;
}

// Where there are huge pages, those first that are free as a whole: to purge a
// part of one splits it, and the system gets the part back only when it is
// short of memory. What nobody has used of them is wanted next, and goes last.
size_t ArenaPart::PurgeLocked(Kept keep) {
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
void ArenaPart::PurgeRuns(Kept keep, Clean clean) {
  const auto word_of = [this, clean](uint32_t index) {
    const GranuleBits& of = bits_[index];
    return clean == Clean::kToo ? of.dirty : of.dirty & ~of.clean;
  };
  uint32_t end = dirty_end_;
  while (Beyond(keep) != 0 && end > begin_) {
    const uint64_t word = word_of((end - 1) / 64)
                          << (63 - (end - 1) % 64);  // bit end-1 on top
    if (word == 0) {
      end = (end - 1) / 64 * 64;
      continue;
    }
    end -= static_cast<uint32_t>(std::countl_zero(word));
    // [start, end) is dirty, and no longer than what is to go.
    uint32_t start = end;
    while (start > begin_ && end - start < Beyond(keep) &&
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
bool ArenaPart::PurgeRun(uint32_t start, uint32_t end) {
  if (!os::Purge(maps().AddressOf(start), (end - start) * kGranuleSize)) {
    return false;
  }
  const int64_t parity = purge_period_ % 2;
  ForEachBits(bits_, start, end - start,
              [this, parity](GranuleBits& of, uint64_t mask) {
                mu_.AssertHeld();
                mask &= of.dirty;
                if (huge_pages_) mask &= ~of.clean;
                of.purged[parity] |= mask;
              });
  any_purged_[parity] = true;
  const uint32_t before = dirty_granules_;
  TakeDirty(start, end - start, nullptr);
  purged_granules_ += before - dirty_granules_;
  return true;
}

size_t ArenaPart::Purge(size_t* keep) {
  Lock lock(*this);
  const size_t purged =
      PurgeLocked({*keep >> kGranuleShift, /*counts_whole=*/true});
  *keep -= std::min(*keep, size_t{dirty_granules_} * kGranuleSize);
  ShowFigures();
  return purged;
}

}  // namespace hakmem
