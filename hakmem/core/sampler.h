// Which allocations of a thread are samples.

#ifndef HAKMEM_CORE_SAMPLER_H_
#define HAKMEM_CORE_SAMPLER_H_

#include <array>
#include <cstdint>

#include "hakmem/core/size_class.h"

namespace hakmem {

// Samples lie in the stream of allocated bytes as a Poisson process has it: the
// distance from one to the next is exponential with the interval as its mean,
// and a block that one lies in is sampled. So every block of `bytes` bytes is
// with probability 1 - exp(-bytes / interval), whatever was before it, and
// dividing by that gives what there was (SampleProbability() in profile.h).
//
// The process forgets where it was. So each of the small classes can have a
// countdown of its own, in blocks, and all of them together are one process
// over all bytes: a bin may serve so many blocks without being asked.
//
// Thread safety: belongs to its thread.
class Sampler {
 public:
  constexpr Sampler() = default;

  // Begins, with samples `interval` bytes apart on average. The same seed gives
  // the same samples.
  void Start(uint64_t interval, uint64_t seed);

  bool started() const { return random_ != 0; }

  // Whether a block of `bytes` bytes is a sample. For all but the small
  // classes.
  bool Takes(uint64_t bytes) {
    if (bytes <= until_bytes_) {
      until_bytes_ -= bytes;
      return false;
    }
    until_bytes_ = Draw();
    return true;
  }

  // How many blocks of a class, at most kLastTinyClass, come before the next
  // sample: 0 when the next block is one.
  uint64_t BlocksUntil(SizeClass size_class) const {
    return until_blocks_[size_class];
  }
  // So many of them came, or the sample did.
  void Pass(SizeClass size_class, uint64_t blocks) {
    until_blocks_[size_class] -= blocks;
  }
  // They were not allocated after all.
  void TakeBack(SizeClass size_class, uint64_t blocks) {
    until_blocks_[size_class] += blocks;
  }
  void PassSample(SizeClass size_class) {
    until_blocks_[size_class] = Draw() / ClassSize(size_class);
  }

 private:
  // A distance in bytes.
  uint64_t Draw();

  uint64_t random_ = 0;  // never 0 once it has begun
  double interval_ = 0;
  uint64_t until_bytes_ = 0;
  std::array<uint64_t, kLastTinyClass + 1> until_blocks_{};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_SAMPLER_H_
