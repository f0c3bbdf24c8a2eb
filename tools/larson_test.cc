#include "tools/larson.h"

#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/larson_pattern.h"
#include "tools/larson_report.h"

namespace hakmem::tools {
namespace {

using ::testing::HasSubstr;

LarsonOptions Short() {
  LarsonOptions options;
  options.threads = 2;
  options.seconds = 0.05;
  options.blocks_per_thread = 100;
  options.rounds = 10;
  options.verify = true;
  return options;
}

// One thread at a time: what a broken heap does to two of them is a data race
// by intention, and a sanitizer would be right to say so.
LarsonOptions ShortOneThread() {
  LarsonOptions options = Short();
  options.threads = 1;
  return options;
}

// A heap that is wrong in a chosen way once in a while. It keeps all memory
// until the next Reset(), so that the mistake is in what it hands out only and
// a sanitizer has nothing to say.
class FakeHeap {
 public:
  enum class Mistake { kNone, kTwoOwners, kMisaligned, kNull, kScribble };

  static void Reset(Mistake mistake) {
    std::lock_guard<std::mutex> lock(mutex_);
    mistake_ = mistake;
    calls_ = 0;
    last_ = nullptr;
    owned_.clear();
  }

  static LarsonHeap Heap() {
    return {.allocate = &Allocate, .release = &Release};
  }

 private:
  struct Free {
    void operator()(char* block) const { std::free(block); }
  };

  static void* Allocate(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    // Not in the first thousand calls, which fill the arrays.
    const bool now = ++calls_ > 1000 && calls_ % 50 == 0;
    if (now && mistake_ == Mistake::kTwoOwners) return last_;
    if (now && mistake_ == Mistake::kNull) return nullptr;
    // Always the same room, so that the second owner of a block may ask for
    // more than the first one did.
    owned_.emplace_back(static_cast<char*>(std::malloc(kRoom)));
    char* const block = owned_.back().get();
    if (now && mistake_ == Mistake::kMisaligned) return block + 8;
    last_ = block;
    last_size_ = size;
    return block;
  }

  static void Release(void*) {
    std::lock_guard<std::mutex> lock(mutex_);
    // The last byte of a live block, as a neighbour's underrun would hit it.
    // The newest block is another one than that which is being freed, or is
    // freed without a second look.
    if (mistake_ == Mistake::kScribble && ++calls_ > 1000) {
      last_[last_size_ - 1] ^= 0x10;
    }
  }

  static constexpr size_t kRoom = 1024;

  static inline std::mutex mutex_;
  static inline Mistake mistake_ = Mistake::kNone;
  static inline int calls_ = 0;
  static inline char* last_ = nullptr;
  static inline size_t last_size_ = 0;
  static inline std::vector<std::unique_ptr<char, Free>> owned_;
};

using Mistake = FakeHeap::Mistake;

TEST(LarsonTest, RunsAndCountsOnTheSystemHeap) {
  const auto result = RunLarson(Short(), SystemHeap());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->operations, 0u);
  EXPECT_GE(result->seconds, 0.05);
  // Every operation is two calls, and all sizes are tiny.
  EXPECT_EQ(result->calls[kTiny], 2 * result->operations);
  EXPECT_EQ(result->calls[kL2] + result->calls[kL25] + result->calls[kLarge],
            0u);
  // All that was freed was checked: each operation, and what was left.
  EXPECT_EQ(result->blocks_verified, result->operations + 2 * 100);
}

TEST(LarsonTest, HandsArraysToNewThreads) {
  LarsonOptions options = Short();
  options.verify = false;
  const auto result = RunLarson(options, SystemHeap());
  ASSERT_TRUE(result.ok()) << result.status();
  // A life is 1000 operations; each chain's last may be cut short.
  EXPECT_GT(result->handovers, 0u);
  EXPECT_GE(result->operations, result->handovers * 1000);
  EXPECT_LE(result->operations, (result->handovers + 2) * 1000);
}

TEST(LarsonTest, CountsCallsByTheSizeOfTheBlock) {
  LarsonOptions options = Short();
  options.verify = false;
  options.min_size = 1000;
  options.max_size = 1100;
  const auto result = RunLarson(options, SystemHeap());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->calls[kTiny] + result->calls[kL2], 2 * result->operations);
  // 25 of 101 sizes are tiny.
  EXPECT_NEAR(static_cast<double>(result->calls[kTiny]) /
                  static_cast<double>(2 * result->operations),
              25.0 / 101, 0.05);
}

TEST(LarsonTest, VerificationPassesOnACorrectFakeHeap) {
  FakeHeap::Reset(Mistake::kNone);
  const auto result = RunLarson(ShortOneThread(), FakeHeap::Heap());
  EXPECT_TRUE(result.ok()) << result.status();
}

TEST(LarsonTest, VerificationFindsABlockWithTwoOwners) {
  FakeHeap::Reset(Mistake::kTwoOwners);
  const auto result = RunLarson(ShortOneThread(), FakeHeap::Heap());
  ASSERT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("has a second owner"));
}

TEST(LarsonTest, VerificationFindsOneChangedByte) {
  FakeHeap::Reset(Mistake::kScribble);
  const auto result = RunLarson(ShortOneThread(), FakeHeap::Heap());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
}

TEST(LarsonTest, VerificationFindsMisalignment) {
  FakeHeap::Reset(Mistake::kMisaligned);
  LarsonOptions options = ShortOneThread();
  options.min_size = 16;
  const auto result = RunLarson(options, FakeHeap::Heap());
  ASSERT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("not aligned"));
}

TEST(LarsonTest, AHeapThatRunsOutIsAnErrorAndNotACrash) {
  FakeHeap::Reset(Mistake::kNull);
  for (const bool verify : {false, true}) {
    LarsonOptions options = ShortOneThread();
    options.verify = verify;
    EXPECT_EQ(RunLarson(options, FakeHeap::Heap()).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
}

TEST(LarsonOptionsTest, NonsenseIsRefused) {
  EXPECT_TRUE(ValidateLarsonOptions(LarsonOptions()).ok());
  std::vector<std::pair<std::string, LarsonOptions>> cases;
  const auto add = [&cases](const char* word, auto change) {
    LarsonOptions options;
    change(options);
    cases.emplace_back(word, options);
  };
  add("--threads", [](LarsonOptions& o) { o.threads = 0; });
  add("--threads", [](LarsonOptions& o) { o.threads = -4; });
  add("--seconds", [](LarsonOptions& o) { o.seconds = 0; });
  add("--seconds", [](LarsonOptions& o) { o.seconds = 0.0 / 0.0; });
  add("--min_size", [](LarsonOptions& o) { o.min_size = 2000; });
  add("sizes", [](LarsonOptions& o) { o.min_size = 0; });
  add("sizes", [](LarsonOptions& o) { o.max_size = size_t{1} << 40; });
  add("--blocks_per_thread", [](LarsonOptions& o) { o.blocks_per_thread = 0; });
  add("--rounds", [](LarsonOptions& o) { o.rounds = 0; });
  for (const auto& [word, options] : cases) {
    const absl::Status status = ValidateLarsonOptions(options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
}

TEST(LarsonPatternTest, EveryChangedByteIsFound) {
  char block[37];
  for (size_t size = 1; size <= sizeof(block); ++size) {
    WritePattern(block, size, 7);
    ASSERT_EQ(FindMismatch(block, size, 7), size);
    for (size_t at = 0; at < size; ++at) {
      block[at] = static_cast<char>(block[at] ^ 1);
      EXPECT_EQ(FindMismatch(block, size, 7), at);
      block[at] = static_cast<char>(block[at] ^ 1);
    }
  }
}

TEST(LarsonPatternTest, StampsDiffer) {
  // Neighbouring serials and neighbouring arrays are what a mix-up confuses.
  char block[64];
  WritePattern(block, sizeof(block), 7);
  EXPECT_LT(FindMismatch(block, sizeof(block), 8), 4u);
  EXPECT_LT(FindMismatch(block, sizeof(block), (uint64_t{1} << 32) | 7), 4u);
}

LarsonReport ReportWith(const HeapCounters& before, const HeapCounters& after) {
  LarsonResult result;
  result.operations = 1000;
  result.seconds = 0.5;
  result.calls[kTiny] = 2000;
  LarsonOptions options;
  options.threads = 3;
  return MakeLarsonReport(options, result, before, after, "a\"b", 77);
}

TEST(LarsonReportTest, RateIsWithoutTheMissesOfTheRun) {
  HeapCounters before, after;
  before.hakmem = after.hakmem = true;
  before.pools[kTiny] = {true, 500};
  after.pools[kTiny] = {true, 520};
  before.pools[kL25] = after.pools[kL25] = {true, 3};
  const LarsonReport report = ReportWith(before, after);
  ASSERT_TRUE(report.hit_rate[kTiny].has_value());
  EXPECT_DOUBLE_EQ(*report.hit_rate[kTiny], 0.99);
  EXPECT_FALSE(report.hit_rate[kL2].has_value());
  EXPECT_EQ(report.no_rate_because[kL2], "not cached");
  EXPECT_FALSE(report.hit_rate[kL25].has_value());
  EXPECT_EQ(report.no_rate_because[kL25], "no calls");
  EXPECT_EQ(FormatLarsonJson(report),
            "{\"threads\": 3, \"ops_per_sec\": 2000, \"peak_rss_kib\": 77, "
            "\"config\": \"a\\\"b\", \"hit_rate\": {\"tiny\": 0.990000, "
            "\"l2\": null, \"l25\": null}}\n");
}

TEST(LarsonReportTest, ARateIsNeverNegative) {
  HeapCounters before, after;
  before.hakmem = after.hakmem = true;
  after.pools[kTiny] = {true, 5000};
  EXPECT_EQ(ReportWith(before, after).hit_rate[kTiny], 0.0);
}

TEST(LarsonReportTest, OtherAllocatorsHaveNoRates) {
  const LarsonReport report = ReportWith({}, {});
  for (int pool = 0; pool < 3; ++pool) {
    EXPECT_FALSE(report.hit_rate[pool].has_value());
    EXPECT_EQ(report.no_rate_because[pool], "unknown");
  }
}

}  // namespace
}  // namespace hakmem::tools
