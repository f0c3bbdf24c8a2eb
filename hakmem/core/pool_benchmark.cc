// Micro-benchmarks of one pool, its locked and its cached variant, driven as
// the heap drives them: the calling thread's bin first, then the pool.
// pool.bzl compiles this for each crate. Items are blocks: items_per_second is
// the rate of pairs of allocation and free.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <semaphore>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "hakmem/core/core.h"
#include HAKMEM_POOL_HEADER

namespace hakmem {
namespace {

namespace crate = HAKMEM_POOL_NAMESPACE;

template <auto& kPool>
void* Allocate(SizeClass size_class) {
  void* const block = thread_cache.Pop(size_class);
  if (block == nullptr) [[unlikely]]
    return kPool.Allocate(thread_cache, size_class);
  return block;
}

template <auto& kPool>
void Free(void* block) {
  if (!thread_cache.Push(block)) [[unlikely]] {
    kPool.Free(thread_cache, arena.ClassOf(block), block);
  }
}

// Both variants use the same bins, and what the one leaves there would serve
// the other: each benchmark begins and ends without.
class CleanBins {
 public:
  CleanBins() { thread_cache.FlushBins(); }
  ~CleanBins() { thread_cache.FlushBins(); }
  CleanBins(const CleanBins&) = delete;
  CleanBins& operator=(const CleanBins&) = delete;
};

template <auto& kPool>
void BM_Pair(benchmark::State& state) {
  const CleanBins clean;
  const auto size_class = static_cast<SizeClass>(state.range(0));
  for (auto _ : state) {
    void* const block = Allocate<kPool>(size_class);
    benchmark::DoNotOptimize(block);
    Free<kPool>(block);
  }
  state.SetItemsProcessed(state.iterations());
}

enum class Order { kSame, kReverse, kRandom };

template <auto& kPool, Order kOrder>
void BM_Batch(benchmark::State& state) {
  const CleanBins clean;
  const auto size_class = static_cast<SizeClass>(state.range(0));
  const auto count = static_cast<size_t>(state.range(1));
  std::vector<void*> blocks(count);
  std::vector<uint32_t> order(count);
  for (uint32_t i = 0; i < count; ++i) order[i] = i;
  if (kOrder == Order::kReverse) std::reverse(order.begin(), order.end());
  if (kOrder == Order::kRandom) {
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
  }
  for (auto _ : state) {
    for (void*& block : blocks) block = Allocate<kPool>(size_class);
    for (const uint32_t i : order) Free<kPool>(blocks[i]);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
}

// A ring of batches between two threads, of which the first allocates and the
// second frees.
struct Ring {
  static constexpr size_t kBatches = 8;
  static constexpr size_t kBlocks = 64;
  void* blocks[kBatches][kBlocks];
  std::counting_semaphore<kBatches> empty{kBatches};
  std::counting_semaphore<kBatches> full{0};
};

template <auto& kPool>
void BM_HandOver(benchmark::State& state) {
  static Ring ring;
  const CleanBins clean;
  const auto size_class = static_cast<SizeClass>(state.range(0));
  const bool producer = state.thread_index() == 0;
  size_t batch = 0;
  for (auto _ : state) {
    void** const blocks = ring.blocks[batch++ % Ring::kBatches];
    if (producer) {
      ring.empty.acquire();
      for (size_t i = 0; i < Ring::kBlocks; ++i) {
        blocks[i] = Allocate<kPool>(size_class);
      }
      ring.full.release();
    } else {
      ring.full.acquire();
      for (size_t i = 0; i < Ring::kBlocks; ++i) Free<kPool>(blocks[i]);
      ring.empty.release();
    }
  }
  // Both threads count: a block is one item of the two together.
  if (producer) {
    state.SetItemsProcessed(state.iterations() *
                            static_cast<int64_t>(Ring::kBlocks));
  }
}

// The smallest, a middle and the largest class of the crate.
std::vector<int64_t> Classes() {
  const PoolGeometry& geometry = crate::kGeometry;
  return {geometry.first_class,
          (geometry.first_class + geometry.last_class) / 2,
          geometry.last_class};
}

template <auto& kPool>
void RegisterPool(const std::string& variant) {
  const auto add = [&variant](const char* what, auto* function) {
    return benchmark::RegisterBenchmark((variant + "/" + what).c_str(),
                                        function);
  };
  add("pair", BM_Pair<kPool>)->ArgName("class")->ArgsProduct({Classes()});
  const auto batch = [&add](const char* what, auto* function) {
    add(what, function)
        ->ArgNames({"class", "n"})
        ->ArgsProduct({Classes(), {32, 256}});
  };
  batch("batch_in_order", BM_Batch<kPool, Order::kSame>);
  batch("batch_in_reverse", BM_Batch<kPool, Order::kReverse>);
  batch("batch_at_random", BM_Batch<kPool, Order::kRandom>);
  add("hand_over", BM_HandOver<kPool>)
      ->ArgName("class")
      ->ArgsProduct({Classes()})
      ->Threads(2)
      ->UseRealTime();
}

}  // namespace
}  // namespace hakmem

int main(int argc, char** argv) {
  hakmem::RegisterPool<hakmem::crate::locked_pool>("locked");
  hakmem::RegisterPool<hakmem::crate::cached_pool>("cached");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
