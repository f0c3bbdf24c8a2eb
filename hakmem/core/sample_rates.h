// How far apart samples are where their distance adapts to how many there are.

#ifndef HAKMEM_CORE_SAMPLE_RATES_H_
#define HAKMEM_CORE_SAMPLE_RATES_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "hakmem/core/rate_limiter.h"
#include "hakmem/core/size_class.h"

namespace hakmem {

// To take a sample costs eight times what it costs to find out that one is due.
// So there are two steps.
//
// The distance from one that is due to the next has a rate for each class to 32
// KiB, one for all to 1 MiB together and one for what is larger: how often it
// has doubled. It doubles while more than 2000 a second of it are due, or 500
// where more than 32,000 of all are.
//
// Of those that are due some are taken, so that those of one caller and class
// have a distance of their own, where that has doubled more often. What a
// program allocates and frees over and over is what it has most samples of;
// what it keeps is what one wants to know, and there is never more of that than
// there is memory. So a sample counts once its block is freed: the distance
// doubles while more than some 250 a second of the caller's are, or 60 where
// more than 2000 of all are. A program that allocates and frees very much at
// one place so has as many samples as ever of what it keeps from others.
//
// Both go back where there is less than an eighth of that. The first ones are
// what a program allocates at its start, and often keeps: a class's does not
// change before 2048 of all were due, and 256 of its own, or 128 where there
// are many; a caller's not before 256 of all were freed, and 64 of its own,
// or 16.
//
// Thread safety: all of it is atomic, and any thread may call any function.
class SampleRates {
 public:
  // `size_class` is kNoClass for the large sizes.
  static constexpr uint32_t RateOf(SizeClass size_class) {
    return size_class <= kLastL2Class ? size_class : kLastL2Class + 1;
  }

  // `clock` returns milliseconds.
  explicit constexpr SampleRates(int64_t (*clock)()) : clock_(clock) {}

  uint8_t doublings(uint32_t rate) const { return due_[rate].halvings(); }

  // Counts a sample of a rate that is due, which stands for so many blocks to
  // 32 KiB, and adapts the distance.
  void CountDue(uint32_t rate, uint64_t blocks) {
    const uint32_t now = Now();
    due_limiter_.Count(&due_[rate], now);
    if (blocks != 0) CountBlocks(blocks, now);
  }

  // How often the distance of those of `size_class` that the call which returns
  // to `caller` allocates has doubled.
  int DoublingsOfCaller(uintptr_t caller, SizeClass size_class) {
    RateLimiter::Rate& rate = freed_[KeyOf(caller, size_class)];
    if (rate.halvings() != 0) freed_limiter_.Relax(&rate, Now());
    return rate.halvings();
  }

  // Counts a sample of those whose block is freed, and adapts that.
  void CountFreed(uintptr_t caller, SizeClass size_class) {
    freed_limiter_.Count(&freed_[KeyOf(caller, size_class)], Now());
  }

  // Whether all threads together allocate so many blocks to 32 KiB that to
  // count each of them is felt. Not before the first 8 milliseconds are over.
  bool is_busy() const { return is_busy_.load(std::memory_order_relaxed); }

 private:
  // Callers and sizes that have the same share a distance. A sample's class is
  // its twin's: a block of class 1 that becomes one is freed as one of class 2.
  static constexpr int kKeyBits = 10;
  static constexpr uint32_t KeyOf(uintptr_t caller, SizeClass size_class) {
    const SizeClass sampled =
        size_class == kNoClass ? kNoClass : PlainOf(TwinOf(size_class));
    const uint64_t both = (uint64_t{caller} << 8) + sampled;
    return static_cast<uint32_t>((both * 0x9E3779B97F4A7C15u) >>
                                 (64 - kKeyBits));
  }

  // A sample of some frames, and its block's free, are some 3400 instructions.
  // With 1000 a second of each size larson, which allocates of 21, paid 3 % for
  // them. With the first 512 of all, and 32 of each, it took 1300 in its first
  // tenth of a second where it takes 850.
  static constexpr RateLimiter::Limits kFreedLimits = {.of_one = 16,
                                                       .of_all = 128,
                                                       .enough = 64,
                                                       .enough_of_many = 16,
                                                       .enough_of_all = 256};
  // One that is due and not taken is some 400, of which larson has 5000 in that
  // tenth. With the double of all of this, and the first 16,384, it had 19,000,
  // which is half a percent of what it executes. With half of it, a program
  // that kept blocks of the sizes of which it freed 40 times as many at once
  // had them estimated with standard deviations of 0.11 to 0.23 in place of
  // 0.11 (four or five runs each).
  static constexpr RateLimiter::Limits kDueLimits = {.of_one = 128,
                                                     .of_all = 2048,
                                                     .enough = 256,
                                                     .enough_of_many = 128,
                                                     .enough_of_all = 2048};

  void CountBlocks(uint64_t blocks, uint32_t now);

  uint32_t Now() const { return static_cast<uint32_t>(clock_()); }

  int64_t (*const clock_)();
  RateLimiter due_limiter_{kDueLimits};
  std::array<RateLimiter::Rate, kLastL2Class + 2> due_;
  RateLimiter freed_limiter_{kFreedLimits};
  std::array<RateLimiter::Rate, 1 << kKeyBits> freed_;
  // The blocks since some time, and whether before that there were many.
  std::atomic<uint64_t> blocks_{0};
  std::atomic<uint32_t> blocks_since_{0};
  std::atomic<bool> is_busy_{false};
};

// The process's.
extern constinit SampleRates sample_rates;

}  // namespace hakmem

#endif  // HAKMEM_CORE_SAMPLE_RATES_H_
