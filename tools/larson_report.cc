#include "tools/larson_report.h"

#include <dlfcn.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "hakmem/shim/hakmem.h"
#include "tools/common/process.h"

// Weak: there when hakmem is linked into this program, null otherwise.
#pragma weak hak_alloc_at
#pragma weak hak_config
#pragma weak hak_free_at
#pragma weak hak_site
#pragma weak hak_stats_get

namespace hakmem::tools {
namespace {

constexpr const char* kPoolNames[3] = {"tiny", "l2", "l25"};

// A weak reference finds what was linked. The linker may settle it at zero for
// good when it finds nothing, so a preloaded hakmem is looked for by name.
template <typename Function>
Function* Find(Function* linked, const char* name) {
  if (linked != nullptr) return linked;
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

// Quotes and control characters do not occur in the names of allocators; a
// library's file name may hold anything.
std::string JsonString(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&quoted, "\\", std::string(1, c));
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&quoted, "\\u%04x", static_cast<unsigned>(c));
    } else {
      quoted.push_back(c);
    }
  }
  return quoted + "\"";
}

}  // namespace

LarsonHeap SitesHeap() {
  auto* const make = Find(&hak_site, "hak_site");
  const LarsonHeap heap = {
      .allocate_at = Find(&hak_alloc_at, "hak_alloc_at"),
      .release_at = Find(&hak_free_at, "hak_free_at"),
      .site = make != nullptr ? make(__FILE__, __LINE__, "larson") : 0};
  return heap.release_at != nullptr && heap.site != 0 ? heap : LarsonHeap{};
}

HeapCounters ReadHeapCounters() {
  HeapCounters counters;
  auto* const get = Find(&hak_stats_get, "hak_stats_get");
  hak_stats stats = {};
  if (get == nullptr || get(&stats, sizeof(stats)) != 0) return counters;
  counters.hakmem = true;
  for (int pool = 0; pool < HAK_POOLS; ++pool) {
    const hak_pool_stats& from = stats.pools[pool];
    counters.pools[pool].cached = from.cached != 0;
    counters.pools[pool].misses = from.alloc_misses + from.free_misses;
  }
  return counters;
}

std::string HeapConfig() {
  auto* const config = Find(&hak_config, "hak_config");
  return config != nullptr ? config() : AllocatorName();
}

LarsonReport MakeLarsonReport(const LarsonOptions& options,
                              const LarsonResult& result,
                              const HeapCounters& before,
                              const HeapCounters& after, std::string config,
                              uint64_t peak_rss_kib) {
  LarsonReport report;
  report.threads = options.threads;
  report.ops_per_sec =
      result.seconds > 0
          ? static_cast<double>(result.operations) / result.seconds
          : 0;
  report.peak_rss_kib = peak_rss_kib;
  report.config = std::move(config);
  for (int pool = 0; pool < HAK_POOLS; ++pool) {
    const double calls = static_cast<double>(result.calls[pool]);
    if (!after.hakmem) {
      report.no_rate_because[pool] = "unknown";
    } else if (!after.pools[pool].cached) {
      report.no_rate_because[pool] = "not cached";
    } else if (result.calls[pool] == 0) {
      report.no_rate_because[pool] = "no calls";
    } else {
      const double misses = static_cast<double>(after.pools[pool].misses -
                                                before.pools[pool].misses);
      // Threads' own allocations count as misses but not as calls; in a very
      // short run they can be the larger number.
      report.hit_rate[pool] = misses > calls ? 0 : 1 - misses / calls;
    }
  }
  return report;
}

std::string FormatLarsonJson(const LarsonReport& report) {
  std::string text = absl::StrFormat(
      "{\"threads\": %d, \"ops_per_sec\": %.0f, \"peak_rss_kib\": %d, "
      "\"config\": %s, \"hit_rate\": {",
      report.threads, report.ops_per_sec, report.peak_rss_kib,
      JsonString(report.config));
  for (int pool = 0; pool < HAK_POOLS; ++pool) {
    absl::StrAppend(&text, pool == 0 ? "" : ", ", "\"", kPoolNames[pool],
                    "\": ");
    if (report.hit_rate[pool].has_value()) {
      absl::StrAppendFormat(&text, "%.6f", *report.hit_rate[pool]);
    } else {
      absl::StrAppend(&text, "null");
    }
  }
  return text + "}}\n";
}

std::string FormatLarsonText(const LarsonOptions& options,
                             const LarsonResult& result,
                             const LarsonReport& report) {
  std::string text = absl::StrFormat(
      "larson      %d thread%s, %d blocks of %d..%d bytes each, %.2f s, "
      "%d hand-overs\n"
      "config      %s\n"
      "op/s        %.0f\n"
      "peak RSS    %d KiB\n"
      "hit rate   ",
      options.threads, options.threads == 1 ? "" : "s",
      options.blocks_per_thread, options.min_size, options.max_size,
      result.seconds, result.handovers, report.config, report.ops_per_sec,
      report.peak_rss_kib);
  for (int pool = 0; pool < HAK_POOLS; ++pool) {
    absl::StrAppend(&text, " ", kPoolNames[pool], " ");
    if (report.hit_rate[pool].has_value()) {
      absl::StrAppendFormat(&text, "%.3f%%", *report.hit_rate[pool] * 100);
    } else {
      absl::StrAppend(&text, "- (", report.no_rate_because[pool], ")");
    }
    if (pool + 1 < HAK_POOLS) absl::StrAppend(&text, ",");
  }
  absl::StrAppend(&text, "\n");
  if (options.verify) {
    absl::StrAppendFormat(&text, "verified    %d blocks, no error\n",
                          result.blocks_verified);
  }
  return text;
}

}  // namespace hakmem::tools
