// The depot: for each class, the full magazines that no thread holds.

#ifndef HAKMEM_CORE_DEPOT_H_
#define HAKMEM_CORE_DEPOT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/magazine.h"

namespace hakmem {

// Bytes that a pool's thread caches and depots may hold together: for threads
// the room in their magazines counts, used or not, for depots what is there. A
// relaxed counter: the limit is kept to within what threads are adding at the
// moment.
//
// Thread safety: every function may be called from any thread.
class CacheBudget {
 public:
  constexpr CacheBudget() = default;

  void SetLimit(size_t bytes) {
    limit_.store(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }

  // For a thread's magazine to grow. False, and nothing taken, when that would
  // go over the limit.
  bool TakeForThread(size_t bytes) { return Take(bytes, limit()); }

  // For a magazine to wait in a depot. Depots leave a quarter to the threads,
  // so that what nobody uses does not keep a new thread from having a cache.
  bool TakeForDepot(size_t bytes) { return Take(bytes, limit() / 4 * 3); }

  // The first few blocks of every bin, limit or not.
  void Force(size_t bytes) {
    used_.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }

  void Return(size_t bytes) {
    used_.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }
  int64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  int64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  bool Take(size_t bytes, int64_t limit) {
    const auto wanted = static_cast<int64_t>(bytes);
    if (used_.fetch_add(wanted, std::memory_order_relaxed) + wanted <= limit) {
      return true;
    }
    used_.fetch_sub(wanted, std::memory_order_relaxed);
    return false;
  }

  alignas(64) std::atomic<int64_t> used_{0};
  std::atomic<int64_t> limit_{0};
};

// The full magazines of one class. "Full" means that a thread had no more room
// for it; a magazine may hold fewer blocks than it could.
//
// Thread safety: every function may be called from any thread; none takes a
// lock. Each class has cache lines of its own.
class alignas(64) Depot {
 public:
  constexpr Depot() = default;

  void Push(Magazine* magazine) {
    count_.fetch_add(1, std::memory_order_relaxed);
    full_.Push(magazine);
  }

  // Null when there is none.
  Magazine* Pop() {
    // Looking first keeps threads that find nothing from writing to the line.
    if (count_.load(std::memory_order_relaxed) == 0) return nullptr;
    Magazine* const magazine = full_.Pop();
    if (magazine == nullptr) return nullptr;
    const uint32_t left = count_.fetch_sub(1, std::memory_order_relaxed) - 1;
    if (left < low_water_.load(std::memory_order_relaxed)) {
      low_water_.store(left, std::memory_order_relaxed);
    }
    return magazine;
  }

  // The working set by Bonwick & Adams: magazines that were there all the time
  // since the last call were of no use to anybody. Called every so many pushes;
  // returns how many they are.
  uint32_t TakeSurplus() {
    const uint32_t low = low_water_.load(std::memory_order_relaxed);
    low_water_.store(count_.load(std::memory_order_relaxed),
                     std::memory_order_relaxed);
    return low;
  }

  // True every kPushesPerReview-th time.
  bool DueForReview() {
    return pushes_.fetch_add(1, std::memory_order_relaxed) % kPushesPerReview ==
           kPushesPerReview - 1;
  }

 private:
  static constexpr uint32_t kPushesPerReview = 64;

  MagazineStack full_;
  std::atomic<uint32_t> count_{0};
  std::atomic<uint32_t> low_water_{0};
  std::atomic<uint32_t> pushes_{0};
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_DEPOT_H_
