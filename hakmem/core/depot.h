// The depot: for each class, the full magazines that no thread holds.

#ifndef HAKMEM_CORE_DEPOT_H_
#define HAKMEM_CORE_DEPOT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/magazine.h"

namespace hakmem {

// The full magazines of one class. "Full" means that a thread had no more room
// for it; a magazine may hold fewer blocks than it could.
//
// Thread safety: every function may be called from any thread; none takes a
// lock. Each class has cache lines of its own. The counters beside the stack
// steer when magazines go back to the slabs; a lost update moves that a little.
class alignas(64) Depot {
 public:
  constexpr Depot() = default;

  void Push(Magazine* magazine) {
    held_.fetch_add(kMagazine + magazine->count, std::memory_order_relaxed);
    full_.Push(magazine);
  }

  // Null when there is none.
  Magazine* Pop() {
    // Looking first keeps threads that find nothing from writing to the line.
    if (magazines() == 0) return nullptr;
    Magazine* const magazine = full_.Pop();
    if (magazine == nullptr) return nullptr;
    pops_.store(pops_.load(std::memory_order_relaxed) + 1,
                std::memory_order_relaxed);
    const uint64_t taken = kMagazine + magazine->count;
    const auto left = static_cast<uint32_t>(
        (held_.fetch_sub(taken, std::memory_order_relaxed) - taken) /
        kMagazine);
    if (left < low_water_.load(std::memory_order_relaxed)) {
      low_water_.store(left, std::memory_order_relaxed);
    }
    return magazine;
  }

  // The working set by Bonwick & Adams: magazines that were there all the time
  // since the last review were of no use to anybody. Returns how many of them
  // should go: half, so that a working set that comes in waves is not paid for
  // at each wave, or all when nobody came by at all.
  uint32_t Review() {
    const uint32_t pops = pops_.load(std::memory_order_relaxed);
    const bool idle = pops == reviewed_pops_.load(std::memory_order_relaxed);
    const uint32_t low = low_water_.load(std::memory_order_relaxed);
    const uint32_t now = magazines();
    // Most depots are as they were: nobody's cache line is taken for them, and
    // in a program that has just begun no page.
    if (!idle) reviewed_pops_.store(pops, std::memory_order_relaxed);
    if (low != now) low_water_.store(now, std::memory_order_relaxed);
    return idle ? low : low / 2;
  }

  // How many blocks wait here.
  uint32_t blocks() const {
    return static_cast<uint32_t>(held_.load(std::memory_order_relaxed));
  }

 private:
  // Magazines are counted above, their blocks below: one locked instruction.
  static constexpr uint64_t kMagazine = uint64_t{1} << 32;

  uint32_t magazines() const {
    return static_cast<uint32_t>(held_.load(std::memory_order_relaxed) /
                                 kMagazine);
  }

  MagazineStack full_;
  std::atomic<uint64_t> held_{0};
  std::atomic<uint32_t> low_water_{0};
  std::atomic<uint32_t> pops_{0};
  std::atomic<uint32_t> reviewed_pops_{0};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_DEPOT_H_
