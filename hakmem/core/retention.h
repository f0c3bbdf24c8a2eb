// How much free memory may stay with the process.

#ifndef HAKMEM_CORE_RETENTION_H_
#define HAKMEM_CORE_RETENTION_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace hakmem {

// The bound on free memory of one kind: a share of what is live and a constant,
// or as much as would have been enough where too much was returned. A program
// that frees and allocates the same amount over and over is not to pay for
// fresh pages each time. A program that has come to rest takes nothing back,
// and its bound is the plain one within seconds; one that goes on and leaves
// some of it lying loses that sooner.
//
// Thread safety: none of its own; the owner's lock guards it. Sizes are in
// whatever unit the owner counts, times in milliseconds since some moment.
class Retention {
 public:
  constexpr Retention() = default;

  // `amount` of what was purged is wanted back, while `free` is there that was
  // not purged. What was kept at the last purge and what has been taken back
  // since then, less what is left, is what should have been kept. At most
  // `most` is remembered.
  void Regret(size_t amount, size_t free, size_t most, int64_t now) {
    if (amount == 0) return;
    Forget(now);
    taken_back_ += amount;
    const size_t wanted = kept_ + taken_back_;
    const size_t missed = wanted - std::min(wanted, free);
    // A sixteenth more, since no two times are quite alike.
    regretted_ = std::max(regretted_, std::min(missed + missed / 16, most));
  }

  // Something was purged, and `free` is left.
  void Purged(size_t free) {
    kept_ = free;
    taken_back_ = 0;
    high_water_ = free;
  }

  // What may stay, where `plain` is the share of what is live and the constant.
  size_t Bound(size_t plain, int64_t now) {
    if (regretted_ != 0) Forget(now);
    return std::max(plain, regretted_);
  }

  // Says that `amount` of what was free is no more, and `free` is left.
  void Taken(size_t amount, size_t free) {
    high_water_ = std::max(high_water_, free + amount);
    low_by_work_ = std::min(low_by_work_, free);
    low_by_time_ = std::min(low_by_time_, free);
  }

  // What of `free` was of no use to anybody and should go. This is the working
  // set as Bonwick & Adams measure it for their depot, in windows of two kinds.
  // Where the program has done `span` of work since the last window of that
  // kind, `work` being the sum to date, what was there all the while should go,
  // and what was regretted and not used meanwhile counts half from now on.
  // Where `period` milliseconds have passed since the last one of the other
  // kind, what was there all the while should go beyond what is regretted: a
  // program that only waited may be about to go on as before.
  size_t Surplus(size_t free, size_t work, size_t span, int64_t period,
                 int64_t now) {
    size_t surplus = 0;
    if (work - work_ > span) {
      work_ = work;
      surplus = std::min(free, std::exchange(low_by_work_, free));
      const size_t used = std::exchange(high_water_, free) - surplus;
      regretted_ = std::min(regretted_, std::max(regretted_ / 2, used));
    }
    if (now - time_ >= period) {
      time_ = now;
      Forget(now);
      const size_t unused = std::min(free, std::exchange(low_by_time_, free));
      surplus = std::max(surplus,
                         std::min(unused, free - std::min(free, regretted_)));
    }
    return surplus;
  }

 private:
  // It halves with every second.
  void Forget(int64_t now) {
    const int64_t second = now / 1000;
    const int64_t passed = second - second_;
    regretted_ = passed > 63 ? 0 : regretted_ >> passed;
    second_ = second;
  }

  size_t regretted_ = 0;
  size_t kept_ = 0;        // at the last purge
  size_t taken_back_ = 0;  // since then
  int64_t second_ = 0;
  // In the windows of work and of time, and when those began.
  size_t low_by_work_ = 0;
  size_t high_water_ = 0;
  size_t low_by_time_ = 0;
  size_t work_ = 0;
  int64_t time_ = 0;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_RETENTION_H_
