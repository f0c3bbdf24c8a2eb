// Rates that halve while there is too much of something.

#ifndef HAKMEM_CORE_RATE_LIMITER_H_
#define HAKMEM_CORE_RATE_LIMITER_H_

#include <atomic>
#include <cstdint>

namespace hakmem {

// Limits how often a second something happens that has many sources, each at
// a rate of its own that can be halved: all together, and each of them. While
// there is too much of one its rate halves, and doubles again where there is
// less than an eighth of that.
//
// Times are in milliseconds, of a clock that may begin anywhere and wrap.
//
// Thread safety: all of it is atomic, and any thread may call any function.
class RateLimiter {
 public:
  class Rate {
   public:
    // How often it was halved.
    uint8_t halvings() const {
      return halvings_.load(std::memory_order_relaxed);
    }

   private:
    friend class RateLimiter;
    std::atomic<uint32_t> events_{0};
    // Where the window begins that is looked at: the events before it, and the
    // time.
    std::atomic<uint32_t> before_{0};
    std::atomic<uint32_t> since_{0};
    std::atomic<uint8_t> halvings_{0};
  };

  struct Limits {
    // More of one than so many in kShortest are too many; in four times that,
    // where those of all are.
    uint32_t of_one;
    // More of all than so many in kShortest.
    uint32_t of_all;
    // No rate is halved before there were so many of it, or of it where there
    // are too many of all, and of all.
    uint32_t enough;
    uint32_t enough_of_many;
    uint32_t enough_of_all;
  };
  static constexpr uint32_t kShortest = 64;

  static constexpr int kMostHalvings = 16;

  explicit constexpr RateLimiter(const Limits& limits) : limits_(limits) {}

  // Counts an event of this rate, and adapts it.
  void Count(Rate* rate, uint32_t now);

  // Adapts the rate where so little of it was counted that Count() does not
  // come by.
  void Relax(Rate* rate, uint32_t now) const;

 private:
  bool AreMany(uint32_t now) const;
  void CountOfAll(uint32_t all, uint32_t now);

  const Limits limits_;
  std::atomic<uint32_t> all_{0};
  // When the last of_all of all began, and whether those before them were too
  // many.
  std::atomic<uint32_t> all_since_{0};
  std::atomic<bool> many_{false};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_RATE_LIMITER_H_
