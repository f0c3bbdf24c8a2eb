#include "hakmem/core/sample_rates.h"

#include <algorithm>
#include <bit>

#include "hakmem/core/os.h"

namespace hakmem {

constinit SampleRates sample_rates(&os::CoarseMilliseconds);

namespace {

// A sample of five frames is some 5500 instructions, and its block's free. With
// 1000 a second of each size larson, which allocates of 21, paid 3 % for them.
constexpr uint32_t kWindow = 16;
constexpr uint32_t kShortest = 64;  // milliseconds
constexpr uint32_t kShortestOfMany = 256;
constexpr uint32_t kLongestByShortest = 8;

constexpr uint32_t kWindowOfAll = 128;
constexpr uint32_t kManyInMilliseconds = 64;

// 128 samples are an error of a tenth in what a program allocates of a size and
// keeps, 32 of a sixth. With 128 of each size, however many there are of all,
// larson took 2800 in its first tenth of a second where it takes 1600, and
// "pairs --live=1000" 3300 in its first third where it takes 2100.
constexpr uint32_t kEnough = 128;
constexpr uint32_t kEnoughOfMany = 32;
constexpr uint32_t kEnoughOfAll = 512;

constexpr int kMostDoublings = 16;

// At a time. A window may be shorter than the clock can tell.
constexpr int kMostSteps = 3;
constexpr uint32_t kClockStep = 4;

// Blocks a millisecond. To count one takes half a nanosecond or so: all of 5000
// are a quarter of a percent.
constexpr uint64_t kBusy = 5000;
constexpr uint32_t kBusyWindow = 8;  // milliseconds

int Steps(uint32_t quotient) {
  return std::clamp(static_cast<int>(std::bit_width(quotient)) - 1, 1,
                    kMostSteps);
}

}  // namespace

// Whether all that are taken, with this one, are too many a second.
bool SampleRates::AreMany(uint32_t all, uint32_t now) {
  const uint32_t elapsed = now - all_since_.load(std::memory_order_relaxed);
  if (all % kWindowOfAll == 0) {
    all_since_.store(now, std::memory_order_relaxed);
    many_.store(elapsed < kManyInMilliseconds, std::memory_order_relaxed);
  }
  return elapsed < kManyInMilliseconds && many_.load(std::memory_order_relaxed);
}

void SampleRates::Count(uint32_t index) {
  Rate& rate = rates_[index];
  const auto now = static_cast<uint32_t>(clock_());
  const uint32_t all = all_.fetch_add(1, std::memory_order_relaxed) + 1;
  const uint32_t samples =
      rate.samples.fetch_add(1, std::memory_order_relaxed) + 1;
  const bool many = AreMany(all, now);
  const uint32_t shortest = many ? kShortestOfMany : kShortest;
  const uint32_t longest = kLongestByShortest * shortest;
  const uint32_t elapsed = now - rate.since.load(std::memory_order_relaxed);
  if (samples - rate.before.load(std::memory_order_relaxed) < kWindow &&
      elapsed <= longest) {
    return;
  }
  rate.before.store(samples, std::memory_order_relaxed);
  rate.since.store(now, std::memory_order_relaxed);
  int doublings = rate.doublings.load(std::memory_order_relaxed);
  if (elapsed < shortest) {
    if (all < kEnoughOfAll || samples < (many ? kEnoughOfMany : kEnough)) {
      return;
    }
    doublings += Steps(shortest / (elapsed + kClockStep));
  } else if (elapsed > longest) {
    doublings -= Steps(elapsed / longest);
  }
  rate.doublings.store(
      static_cast<uint8_t>(std::clamp(doublings, 0, kMostDoublings)),
      std::memory_order_relaxed);
}

// Threads that come here at once may count some of theirs for the time before
// or after.
void SampleRates::CountBlocks(uint64_t blocks) {
  blocks_.fetch_add(blocks, std::memory_order_relaxed);
  const auto now = static_cast<uint32_t>(clock_());
  uint32_t since = blocks_since_.load(std::memory_order_relaxed);
  const uint32_t elapsed = now - since;
  if (elapsed < kBusyWindow) return;
  if (!blocks_since_.compare_exchange_strong(since, now,
                                             std::memory_order_relaxed)) {
    return;
  }
  const uint64_t sum = blocks_.exchange(0, std::memory_order_relaxed);
  is_busy_.store(sum / elapsed >= (is_busy() ? kBusy / 2 : kBusy),
                 std::memory_order_relaxed);
}

}  // namespace hakmem
