// What larson prints: which allocator ran, how fast, how much memory, and how
// often hakmem's thread caches served a call by themselves.

#ifndef TOOLS_LARSON_REPORT_H_
#define TOOLS_LARSON_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "tools/larson.h"

namespace hakmem::tools {

// hakmem's counters for one pool, or the difference of two readings.
struct PoolCounters {
  bool cached = false;
  uint64_t misses = 0;  // of malloc and of free
};
struct HeapCounters {
  bool hakmem = false;  // false: another allocator, all else is meaningless
  PoolCounters pools[3];
};

// Reads the counters of the hakmem in this process, whether it was linked or
// preloaded. `hakmem` is false in the result if there is none.
HeapCounters ReadHeapCounters();

// hak_config(), or the name of the allocator that is there instead.
std::string HeapConfig();

// hakmem's functions, with all blocks for one site; null pointers if there is
// no hakmem.
LarsonHeap SitesHeap();

struct LarsonReport {
  int threads = 0;
  double ops_per_sec = 0;
  uint64_t peak_rss_kib = 0;
  std::string config;
  // By pool: tiny, L2, L2.5. Empty where there is no rate, and why.
  std::optional<double> hit_rate[3];
  std::string no_rate_because[3];
};

LarsonReport MakeLarsonReport(const LarsonOptions& options,
                              const LarsonResult& result,
                              const HeapCounters& before,
                              const HeapCounters& after, std::string config,
                              uint64_t peak_rss_kib);

// One JSON object on one line, with a newline.
std::string FormatLarsonJson(const LarsonReport& report);
// A few lines for people.
std::string FormatLarsonText(const LarsonOptions& options,
                             const LarsonResult& result,
                             const LarsonReport& report);

}  // namespace hakmem::tools

#endif  // TOOLS_LARSON_REPORT_H_
