#include "hakmem/core/sampler.h"

#include <bit>

namespace hakmem {
namespace {

// The natural logarithm of a number above 0 that is not denormal, to within
// 1e-7. The C library's is in a library of its own.
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
  for (const double term : {1. / 7, 1. / 5, 1. / 3, 1.}) {
    sum = sum * square + term;
  }
  return power * kLogarithmOf2 + 2 * z * sum;
}

}  // namespace

void Sampler::Start(uint64_t interval, SampleRates* rates, uint64_t seed,
                    bool may_divide) {
  // Neighbouring seeds are to begin far apart (splitmix64: Steele, Lea & Flood,
  // OOPSLA 2014).
  uint64_t mix = seed + 0x9E3779B97F4A7C15u;
  mix = (mix ^ mix >> 30) * 0xBF58476D1CE4E5B9u;
  mix = (mix ^ mix >> 27) * 0x94D049BB133111EBu;
  random_ = (mix ^ mix >> 31) | 1;
  interval_ = interval;
  rates_ = rates;
  windows_.Leave();
  if (may_divide && WantsWindows()) windows_.Next(Random() >> 32, true);
  Forget(~uint64_t{0});
}

void Sampler::Forget(uint64_t parts) {
  for (uint64_t left = begun_ & parts; left != 0; left &= left - 1) {
    until_[IndexOf(static_cast<uint32_t>(std::countr_zero(left)))] = 0;
  }
  begun_ &= ~parts;
}

bool Sampler::PassesFirst(uint32_t part, uint64_t units) {
  if ((begun_ >> part & 1) != 0) return false;
  Begin(part);
  int64_t& until = until_[IndexOf(part)];
  const auto counted = static_cast<int64_t>(units);
  // A countdown in blocks ends with the one that is a sample; one in bytes
  // leaves that to TakeSample().
  const bool passes = counted <= until;
  if (passes || part <= kLastCounted) until -= counted;
  return passes;
}

// Draws the next distance of a part.
void Sampler::Begin(uint32_t part) {
  begun_ |= uint64_t{1} << part;
  doublings_[part] =
      rates_ != nullptr ? rates_->doublings(RateOf(part)) : uint8_t{0};
  until_[IndexOf(part)] =
      static_cast<int64_t>(Draw(interval_ << doublings_[part]) /
                           UnitOf(part)) >>
      ShareShift(part);
}

uint64_t Sampler::TakeSample(uint32_t part) {
  const uint64_t interval = interval_ << doublings_[part];
  const int share_shift = ShareShift(part);
  if (rates_ != nullptr) {
    rates_->CountDue(RateOf(part),
                     part <= kLastCounted ? interval / UnitOf(part) : 0);
  }
  Begin(part);
  return SampledAt(interval >> share_shift, share_shift);
}

uint64_t Sampler::Thin(uintptr_t caller, SizeClass size_class, uint64_t due) {
  if (rates_ == nullptr) return due;
  const int shift = ShareShiftOf(due);
  const int doublings =
      std::bit_width((IntervalOf(due) << shift) / interval_) - 1;
  const int thinning =
      rates_->DoublingsOfCaller(caller, size_class) - doublings;
  if (thinning <= 0) return due;
  if (Random() >> (64 - thinning) != 0) return 0;
  return SampledAt(IntervalOf(due), shift + thinning);
}

// The distances know nothing of what was before. So where another share counts
// they are drawn anew.
void Sampler::NextWindow(bool may_divide) {
  const bool divided = divides();
  if (may_divide) {
    windows_.Next(Random() >> 32, rates_->is_busy());
  } else {
    windows_.Leave();
  }
  if (divides() != divided) Forget(kCountedParts);
}

// From xorshift64* (Vigna, ACM TOMS 2016).
uint64_t Sampler::Random() {
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return random_ * 0x2545F4914F6CDD1Du;
}

// By inversion.
uint64_t Sampler::Draw(uint64_t interval) {
  const uint64_t number = Random();
  // In (0, 1].
  const double uniform = (static_cast<double>(number >> 11) + 1) * 0x1p-53;
  return static_cast<uint64_t>(-Logarithm(uniform) *
                               static_cast<double>(interval));
}

}  // namespace hakmem
