// What a captured stack costs.
//
//     bazel run //hakmem/core:unwind_benchmark

#include "benchmark/benchmark.h"
#include "hakmem/core/unwind.h"

namespace {

[[gnu::noinline]] size_t Recurse(int64_t depth, uintptr_t* frames,
                                 size_t most) {
  const size_t count = depth == 0 ? hakmem::CaptureStack(frames, most, 0)
                                  : Recurse(depth - 1, frames, most);
  benchmark::DoNotOptimize(frames);
  return count;
}

void BM_Capture(benchmark::State& state) {
  uintptr_t frames[128];
  size_t count = 0;
  for (auto _ : state) count = Recurse(state.range(0), frames, 128);
  state.counters["frames"] = static_cast<double>(count);
}
BENCHMARK(BM_Capture)->Arg(0)->Arg(10)->Arg(20)->Arg(50);

}  // namespace

BENCHMARK_MAIN();
