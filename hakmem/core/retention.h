// How much free memory may stay with the process.

#ifndef HAKMEM_CORE_RETENTION_H_
#define HAKMEM_CORE_RETENTION_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hakmem {

// So many times as much as small blocks' memory was wanted back may stay, since
// what has come back by the time that a program's demand first falls tells that
// it goes up and down, and little of how far. Growing strings have 14,200 page
// faults with 4, 16,800 with 1; short-lived threads have 1 MiB more.
inline constexpr size_t kRegret = 4;

// The bound on free memory of one kind: a share of what is live, a constant,
// and what was lately returned too early. A program that frees and allocates
// the same amount over and over is not to pay for fresh pages each time: what
// it takes back from among the purged memory may stay the next time. A program
// that has come to rest takes nothing back, and its bound is the plain one
// within seconds.
//
// Owners may remember together: memory that one of them has purged is wanted
// back from another as soon as slabs change their class, and how much each
// should have kept nobody can say.
//
// Thread safety: every function may be called from any thread; none takes a
// lock. Of two changes that come at once one may be lost: they say what is
// worth keeping, and nothing depends on it. Sizes are in whatever unit the
// owner counts, times in milliseconds since some moment.
class Retention {
 public:
  constexpr Retention() = default;

  // Remembers together with all that have the same sum, which is in bytes;
  // `unit` of them count as 1 here.
  constexpr Retention(std::atomic<size_t>& together, size_t unit)
      : together_(&together), unit_(unit) {}

  // As if it had been made so, before its first use.
  void RememberWith(std::atomic<size_t>& together, size_t unit) {
    together_ = &together;
    unit_ = unit;
  }

  // `amount` of what was lately purged is wanted back. At most `most` is
  // remembered.
  void Regret(size_t amount, size_t most, int64_t now) {
    if (amount == 0) return;
    Forget(now);
    Remember(std::min(Get(regretted_) + amount, most));
  }

  // What may stay, where `plain` is the share of what is live and the constant,
  // and demand has lately been `swing` away from where it is: beyond that, and
  // a little more, nothing is wanted back that was not free then as well.
  size_t Bound(size_t plain, size_t swing, int64_t now) {
    if (Get(regretted_) != 0) Forget(now);
    const size_t remembered =
        together_ == nullptr ? Get(regretted_) : Get(*together_) / unit_;
    if (remembered <= swing) return plain + remembered;
    return plain + std::min(remembered, swing + swing / kSwingShare);
  }

  // Says how much is free, whenever some of it is taken.
  void Taken(size_t free) {
    if (free < Get(low_water_)) Set(low_water_, free);
    if (free < Get(needed_low_water_)) Set(needed_low_water_, free);
  }

  // What was there all through a quarter of `period` need not have stayed: as
  // much of what is remembered is forgotten. `free` is how much there is. After
  // a shift of sizes more is wanted back than is needed from then on; without
  // this the workload "server" had 1.29 times of what is live in its third
  // phase where it had 1.26 (on a machine that others used as well). Programs
  // that come back to the same peak do so sooner: they have no more page
  // faults.
  void Reconsider(size_t free, int64_t period, int64_t now) {
    const size_t regretted = Get(regretted_);
    if (regretted == 0 || !Passes(reconsidered_, period / 4, now)) return;
    const size_t unused = std::min(
        free, needed_low_water_.exchange(free, std::memory_order_relaxed));
    Remember(regretted - std::min(regretted, unused));
  }

  // What was there all through the last `period` milliseconds or more, and so
  // was of no use to anybody; 0 when that has been asked since, or never. The
  // working set as Bonwick & Adams measure it for their depot. `free` is how
  // much there is.
  size_t Surplus(size_t free, int64_t period, int64_t now) {
    if (!Passes(window_, period, now)) return 0;
    return std::min(free, low_water_.exchange(free, std::memory_order_relaxed));
  }

 private:
  static size_t Get(const std::atomic<size_t>& amount) {
    return amount.load(std::memory_order_relaxed);
  }
  static void Set(std::atomic<size_t>& amount, size_t value) {
    amount.store(value, std::memory_order_relaxed);
  }

  // Whether `period` has passed since this was last true for `last`: for one of
  // those who ask.
  static bool Passes(std::atomic<int64_t>& last, int64_t period, int64_t now) {
    int64_t then = last.load(std::memory_order_relaxed);
    return now - then >= period &&
           last.compare_exchange_strong(then, now, std::memory_order_relaxed);
  }

  // It halves with every second.
  void Forget(int64_t now) {
    const int64_t second = now / 1000;
    int64_t last = second_.load(std::memory_order_relaxed);
    const int64_t passed = second - last;
    if (passed <= 0 || !second_.compare_exchange_strong(
                           last, second, std::memory_order_relaxed)) {
      return;
    }
    Remember(passed > 63 ? 0 : Get(regretted_) >> passed);
  }

  void Remember(size_t amount) {
    const size_t before =
        regretted_.exchange(amount, std::memory_order_relaxed);
    if (together_ == nullptr) return;
    // Modulo 2^64.
    together_->fetch_add((amount - before) * unit_, std::memory_order_relaxed);
  }

  // How much more. What was free at the peak lies in pieces between what was
  // not, and which of them are wanted the next time nobody knows: without this
  // the workload "peaks" has 78,000 page faults where it has 68,000. An eighth
  // brings no more.
  static constexpr size_t kSwingShare = 32;

  std::atomic<size_t>* together_ = nullptr;
  size_t unit_ = 1;

  std::atomic<size_t> regretted_{0};
  std::atomic<int64_t> second_{0};
  std::atomic<size_t> needed_low_water_{0};
  std::atomic<int64_t> reconsidered_{0};
  std::atomic<size_t> low_water_{0};
  std::atomic<int64_t> window_{0};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_RETENTION_H_
