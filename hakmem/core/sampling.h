// How a sample was taken, as one number that its site keeps.

#ifndef HAKMEM_CORE_SAMPLING_H_
#define HAKMEM_CORE_SAMPLING_H_

#include <cstdint>

namespace hakmem {

inline constexpr int kSampledShareShift = 56;

// `interval` bytes apart on average, fewer than 2^56, in one part of
// 2^`share_shift` of what is allocated: so much of it was counted, or of the
// samples taken.
constexpr uint64_t SampledAt(uint64_t interval, int share_shift) {
  return interval | static_cast<uint64_t>(share_shift) << kSampledShareShift;
}

constexpr uint64_t IntervalOf(uint64_t sampled_at) {
  return sampled_at & ((uint64_t{1} << kSampledShareShift) - 1);
}
constexpr int ShareShiftOf(uint64_t sampled_at) {
  return static_cast<int>(sampled_at >> kSampledShareShift);
}

}  // namespace hakmem

#endif  // HAKMEM_CORE_SAMPLING_H_
