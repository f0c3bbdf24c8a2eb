// Which allocations of a thread are samples.

#ifndef HAKMEM_CORE_SAMPLER_H_
#define HAKMEM_CORE_SAMPLER_H_

#include <array>
#include <cstdint>

#include "hakmem/core/count_windows.h"
#include "hakmem/core/sample_rates.h"
#include "hakmem/core/sampling.h"
#include "hakmem/core/size_class.h"

namespace hakmem {

// Samples lie in the stream of allocated bytes as a Poisson process has it: the
// distance from one to the next is exponential with the interval as its mean,
// and a block that one lies in is sampled. So every block of `bytes` bytes is
// with probability 1 - exp(-bytes / interval), whatever was before it, and
// dividing by that gives what there was (SampleProbability() in profile.h).
//
// The process forgets where it was. So the stream can be divided, and each part
// have a countdown of its own: each class to 32 KiB, in blocks, which takes a
// thread one subtraction; and the classes above, and the large sizes, in bytes.
//
// A part may also have an interval of its own, which follows how many samples
// of its kind all threads take (sample_rates.h): so a program which allocates
// much of a size, and frees it at once, pays for few of them. And a thread that
// allocates very many blocks counts those to 32 KiB for a part of its time only
// (count_windows.h). Every sample comes with how it was taken.
//
// A part's first distance is drawn when it is first wanted: most threads
// allocate of few sizes.
//
// Thread safety: belongs to its thread.
class Sampler {
 public:
  constexpr Sampler() = default;

  // Begins, with samples `interval` bytes apart on average, or with `rates`
  // that much and more. The same seed gives the same samples without them.
  // Where it pays, in a window that ends at once, unless `may_divide` is false.
  void Start(uint64_t interval, SampleRates* rates, uint64_t seed,
             bool may_divide = false);

  // The classes whose blocks are counted: to this one, from 1 on.
  static constexpr SizeClass kLastCounted = kLastL2Class;

  // Counts a block of a class, if it counts now; false when it is a sample,
  // which is due until TakeBlock() takes it.
  bool PassBlock(SizeClass size_class) {
    if (!windows_.counts() || --until_[IndexOf(size_class)] >= 0) return true;
    return !IsDue(size_class);
  }
  bool IsDue(SizeClass size_class) {
    return until_[IndexOf(size_class)] < 0 && !PassesFirst(size_class, 1);
  }

  // PassBlock() for the class to kMaxTinySize whose door `bin` is, while blocks
  // count; false also where it is no door, and where IsDue() has yet to say
  // whether the block is a sample.
  bool PassByDoor(size_t bin) { return --until_[bin] >= 0; }

  // The same for a class of L2.
  bool PassL2Block(SizeClass size_class) { return --until_[size_class] >= 0; }

  // Passes() for a class of L25, but that it may be false where Take() would
  // say that the block is no sample.
  bool PassL25Block(SizeClass size_class) {
    int64_t& until = until_[kL25Part];
    const auto bytes = static_cast<int64_t>(ClassSize(size_class));
    if (bytes > until) [[unlikely]]
      return false;
    until -= bytes;
    return true;
  }

  // Whether a sample that is due becomes one, where a call that returns to
  // `caller` is to allocate it of `size_class`: then how it is taken, else 0.
  // `due` is what TakeBlock() or Take() have said of it.
  uint64_t Thin(uintptr_t caller, SizeClass size_class, uint64_t due);

  // Returns how the sample that is due is taken: SampledAt().
  uint64_t TakeBlock(SizeClass size_class) { return TakeSample(size_class); }

  // Whether the blocks of counted classes count in windows, and whether in this
  // one. While they do not, there is nothing to be counted by doors.
  bool divides() const { return windows_.divides(); }
  bool counts() const { return windows_.counts(); }

  // Whether there are so many of them that it pays to divide the time.
  bool WantsWindows() const {
    return rates_ != nullptr && rates_->is_busy() && !divides();
  }

  // Begins the next window, or the first one; leaves them where that no longer
  // pays, or `may_divide` is false.
  void NextWindow(bool may_divide);

  // Whether a block of `bytes` bytes of another class, or of none, is a sample:
  // then how it is taken, else 0.
  uint64_t Take(SizeClass size_class, uint64_t bytes) {
    return Passes(size_class, bytes) ? 0 : TakeSample(PartOf(size_class));
  }

  // The same in two steps: true, and the block counted, when it is none; else
  // nothing is changed, and Take() says that it is one.
  bool Passes(SizeClass size_class, uint64_t bytes) {
    const uint32_t part = PartOf(size_class);
    int64_t& until = until_[IndexOf(part)];
    if (static_cast<int64_t>(bytes) > until) [[unlikely]]
      return PassesFirst(part, bytes);
    until -= static_cast<int64_t>(bytes);
    return true;
  }

 private:
  // The counted classes by their numbers, and what is left.
  static constexpr uint32_t kL25Part = kLastCounted + 1;
  static constexpr uint32_t kLargePart = kL25Part + 1;
  static constexpr uint32_t kParts = kLargePart + 1;

  // Where a part's countdown is: that of a class to kMaxTinySize by its door,
  // which is what malloc() has in a register. What the size table has beside
  // doors, the numbers of these classes and 0, is below all others: there is
  // never anything to count, so that PassByDoor() needs no look at which it is.
  static constexpr uint32_t IndexOf(uint32_t part) {
    return part <= kLastTinyClass ? part + kDoorDistance : part;
  }
  static constexpr uint32_t kCountdowns = kLastTinyClass + kDoorDistance + 1;
  static_assert(kParts <= 1 + kDoorDistance);
  static constexpr uint64_t kCountedParts =
      (uint64_t{1} << (kLastCounted + 1)) - 1;
  static_assert(kParts <= 64);

  static constexpr uint32_t RateOf(uint32_t part) {
    return SampleRates::RateOf(part == kLargePart ? kNoClass : part);
  }
  static constexpr uint32_t PartOf(SizeClass size_class) {
    return size_class == kNoClass ? kLargePart : kL25Part;
  }

  // What of a part's blocks is counted.
  int ShareShift(uint32_t part) const {
    return part <= kLastCounted ? windows_.share_shift() : 0;
  }

  // In bytes: what a part's countdown counts.
  static constexpr uint64_t UnitOf(uint32_t part) {
    return part <= kLastCounted ? ClassSize(part) : 1;
  }

  // Where a countdown has run out: false if it was drawn. Else draws it, and
  // counts so many units; false again where they are a sample.
  bool PassesFirst(uint32_t part, uint64_t units);
  // Parts, as bits, are as if they had never been wanted.
  void Forget(uint64_t parts);
  uint64_t TakeSample(uint32_t part);
  void Begin(uint32_t part);
  uint64_t Draw(uint64_t interval);
  uint64_t Random();

  uint64_t random_ = 0;
  uint64_t interval_ = 0;
  SampleRates* rates_ = nullptr;  // none: it does not adapt
  uint64_t begun_ = 0;  // the parts whose countdown was drawn, as bits
  // Blocks of counted classes, bytes of the others. Where there is none it goes
  // down from 0 with every call, for as long as 64 bits are.
  std::array<int64_t, kCountdowns> until_{};
  std::array<uint8_t, kParts> doublings_{};  // of the interval, since then
  CountWindows windows_;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_SAMPLER_H_
