// The part of its time in which a thread counts what it allocates.

#ifndef HAKMEM_CORE_COUNT_WINDOWS_H_
#define HAKMEM_CORE_COUNT_WINDOWS_H_

#include <cstdint>

namespace hakmem {

// To count every block takes a thread that does little but allocate up to
// a tenth longer. So in a busy program (SampleRates::is_busy()) each thread
// counts in one window of eight, drawn anew for each eight, and takes its
// samples there eight times as close: as many as before of each size, and each
// block has the same chance of being one.
//
// That is unbiased as long as when a window ends does not depend on whether it
// was counted in. Who owns this sees to it: a window ends when the thread's
// bins may have been filled with so many bytes, which is where memory in use
// grows, and after so many milliseconds, which is what there is in a program
// that never misses.
//
// Thread safety: belongs to its thread.
class CountWindows {
 public:
  constexpr CountWindows() = default;

  // One window of 2^kShareShift is counted in.
  static constexpr int kShareShift = 3;

  // Whether the time is divided into windows; while it is not, all counts.
  bool divides() const { return divides_; }
  // Whether blocks count now.
  bool counts() const { return counts_; }
  // How many windows there are for one that is counted in, as a power of two.
  int share_shift() const { return divides_ ? kShareShift : 0; }

  // Begins the next window; or counts all, where `divide` is false when eight
  // are through. `random` is any number.
  void Next(uint64_t random, bool divide) {
    if (!divides_) position_ = kWindows - 1;
    position_ = (position_ + 1) % kWindows;
    if (position_ == 0) {
      chosen_ = static_cast<uint8_t>(random % kWindows);
      divides_ = divide;
    }
    counts_ = !divides_ || position_ == chosen_;
  }

  // Counts all.
  void Leave() {
    divides_ = false;
    counts_ = true;
  }

 private:
  static constexpr uint8_t kWindows = 1 << kShareShift;

  bool divides_ = false;
  bool counts_ = true;
  uint8_t position_ = 0;
  uint8_t chosen_ = 0;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_COUNT_WINDOWS_H_
