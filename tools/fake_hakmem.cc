// Answers hakmem's questions as a chosen build of it would, without being an
// allocator: preloaded under larson_libc, it shows what larson makes of the
// answers. FAKE_HAKMEM_CONFIG is the config; every stage but p0 and unlocked
// counts one miss a pool between two readings.

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "hakmem/shim/hakmem.h"

extern "C" const char* hak_config() {
  const char* const config = std::getenv("FAKE_HAKMEM_CONFIG");
  return config == nullptr ? "tls_full" : config;
}

extern "C" int hak_stats_get(hak_stats* stats, size_t stats_size) {
  static uint64_t misses = 0;
  ++misses;
  const bool cached = std::strncmp(hak_config(), "tls_", 4) == 0;
  hak_stats filled = {};
  for (hak_pool_stats& pool : filled.pools) {
    pool.cached = cached;
    pool.alloc_misses = cached ? misses : 0;
  }
  std::memcpy(stats, &filled,
              stats_size < sizeof(filled) ? stats_size : sizeof(filled));
  return 0;
}
