#include "hakmem/core/rate_limiter.h"

#include <algorithm>
#include <bit>

namespace hakmem {
namespace {

constexpr uint32_t kShortestOfMany = 4 * RateLimiter::kShortest;
// A rate doubles where so many of its windows would have been too many.
constexpr uint32_t kLongestByShortest = 8;

// At a time. A window may be shorter than the clock can tell.
constexpr int kMostSteps = 3;
constexpr uint32_t kClockStep = 4;

int Steps(uint32_t quotient) {
  return std::clamp(static_cast<int>(std::bit_width(quotient)) - 1, 1,
                    kMostSteps);
}

}  // namespace

bool RateLimiter::AreMany(uint32_t now) const {
  return now - all_since_.load(std::memory_order_relaxed) < kShortest &&
         many_.load(std::memory_order_relaxed);
}

void RateLimiter::CountOfAll(uint32_t all, uint32_t now) {
  if (all % limits_.of_all != 0) return;
  const uint32_t since = all_since_.exchange(now, std::memory_order_relaxed);
  many_.store(now - since < kShortest, std::memory_order_relaxed);
}

void RateLimiter::Count(Rate* rate, uint32_t now) {
  const uint32_t all = all_.fetch_add(1, std::memory_order_relaxed) + 1;
  const uint32_t events =
      rate->events_.fetch_add(1, std::memory_order_relaxed) + 1;
  CountOfAll(all, now);
  Relax(rate, now);
  if (events - rate->before_.load(std::memory_order_relaxed) < limits_.of_one) {
    return;
  }
  const bool many = AreMany(now);
  const uint32_t shortest = many ? kShortestOfMany : kShortest;
  const uint32_t elapsed = now - rate->since_.load(std::memory_order_relaxed);
  rate->before_.store(events, std::memory_order_relaxed);
  rate->since_.store(now, std::memory_order_relaxed);
  if (elapsed >= shortest || all < limits_.enough_of_all ||
      events < (many ? limits_.enough_of_many : limits_.enough)) {
    return;
  }
  const int halvings =
      rate->halvings() + Steps(shortest / (elapsed + kClockStep));
  rate->halvings_.store(static_cast<uint8_t>(std::min(halvings, kMostHalvings)),
                        std::memory_order_relaxed);
}

void RateLimiter::Relax(Rate* rate, uint32_t now) const {
  const uint32_t longest =
      kLongestByShortest * (AreMany(now) ? kShortestOfMany : kShortest);
  const uint32_t elapsed = now - rate->since_.load(std::memory_order_relaxed);
  if (elapsed <= longest) return;
  rate->before_.store(rate->events_.load(std::memory_order_relaxed),
                      std::memory_order_relaxed);
  rate->since_.store(now, std::memory_order_relaxed);
  const int halvings = rate->halvings() - Steps(elapsed / longest);
  rate->halvings_.store(static_cast<uint8_t>(std::max(halvings, 0)),
                        std::memory_order_relaxed);
}

}  // namespace hakmem
