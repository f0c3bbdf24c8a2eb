#include "hakmem/core/sampler.h"

#include <array>
#include <atomic>
#include <bit>

#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// The interval doubles when this many samples took less than the first of these
// milliseconds, so at some 250 a second, and is halved again when they took
// more than the other. With 1000 a second of each size, larson, which allocates
// of all of them, paid 3 % for samples alone.
constexpr uint32_t kWindow = 16;
constexpr uint32_t kShortWindow = 64;
constexpr uint32_t kLongWindow = 512;

// It does not before a part has had so many samples: they are enough for an
// error of a tenth in what a program allocates at its start and keeps.
constexpr uint32_t kEnoughSamples = 128;

constexpr uint8_t kMostDoublings = 16;

struct Rate {
  std::atomic<uint8_t> doublings{0};
  std::atomic<uint32_t> samples{0};
  std::atomic<uint32_t> since{0};  // milliseconds, of the last window
};

// Of the large sizes, of each small class, of those of L2 and of those of L25.
constinit std::array<Rate, kLastTinyClass + 3> rates;

Rate& RateOf(uint32_t part) {
  if (part <= kLastTinyClass) return rates[part];
  return rates[part <= kLastL2Class ? kLastTinyClass + 1 : kLastTinyClass + 2];
}

void Adapt(Rate& rate) {
  const uint32_t samples =
      rate.samples.fetch_add(1, std::memory_order_relaxed) + 1;
  if (samples % kWindow != 0) return;
  const auto now = static_cast<uint32_t>(os::CoarseMilliseconds());
  const uint32_t elapsed =
      now - rate.since.exchange(now, std::memory_order_relaxed);
  const uint8_t doublings = rate.doublings.load(std::memory_order_relaxed);
  if (elapsed < kShortWindow) {
    if (samples > kEnoughSamples && doublings < kMostDoublings) {
      rate.doublings.store(doublings + 1, std::memory_order_relaxed);
    }
  } else if (elapsed > kLongWindow && doublings != 0) {
    rate.doublings.store(doublings - 1, std::memory_order_relaxed);
  }
}

// The natural logarithm of a number above 0 that is not denormal, to within
// 1e-8. The C library's is in a library of its own.
double Logarithm(double x) {
  constexpr double kLogarithmOf2 = 0.693147180559945309;
  const auto bits = std::bit_cast<uint64_t>(x);
  int power = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & ((uint64_t{1} << 52) - 1)) |
                                   std::bit_cast<uint64_t>(1.0));
  if (m > 1.41421356237309505) {
    m /= 2;
    ++power;
  }
  // log(m) = 2 artanh(z), and |z| < 0.172.
  const double z = (m - 1) / (m + 1);
  const double square = z * z;
  double sum = 0;
  for (int i = 11; i >= 1; i -= 2) sum = sum * square + 1.0 / i;
  return power * kLogarithmOf2 + 2 * z * sum;
}

}  // namespace

void Sampler::Start(uint64_t interval, bool adapts, uint64_t seed) {
  // Neighbouring seeds are to begin far apart (splitmix64: Steele, Lea & Flood,
  // OOPSLA 2014).
  uint64_t mix = seed + 0x9E3779B97F4A7C15u;
  mix = (mix ^ mix >> 30) * 0xBF58476D1CE4E5B9u;
  mix = (mix ^ mix >> 27) * 0x94D049BB133111EBu;
  random_ = (mix ^ mix >> 31) | 1;
  interval_ = interval;
  adapts_ = adapts;
  for (uint32_t part = 0; part < kParts; ++part) {
    const bool counted = part != kLargePart && part <= kLastCounted;
    Begin(part, counted ? ClassSize(part) : 1);
  }
}

// Draws the next distance of a part, in units of so many bytes.
void Sampler::Begin(uint32_t part, uint64_t unit) {
  if (adapts_) {
    doublings_[part] = RateOf(part).doublings.load(std::memory_order_relaxed);
  }
  until_[part] =
      static_cast<int64_t>(Draw(interval_ << doublings_[part]) / unit);
}

uint64_t Sampler::TakeSample(uint32_t part, uint64_t unit) {
  const uint64_t taken_at = interval_ << doublings_[part];
  if (adapts_) Adapt(RateOf(part));
  Begin(part, unit);
  return taken_at;
}

// By inversion, of a number from xorshift64* (Vigna, ACM TOMS 2016).
uint64_t Sampler::Draw(uint64_t interval) {
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  const uint64_t number = random_ * 0x2545F4914F6CDD1Du;
  // In (0, 1].
  const double uniform = (static_cast<double>(number >> 11) + 1) * 0x1p-53;
  return static_cast<uint64_t>(-Logarithm(uniform) *
                               static_cast<double>(interval));
}

}  // namespace hakmem
