#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "tools/common/process.h"
#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// A key-value cache: values of random size in a table by key, random ones are
// evicted while the values are together larger than they may be.
class Cache {
 public:
  Cache(uint64_t capacity, size_t keys, uint64_t seed)
      : capacity_(capacity), values_(keys), random_(seed) {}
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
  ~Cache() {
    for (Value& value : values_) Drop(&value);
  }

  void Set(uint64_t least, uint64_t most) {
    Value& value = values_[random_.Below(values_.size())];
    Drop(&value);
    const uint64_t size = random_.Between(least, most);
    // Before the allocation, so that the bound holds at all times.
    while (live_ + size > capacity_) {
      Drop(&values_[random_.Below(values_.size())]);
    }
    value.data = NewBlock(size);
    value.size = size;
    std::memset(value.data, static_cast<int>(size), size);
    live_ += size;
    sum_ += size;
  }

  void Get() {
    const Value& value = values_[random_.Below(values_.size())];
    if (value.data != nullptr) {
      sum_ += static_cast<unsigned char>(value.data[value.size - 1]);
    }
  }

  uint64_t live() const { return live_; }
  uint64_t sum() const { return sum_; }

 private:
  struct Value {
    char* data = nullptr;
    uint64_t size = 0;
  };

  void Drop(Value* value) {
    if (value->data == nullptr) return;
    std::free(value->data);
    live_ -= value->size;
    *value = Value();
  }

  const uint64_t capacity_;
  std::vector<Value> values_;
  Random random_;
  uint64_t live_ = 0;
  uint64_t sum_ = 0;
};

Figures Run(const Params& params) {
  const uint64_t capacity = params["capacity_mib"] << 20;
  const uint64_t most = params["max_size"];
  const uint64_t sets = params["sets"];
  Figures figures;
  Cache cache(capacity, params["keys"], params["seed"]);
  // What is there before the first value is not the allocator's doing.
  const uint64_t base_kib = ResidentKib();
  // The size mix of each phase as a share of the greatest size. Small after
  // large is where slabs of the wrong size class stay half empty, and large
  // after small is where free memory is there but in pieces.
  constexpr struct {
    uint64_t least_divisor;
    uint64_t most_divisor;
  } kMixes[] = {{2048, 128}, {128, 8}, {8, 1}, {2048, 256}, {2048, 1}};
  // In the first cycle each phase by itself, of many cycles the first tenth and
  // the last one.
  const uint64_t cycles = params["cycles"];
  const uint64_t tenth = (cycles + 9) / 10;
  double first_tenth = 0;
  double last_tenth = 0;
  for (uint64_t cycle = 0; cycle < cycles; ++cycle) {
    int phase = 0;
    for (const auto& mix : kMixes) {
      const uint64_t low = std::max<uint64_t>(1, most / mix.least_divisor);
      const uint64_t high = std::max(low, most / mix.most_divisor);
      // Enough bytes to turn the whole cache over `sets` times, whatever the
      // size; many reads for each write, as caches have them.
      const uint64_t count =
          std::max<uint64_t>(1, sets * capacity / ((low + high) / 2 + 1) / 100);
      for (uint64_t i = 0; i < count; ++i) {
        cache.Set(low, high);
        for (int j = 0; j < 4; ++j) cache.Get();
      }
      figures.operations += count;
      const uint64_t rss_kib = ResidentKib();
      const uint64_t grown = rss_kib > base_kib ? rss_kib - base_kib : 0;
      const double over_live =
          static_cast<double>(grown) * 1024 /
          static_cast<double>(std::max<uint64_t>(1, cache.live()));
      if (cycle == 0) {
        figures.more.emplace_back(
            "phase" + std::to_string(++phase) + "_rss_over_live", over_live);
      }
      if (cycle < tenth) first_tenth += over_live;
      if (cycle >= cycles - tenth) last_tenth += over_live;
    }
  }
  const auto samples = static_cast<double>(tenth * std::size(kMixes));
  if (cycles > 1) {
    figures.more.emplace_back("first_tenth_rss_over_live",
                              first_tenth / samples);
    figures.more.emplace_back("last_tenth_rss_over_live", last_tenth / samples);
  }
  figures.checksum = cache.sum();
  return figures;
}

}  // namespace

Workload ServerWorkload() {
  return {"server",
          "a key-value cache whose size mix shifts: RSS over live bytes at the "
          "end of each phase; an operation is a write",
          {{"capacity_mib", 64, 1, 1 << 20, "live values, in MiB"},
           {"keys", 500000, 16, 100000000, "keys"},
           {"max_size", 131072, 16, 1 << 20,
            "greatest value, in bytes; the least is a 2048th of it"},
           {"sets", 800, 1, UINT32_MAX,
            "how often a phase replaces all of the cache, in percent", true},
           {"cycles", 1, 1, UINT32_MAX, "how often all phases come"},
           SeedParam()},
          &Run};
}

}  // namespace hakmem::tools
