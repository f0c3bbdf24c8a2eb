#include "hakmem/core/sample_rates.h"

#include "hakmem/core/os.h"

namespace hakmem {

constinit SampleRates sample_rates(&os::CoarseMilliseconds);

namespace {

// Blocks a millisecond. To count one takes half a nanosecond or so: all of 5000
// are a quarter of a percent.
constexpr uint64_t kBusy = 5000;
constexpr uint32_t kBusyWindow = 8;  // milliseconds

}  // namespace

// Threads that come here at once may count some of theirs for the time before
// or after.
void SampleRates::CountBlocks(uint64_t blocks, uint32_t now) {
  blocks_.fetch_add(blocks, std::memory_order_relaxed);
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
