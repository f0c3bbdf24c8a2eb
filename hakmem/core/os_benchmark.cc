// What it costs to give pages back to the system and to want them back.
//
//     bazel run //hakmem/core:os_benchmark

#include <cstddef>

#include "benchmark/benchmark.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// So many pages each time. `purge_ns` is what HAKMEM_PURGE=auto goes by.
void BM_TouchAndPurge(benchmark::State& state) {
  const size_t bytes = static_cast<size_t>(state.range(0)) * os::kPageSize;
  auto* const pages =
      static_cast<volatile char*>(os::Map(bytes, os::kPageSize));
  for (auto _ : state) {
    for (size_t at = 0; at < bytes; at += os::kPageSize) pages[at] = 1;
    if (!os::Purge(const_cast<char*>(pages), bytes)) {
      state.SkipWithError("the system keeps the pages");
      break;
    }
  }
  os::Unmap(const_cast<char*>(pages), bytes);
  state.counters["purge_ns"] = static_cast<double>(os::PurgeNanoseconds());
}
BENCHMARK(BM_TouchAndPurge)->Arg(1)->Arg(2)->Arg(16);

}  // namespace
}  // namespace hakmem

BENCHMARK_MAIN();
