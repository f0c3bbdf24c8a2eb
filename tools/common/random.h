// A small random number generator for programs that measure allocators: a few
// instructions a number, no state outside the object, the same sequence from
// the same seed on every machine.

#ifndef TOOLS_COMMON_RANDOM_H_
#define TOOLS_COMMON_RANDOM_H_

#include <cstdint>

namespace hakmem::tools {

// Marsaglia's xorshift64 with a multiplied output ("xorshift64*", Vigna, "An
// experimental exploration of Marsaglia's xorshift generators, scrambled",
// 2016). Not thread-safe: each thread has its own.
class Random {
 public:
  // Two seeds that differ in one bit give unrelated sequences: the seed goes
  // through splitmix64 first. `stream` tells threads of one run apart.
  explicit Random(uint64_t seed, uint64_t stream = 0)
      : state_(Mix(seed + 0x9e3779b97f4a7c15u * (stream + 1))) {
    if (state_ == 0) state_ = 1;
  }

  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }

  // A number in [0, bound), for bounds up to 2^32. A multiplication in place of
  // a division, since a division costs as much as an allocator's fast path.
  uint32_t Below(uint64_t bound) { return Scale(Next() >> 32, bound); }

  // A number in [low, high].
  uint64_t Between(uint64_t low, uint64_t high) {
    return low + Below(high - low + 1);
  }

  // Maps 32 random bits to [0, bound).
  static uint32_t Scale(uint64_t bits, uint64_t bound) {
    return static_cast<uint32_t>((bits * bound) >> 32);
  }

  // The finalizer of splitmix64: a cheap hash of 64 bits to 64 bits.
  static uint64_t Mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }

 private:
  uint64_t state_;
};

}  // namespace hakmem::tools

#endif  // TOOLS_COMMON_RANDOM_H_
