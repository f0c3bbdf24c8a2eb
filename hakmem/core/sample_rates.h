// How far apart samples are where their distance adapts to how many there are.

#ifndef HAKMEM_CORE_SAMPLE_RATES_H_
#define HAKMEM_CORE_SAMPLE_RATES_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "hakmem/core/size_class.h"

namespace hakmem {

// A rate for each class to 32 KiB, one for all to 1 MiB together and one for
// what is larger, so that what a program keeps of one size is sampled well
// while it allocates and frees very much of others. A rate is how often the
// interval has doubled. It doubles while there are more than some 250 samples a
// second of it, or 60 where there are more than 2000 of all, and is halved
// again where there are less than half of that.
//
// The first samples are what a program allocates at its start, and often keeps:
// no rate changes before there were 512 of all, and none before it had 128
// itself, or 32 where there are more than 2000 a second of all.
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

  uint8_t doublings(uint32_t rate) const {
    return rates_[rate].doublings.load(std::memory_order_relaxed);
  }

  // Counts a sample of a rate, and adapts it.
  void Count(uint32_t rate);

  // Counts blocks to 32 KiB, as many as a sample of them stands for.
  void CountBlocks(uint64_t blocks);

  // Whether all threads together allocate so many of these that to count each
  // of them is felt. Not before the first 8 milliseconds are over.
  bool is_busy() const { return is_busy_.load(std::memory_order_relaxed); }

 private:
  struct Rate {
    std::atomic<uint32_t> samples{0};
    // Where the window begins that is looked at: the samples before it, and the
    // time.
    std::atomic<uint32_t> before{0};
    std::atomic<uint32_t> since{0};
    std::atomic<uint8_t> doublings{0};
  };

  bool AreMany(uint32_t all, uint32_t now);

  int64_t (*const clock_)();
  std::array<Rate, kLastL2Class + 2> rates_;
  std::atomic<uint32_t> all_{0};
  // When 128 of all began, and whether those before them were many a second.
  std::atomic<uint32_t> all_since_{0};
  std::atomic<bool> many_{false};
  // The blocks since some time, and whether before that there were many.
  std::atomic<uint64_t> blocks_{0};
  std::atomic<uint32_t> blocks_since_{0};
  std::atomic<bool> is_busy_{false};
};

// The process's.
extern constinit SampleRates sample_rates;

}  // namespace hakmem

#endif  // HAKMEM_CORE_SAMPLE_RATES_H_
