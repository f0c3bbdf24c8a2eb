// How much memory the program has, and how that goes up and down.

#ifndef HAKMEM_CORE_DEMAND_H_
#define HAKMEM_CORE_DEMAND_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hakmem {

// Between which levels an amount was lately.
//
// Thread safety: every function may be called from any thread; none takes a
// lock. Of the levels that two threads note at once one may be lost: they say
// what is worth keeping, and nothing depends on it. Times are in milliseconds
// since some moment.
class RecentLevels {
 public:
  constexpr RecentLevels() = default;

  // Takes note of the amount that there is now: often enough for the levels to
  // be right where something depends on them.
  void Note(size_t amount, int64_t period, int64_t now) {
    Note(amount, now / period);
  }

  // How far `amount`, which there is now, is from where it was in this period
  // and the one before: from the peak or from the lowest level, whichever is
  // further; or 0 where it was steady that long. Takes note as well.
  size_t Swing(size_t amount, int64_t period, int64_t now) {
    Note(amount, now / period);
    const Range lately = Lately();
    return std::max(lately.most - std::min(lately.most, amount),
                    amount - std::min(lately.least, amount));
  }

  // Likewise how far it is below the peak, or one part in `divisor` of that.
  size_t Below(size_t amount, size_t divisor, int64_t period, int64_t now) {
    Note(amount, now / period);
    const size_t most = Lately().most / divisor;
    return most - std::min(most, amount);
  }

 private:
  // An amount is steady while it goes up and down by less than this part of it:
  // what threads cache does so by itself. Without this the workload "server",
  // whose live bytes are always the same, kept 2 to 4 % of them more.
  static constexpr size_t kSteadyShare = 16;

  struct Levels {
    std::atomic<size_t> most{0};
    std::atomic<size_t> least{SIZE_MAX};
  };

  struct Range {
    size_t most;
    size_t least;
  };

  // The levels of this period and the one before; where they are steady, no
  // amount is away from them.
  Range Lately() const {
    const size_t most = std::max(Get(now_.most), Get(before_.most));
    const size_t least = std::min(Get(now_.least), Get(before_.least));
    if (most - least < most / kSteadyShare) return {0, SIZE_MAX};
    return {most, least};
  }

  static size_t Get(const std::atomic<size_t>& level) {
    return level.load(std::memory_order_relaxed);
  }
  static void Set(Levels& levels, size_t most, size_t least) {
    levels.most.store(most, std::memory_order_relaxed);
    levels.least.store(least, std::memory_order_relaxed);
  }

  void Note(size_t amount, int64_t number) {
    const int64_t passed = number - period_.load(std::memory_order_relaxed);
    if (passed != 0) {
      period_.store(number, std::memory_order_relaxed);
      const bool next = passed == 1;
      Set(before_, next ? Get(now_.most) : 0,
          next ? Get(now_.least) : SIZE_MAX);
      Set(now_, amount, amount);
      return;
    }
    if (amount > Get(now_.most)) {
      now_.most.store(amount, std::memory_order_relaxed);
    }
    if (amount < Get(now_.least)) {
      now_.least.store(amount, std::memory_order_relaxed);
    }
  }

  Levels now_;
  Levels before_;
  std::atomic<int64_t> period_{0};
};

// The sum of the blocks that the parts of the heap have handed out, those in
// caches included, and between which levels it was lately. A program whose
// demand is steady gets by with the memory that it has, and one that goes up
// and down is soon to want back what it has just freed; so is one that grows.
//
// Thread safety: every function may be called from any thread; none takes a
// lock. Sizes are in bytes, times in milliseconds since some moment.
class Demand {
 public:
  // The pools by their index, and what is in none.
  static constexpr uint32_t kLarge = 3;

  constexpr Demand() = default;

  void Add(uint32_t part, int64_t bytes) {
    parts_[part].bytes.fetch_add(static_cast<size_t>(bytes),
                                 std::memory_order_relaxed);
  }

  size_t bytes() const {
    size_t sum = 0;
    for (const Part& part : parts_) {
      sum += part.bytes.load(std::memory_order_relaxed);
    }
    return sum;
  }

  // As RecentLevels says, of the sum.
  void Note(int64_t period, int64_t now) { levels_.Note(bytes(), period, now); }
  size_t Swing(int64_t period, int64_t now) {
    return levels_.Swing(bytes(), period, now);
  }

 private:
  // Each on a cache line of its own.
  struct alignas(64) Part {
    std::atomic<size_t> bytes{0};
  };
  std::array<Part, kLarge + 1> parts_{};
  RecentLevels levels_;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_DEMAND_H_
