// What the tests of the arena have in common.

#ifndef HAKMEM_CORE_ARENA_TEST_H_
#define HAKMEM_CORE_ARENA_TEST_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"

namespace hakmem {

constexpr size_t kMiB = size_t{1} << 20;

// An arena of its own for each test. Its address space stays reserved to the
// end of the program, as that of the one arena of a process does.
class ArenaTest : public testing::Test {
 protected:
  // Make() with a HAKMEM_DECAY_MS that is longer than any test takes.
  static constexpr int64_t kDecay = 3600000;
  void MakeWithDecay(size_t retain_bytes) {
    setenv("HAKMEM_DECAY_MS", std::to_string(kDecay).c_str(), 1);
    Make(64 * kMiB, retain_bytes);
    unsetenv("HAKMEM_DECAY_MS");
  }
  void Make(size_t arena_bytes, size_t retain_bytes) {
    setenv("HAKMEM_ARENA_BYTES", std::to_string(arena_bytes).c_str(), 1);
    setenv("HAKMEM_RETAIN_BYTES", std::to_string(retain_bytes).c_str(), 1);
    // So that what is dirty is what was used, whatever the system's setting.
    setenv("HAKMEM_HUGE_PAGES", "never", 1);
    setenv("HAKMEM_PURGE", purge_, 1);
    arena_ = std::make_unique<Arena>();
    ASSERT_TRUE(arena_->EnsureReady());
    unsetenv("HAKMEM_HUGE_PAGES");
    unsetenv("HAKMEM_PURGE");
    unsetenv("HAKMEM_ARENA_BYTES");
    unsetenv("HAKMEM_RETAIN_BYTES");
  }

  // What a slab's span begins as.
  static constexpr Span kSlab = {
      .start = 0, .granules = 0, .kind = Span::Kind::kSlab, .size_class = 7};

  Span* NewSpan(SizeClass size_class) {
    auto* const span =
        static_cast<Span*>(arena_->AllocateMetadata(Metadata::kUnit));
    span->kind =
        size_class == kNoClass ? Span::Kind::kLarge : Span::Kind::kSlab;
    span->size_class = static_cast<uint8_t>(size_class);
    return span;
  }

  // A run, or null.
  Span* Allocate(uint32_t granules, size_t alignment = kGranuleSize,
                 SizeClass size_class = kNoClass, bool* zeroed = nullptr) {
    Span* const span = NewSpan(size_class);
    if (arena_->AllocateRun(span, granules, alignment, zeroed)) return span;
    arena_->FreeMetadata(span, Metadata::kUnit);
    return nullptr;
  }

  void Free(Span* span) { arena_->FreeSpan(span, Metadata::kUnit); }

  char* Start(const Span* span) const { return arena_->AddressOf(span->start); }

  void Fill(const Span* span, char value) const {
    std::memset(Start(span), value, span->granules * kGranuleSize);
  }

  bool ReadsAsZero(const Span* span) const {
    const char* const start = Start(span);
    return std::all_of(start, start + span->granules * kGranuleSize,
                       [](char c) { return c == 0; });
  }

  // Pages of the span that are in memory.
  size_t ResidentPages(const Span* span) const {
    const size_t bytes = span->granules * kGranuleSize;
    std::vector<unsigned char> pages(bytes / os::kPageSize);
    EXPECT_EQ(mincore(Start(span), bytes, pages.data()), 0);
    return static_cast<size_t>(
        std::count_if(pages.begin(), pages.end(),
                      [](unsigned char page) { return (page & 1) != 0; }));
  }

  // Every granule's entries in both maps against the spans that are live.
  void ExpectMaps(const std::vector<Span*>& live) const {
    const size_t granules = arena_->GetStats().committed_bytes / kGranuleSize;
    std::vector<Span*> owner(granules);
    size_t slab_bytes = 0;
    size_t large_bytes = 0;
    for (Span* const span : live) {
      (span->kind == Span::Kind::kSlab ? slab_bytes : large_bytes) +=
          span->granules * kGranuleSize;
      for (uint32_t g = 0; g < span->granules; ++g) {
        ASSERT_LT(span->start + g, granules);
        ASSERT_EQ(owner[span->start + g], nullptr) << "runs overlap";
        owner[span->start + g] = span;
      }
    }
    for (uint32_t g = 0; g < granules; ++g) {
      char* const first = arena_->AddressOf(g);
      char* const last = first + kGranuleSize - 8;
      const SizeClass size_class =
          owner[g] == nullptr ? kNoClass : owner[g]->size_class;
      for (char* const address : {first, last}) {
        ASSERT_TRUE(arena_->Contains(address));
        ASSERT_EQ(arena_->SpanOf(address), owner[g]) << "granule " << g;
        ASSERT_EQ(arena_->ClassOf(address), size_class) << "granule " << g;
        ASSERT_EQ(arena_->ClassOf(address + 1), kNoClass);
        ASSERT_EQ(arena_->ClassOf(address + 4), kNoClass);
      }
    }
    const Arena::Stats stats = arena_->GetStats();
    EXPECT_EQ(stats.slab_bytes, slab_bytes);
    EXPECT_EQ(stats.large_bytes, large_bytes);
  }

  const char* purge_ = "1";  // HAKMEM_PURGE
  std::unique_ptr<Arena> arena_;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_ARENA_TEST_H_
