#include "hakmem/core/arena.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "gtest/gtest.h"
#include "hakmem/core/arena_test.h"
#include "hakmem/core/observed.h"
#include "hakmem/core/os.h"
#include "hakmem/core/retention.h"
#include "hakmem/core/slab_use.h"

namespace hakmem {
namespace {

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || \
    defined(ABSL_HAVE_THREAD_SANITIZER) || defined(ABSL_HAVE_MEMORY_SANITIZER)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

TEST_F(ArenaTest, BeforeItExistsNothingIsInIt) {
  arena_ = std::make_unique<Arena>();
  int on_stack = 0;
  for (const void* const address :
       {static_cast<const void*>(nullptr), static_cast<const void*>(&on_stack),
        static_cast<const void*>(this), reinterpret_cast<const void*>(8)}) {
    EXPECT_FALSE(arena_->Contains(address));
    EXPECT_EQ(arena_->ClassOf(address), kNoClass);
  }
}

TEST_F(ArenaTest, AddressesOutsideHaveNoClass) {
  Make(64 * kMiB, kMiB);
  Span* const span = Allocate(1, kGranuleSize, 5);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(arena_->ClassOf(Start(span)), 5u);
  int on_stack = 0;
  char* const base = arena_->AddressOf(0);
  char* const end = base + 64 * kMiB;
  for (const void* const address :
       {static_cast<const void*>(nullptr), static_cast<const void*>(&on_stack),
        static_cast<const void*>(base - 8), static_cast<const void*>(end),
        static_cast<const void*>(base + 4096 * kMiB),
        reinterpret_cast<const void*>(UINTPTR_MAX - 7)}) {
    EXPECT_FALSE(arena_->Contains(address)) << address;
    EXPECT_EQ(arena_->ClassOf(address), kNoClass) << address;
  }
  EXPECT_TRUE(arena_->Contains(base));
  EXPECT_TRUE(arena_->Contains(end - 1));
  // Inside, but never used.
  EXPECT_EQ(arena_->ClassOf(end - 8), kNoClass);
  EXPECT_EQ(arena_->SpanOf(end - 8), nullptr);
}

// The whole contract in one: random runs of both kinds come, change their
// length and go. Each is filled with a value of its own, is checked before it
// changes hands, and is zero when it was said to be.
TEST_F(ArenaTest, AgreesWithASimpleModel) {
  Make(64 * kMiB, 2 * kMiB);
  std::mt19937 random(1);
  std::vector<Span*> live;
  std::vector<char> values;
  int zeroed_runs = 0;
  int dirty_runs = 0;
  for (int step = 0; step < 4000; ++step) {
    const uint32_t action = random() % 8;
    if (action < 4 || live.empty()) {
      const uint32_t granules = 1 + random() % (random() % 16 == 0 ? 64 : 6);
      const size_t alignment = kGranuleSize << (random() % 7);
      const SizeClass size_class = random() % 2 == 0 ? kNoClass : 1 + step % 60;
      bool zeroed = false;
      Span* const span = Allocate(granules, alignment, size_class, &zeroed);
      if (span == nullptr) {
        // Full: half of all goes.
        for (size_t i = 0; i < live.size(); ++i) {
          Free(live[i]);
          live.erase(live.begin() + static_cast<ptrdiff_t>(i));
          values.erase(values.begin() + static_cast<ptrdiff_t>(i));
        }
        continue;
      }
      ASSERT_EQ(span->granules, granules);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(Start(span)) % alignment, 0u);
      if (zeroed) {
        ++zeroed_runs;
        ASSERT_TRUE(ReadsAsZero(span)) << "at step " << step;
      } else {
        ++dirty_runs;
      }
      live.push_back(span);
      values.push_back(static_cast<char>(1 + random() % 127));
      Fill(span, values.back());
      continue;
    }
    const size_t i = random() % live.size();
    Span* const span = live[i];
    const char* const start = Start(span);
    const char* const end = start + span->granules * kGranuleSize;
    ASSERT_TRUE(
        std::all_of(start, end, [&](char c) { return c == values[i]; }));
    if (action < 7) {
      Free(span);
      live.erase(live.begin() + static_cast<ptrdiff_t>(i));
      values.erase(values.begin() + static_cast<ptrdiff_t>(i));
    } else {
      const uint32_t before = span->granules;
      const uint32_t wanted = 1 + random() % 12;
      if (arena_->ResizeRun(span, wanted)) {
        ASSERT_EQ(span->granules, wanted);
        const char* const kept =
            start + std::min(before, wanted) * kGranuleSize;
        ASSERT_TRUE(
            std::all_of(start, kept, [&](char c) { return c == values[i]; }));
        Fill(span, values[i]);
      } else {
        ASSERT_GT(wanted, before) << "shrinking always works";
        ASSERT_EQ(span->granules, before);
      }
    }
    if (step % 50 == 0) {
      ASSERT_NO_FATAL_FAILURE(ExpectMaps(live));
    }
    if (step % 500 == 0) arena_->Purge(0);
  }
  EXPECT_GT(zeroed_runs, 100);
  EXPECT_GT(dirty_runs, 100);
  for (Span* const span : live) Free(span);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({}));
}

TEST_F(ArenaTest, AFullArenaSaysSoAndNeighboursJoinAgain) {
  Make(16 * kMiB, 64 * kMiB);
  std::vector<Span*> spans;
  while (Span* const span = Allocate(3)) spans.push_back(span);
  // 256 granules, of which the first is not used.
  EXPECT_EQ(spans.size(), 85u);
  EXPECT_EQ(arena_->GetStats().large_bytes, 255 * kGranuleSize);
  EXPECT_EQ(Allocate(1), nullptr);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps(spans));
  // Every second one: nothing to join.
  for (size_t i = 0; i < spans.size(); i += 2) Free(spans[i]);
  EXPECT_EQ(Allocate(4), nullptr);
  Span* const lowest = Allocate(2);
  ASSERT_NE(lowest, nullptr);
  EXPECT_EQ(lowest->start, 1u);
  Free(lowest);
  for (size_t i = 1; i < spans.size(); i += 2) Free(spans[i]);
  Span* const all = Allocate(255);
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(Allocate(1), nullptr);
  Free(all);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({}));
}

TEST_F(ArenaTest, RunsAreAlignedAsAskedAlsoBeyondTheArenasOwnAlignment) {
  Make(1024 * kMiB, kMiB);
  std::mt19937 random(7);
  std::vector<Span*> live;
  for (int round = 0; round < 20; ++round) {
    for (size_t alignment = 1; alignment <= 128 * kMiB; alignment *= 4) {
      const uint32_t granules = 1 + random() % 40;
      Span* const span = Allocate(granules, alignment);
      ASSERT_NE(span, nullptr) << alignment;
      ASSERT_EQ(reinterpret_cast<uintptr_t>(Start(span)) % alignment, 0u)
          << alignment;
      live.push_back(span);
    }
    ASSERT_NO_FATAL_FAILURE(ExpectMaps(live));
    std::shuffle(live.begin(), live.end(), random);
    while (live.size() > 10) {
      Free(live.back());
      live.pop_back();
    }
  }
}

// So that they begin at few places; small slabs fill the gaps.
TEST_F(ArenaTest, SlabsOfLargeBlocksAreSpacedWhereThereIsRoom) {
  constexpr SizeClass kOfLarge = kLastL2Class + 1;
  Make(1024 * kMiB, kMiB);
  Free(Allocate(8 * RunTree::kSpacing));
  std::vector<Span*> spans;
  for (uint32_t i = 1; i < 8; ++i) {
    spans.push_back(Allocate(5, kGranuleSize, kOfLarge));
    EXPECT_EQ(spans.back()->start, i * RunTree::kSpacing);
    spans.push_back(Allocate(2, kGranuleSize, kLastL2Class));
    EXPECT_EQ(spans.back()->start, 2 * i - 1);
  }
  // A twin's, and a large block.
  spans.push_back(Allocate(5, kGranuleSize, TwinOf(kOfLarge)));
  EXPECT_EQ(spans.back()->start % RunTree::kSpacing, 0u);
  spans.push_back(Allocate(3));
  EXPECT_EQ(spans.back()->start, RunTree::kSpacing + 5);
  // Anywhere rather than beyond what is accessible.
  const size_t committed = arena_->GetStats().committed_bytes;
  size_t gaps = 0;
  while (true) {
    Span* const span = Allocate(11, kGranuleSize, kOfLarge);
    if (arena_->GetStats().committed_bytes != committed) {
      Free(span);
      break;
    }
    gaps += span->start % RunTree::kSpacing != 0 ? 1 : 0;
    spans.push_back(span);
  }
  EXPECT_GE(gaps, 6u);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps(spans));
  for (Span* const span : spans) Free(span);
}

// Places would have what the largest slab that was there has touched.
TEST_F(ArenaTest, SlabsOfLargeBlocksThatAreUsedAreNotSpaced) {
  constexpr SizeClass kOfLarge = kLastL2Class + 3;  // no other test's
  Make(1024 * kMiB, kMiB);
  Free(Allocate(8 * RunTree::kSpacing));
  const auto distance = [this] {
    Span* const first = Allocate(5, kGranuleSize, kOfLarge);
    Span* const second = Allocate(5, kGranuleSize, TwinOf(kOfLarge));
    const uint32_t result = second->start - first->start;
    Free(second);
    Free(first);
    return result;
  };
  EXPECT_EQ(distance(), RunTree::kSpacing) << "nothing is known";
  SlabUse::Of(kOfLarge).NoteResident(7, 10);
  EXPECT_EQ(distance(), RunTree::kSpacing);
  SlabUse::Of(kOfLarge).NoteResident(8, 10);
  EXPECT_EQ(distance(), 5u);
}

TEST_F(ArenaTest, AnArenaThatIsSmallIsFilledWhole) {
  Make(16 * kMiB, kMiB);
  std::vector<Span*> spans;
  while (Span* const span = Allocate(3, kGranuleSize, kLastL25Class)) {
    spans.push_back(span);
  }
  EXPECT_EQ(spans.size(), 85u);
  for (Span* const span : spans) Free(span);
}

TEST_F(ArenaTest, WhatNoArenaCanHoldIsRefused) {
  Make(16 * kMiB, kMiB);
  Span* const span = Allocate(1);
  for (int bit = 25; bit < 63; ++bit) {
    EXPECT_EQ(Allocate(1, size_t{1} << bit), nullptr) << "aligned to 2^" << bit;
    EXPECT_EQ(Allocate((uint32_t{1} << 31) - 1, size_t{1} << bit), nullptr)
        << "aligned to 2^" << bit;
  }
  for (int bit = 8; bit < 32; ++bit) {
    EXPECT_EQ(Allocate(uint32_t{1} << bit), nullptr) << "2^" << bit;
    EXPECT_EQ(Allocate((uint32_t{1} << bit) - 1, 2 * kMiB), nullptr)
        << "2^" << bit;
    EXPECT_FALSE(arena_->ResizeRun(span, uint32_t{1} << bit));
  }
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span}));
}

TEST_F(ArenaTest, ResizesInPlace) {
  Make(16 * kMiB, 64 * kMiB);
  Span* const span = Allocate(4);
  Span* const next = Allocate(4);
  ASSERT_EQ(next->start, span->start + 4);
  Fill(span, 'x');
  EXPECT_FALSE(arena_->ResizeRun(span, 5)) << "the neighbour is in the way";
  EXPECT_EQ(span->granules, 4u);
  EXPECT_TRUE(arena_->ResizeRun(span, 2));
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span, next}));
  EXPECT_FALSE(arena_->ResizeRun(span, 5));
  EXPECT_TRUE(arena_->ResizeRun(span, 3));
  EXPECT_TRUE(arena_->ResizeRun(span, 3));
  EXPECT_TRUE(arena_->ResizeRun(span, 4));
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span, next}));
  EXPECT_EQ(Start(span)[0], 'x');
  Free(next);
  EXPECT_TRUE(arena_->ResizeRun(span, 8));
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span}));
  // A cut-off end is dirty: whoever gets it is told.
  Fill(span, 'y');
  EXPECT_TRUE(arena_->ResizeRun(span, 1));
  bool zeroed = true;
  Span* const tail = Allocate(3, kGranuleSize, kNoClass, &zeroed);
  EXPECT_EQ(tail->start, span->start + 1);
  EXPECT_FALSE(zeroed);
}

// The last run of all takes from what is not accessible yet, so that a buffer
// which grows at the end of the heap never moves.
TEST_F(ArenaTest, TheLastRunGrowsByTheEndOfTheArena) {
  Make(64 * kMiB, 64 * kMiB);
  Span* const span = Allocate(4);
  Fill(span, 'x');
  uint32_t granules = 4;
  while (granules * 2 * kGranuleSize < 60 * kMiB) {
    granules *= 2;
    ASSERT_TRUE(arena_->ResizeRun(span, granules)) << granules;
    ASSERT_EQ(span->granules, granules);
    ASSERT_NO_FATAL_FAILURE(ExpectMaps({span}));
    ASSERT_EQ(Start(span)[granules * kGranuleSize - 1], 0);
  }
  EXPECT_EQ(Start(span)[4 * kGranuleSize - 1], 'x');
  EXPECT_FALSE(arena_->ResizeRun(span, 64 * kMiB / kGranuleSize));
  EXPECT_EQ(span->granules, granules);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span}));
  // To the very last granule; the first of all is in no run.
  EXPECT_TRUE(arena_->ResizeRun(span, 64 * kMiB / kGranuleSize - 1));
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span}));
}

TEST_F(ArenaTest, PurgeGivesPagesBackAndMakesThemZero) {
  Make(64 * kMiB, 64 * kMiB);
  bool zeroed = false;
  Span* span = Allocate(100, kGranuleSize, kNoClass, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(ResidentPages(span), 0u);
  Fill(span, 'z');
  EXPECT_EQ(ResidentPages(span), 100 * kGranulePages);
  EXPECT_EQ(arena_->Purge(0), 0u) << "live memory is not purged";

  Free(span);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 100 * kGranuleSize);
  span = Allocate(100, kGranuleSize, kNoClass, &zeroed);
  EXPECT_FALSE(zeroed);
  EXPECT_EQ(ResidentPages(span), 100 * kGranulePages)
      << "memory was given away within the bound";

  Free(span);
  EXPECT_EQ(arena_->Purge(30 * kGranuleSize), 70 * kGranuleSize);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 30 * kGranuleSize);
  EXPECT_EQ(arena_->Purge(30 * kGranuleSize), 0u);
  span = Allocate(100, kGranuleSize, kNoClass, &zeroed);
  EXPECT_FALSE(zeroed);
  EXPECT_EQ(ResidentPages(span), 30 * kGranulePages);

  Free(span);
  EXPECT_EQ(arena_->Purge(0), 100 * kGranuleSize);
  span = Allocate(100, kGranuleSize, kNoClass, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(ResidentPages(span), 0u);
  EXPECT_TRUE(ReadsAsZero(span));
}

TEST_F(ArenaTest, FreeMemoryBeyondTheBoundGoesAtOnce) {
  Make(64 * kMiB, kMiB);
  Span* const large = Allocate(400);
  Fill(large, 'b');
  const uint32_t start = large->start;
  Free(large);
  EXPECT_LE(arena_->GetStats().dirty_bytes, kMiB);
  EXPECT_GT(arena_->GetStats().dirty_bytes, 0u);
  Span* const again = Allocate(400);
  ASSERT_EQ(again->start, start);
  EXPECT_LE(ResidentPages(again) * os::kPageSize, kMiB);
}

TEST_F(ArenaTest, TheBoundFollowsWhatIsLive) {
  Make(128 * kMiB, kMiB);
  std::mt19937 random(5);
  std::vector<Span*> spans;
  while (arena_->live_bytes() < 100 * kMiB) {
    spans.push_back(Allocate(1 + random() % 20));
    Fill(spans.back(), 'l');
  }
  std::shuffle(spans.begin(), spans.end(), random);
  for (Span* const span : spans) {
    Free(span);
    ASSERT_LE(arena_->GetStats().dirty_bytes,
              arena_->live_bytes() / 128 + kMiB);
  }
  EXPECT_GT(arena_->GetStats().dirty_bytes, 0u);
}

TEST_F(ArenaTest, WhatNobodyWantsForAWhileGoes) {
  // What passes here is the time that it is told.
  MakeWithDecay(16 * kMiB);
  Span* const span = Allocate(100);
  Fill(span, 'd');
  Free(span);
  const size_t dirty = 100 * kGranuleSize;
  int64_t now = os::CoarseMilliseconds() + kDecay;
  arena_->Decay(now);  // ends a window in which it was not free all the time
  if (arena_->GetStats().dirty_bytes == 0) {
    Span* const again = Allocate(100);
    Fill(again, 'd');
    Free(again);
  }
  // Half of it is wanted, so only the other half is there all the time.
  Free(Allocate(50));
  EXPECT_EQ(arena_->Decay(now + kDecay / 2), 0u) << "too early";
  now += kDecay;
  const size_t first = arena_->Decay(now);
  EXPECT_LE(first, dirty / 2);
  now += kDecay;
  EXPECT_EQ(arena_->Decay(now), dirty - first);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 0u);
}

// Slabs come with pages that are not there any more.
TEST_F(ArenaTest, PagesThatWentBeforeDoNotCountAsFree) {
  MakeWithDecay(kMiB);
  Span* span = Allocate(400, kGranuleSize, 7);
  arena_->FreeSpan(span, Metadata::kUnit, 390 * kGranulePages,
                   40 * kGranulePages);
  EXPECT_EQ(arena_->GetStats().purged_bytes, 0u) << "10 granules of 16";

  // Every other run gets its share of them.
  RunPages pages = {.missed = 1, .dense = 1};
  span = NewSpan(7);
  ASSERT_TRUE(arena_->AllocateRun(span, 100, kGranuleSize, nullptr, &pages));
  EXPECT_EQ(pages.missed, 10 * kGranulePages);
  Free(span);
  EXPECT_GT(arena_->GetStats().purged_bytes, 0u) << "100 and 7 of 16";

  // None is left over at the end.
  arena_->Purge(0);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 0u);
  span = NewSpan(7);
  ASSERT_TRUE(arena_->AllocateRun(span, 400, kGranuleSize, nullptr, &pages));
  EXPECT_EQ(pages.missed, 0u);
  Free(span);
}

TEST_F(ArenaTest, SaysHowMuchOfARunMayBeThere) {
  MakeWithDecay(4 * kMiB);
  const auto dense = [this](uint32_t granules) {
    RunPages pages;
    Span* const span = NewSpan(7);
    EXPECT_TRUE(
        arena_->AllocateRun(span, granules, kGranuleSize, nullptr, &pages));
    arena_->FreeSpan(span, Metadata::kUnit, granules * kGranulePages);
    return pages.dense;
  };
  EXPECT_EQ(dense(4), 0u) << "not used yet";
  // One of which less than half went, then one of which half did.
  Span* first = Allocate(4, kGranuleSize, 7);
  Span* second = Allocate(4, kGranuleSize, 7);
  arena_->FreeSpan(first, Metadata::kUnit, 2 * kGranulePages - 1);
  arena_->FreeSpan(second, Metadata::kUnit, 2 * kGranulePages);
  EXPECT_EQ(dense(3), 3u);
  EXPECT_EQ(dense(3), 0u) << "that goes with nothing there";
  EXPECT_EQ(dense(8), 1u);
  // Nobody knows of large blocks, nor of what is cut off from them.
  first = Allocate(4);
  arena_->ResizeRun(first, 3);
  EXPECT_EQ(arena_->FreeLarge(Start(first)), first);
  EXPECT_EQ(dense(8), 4u);
  // Nothing is there of what was purged.
  Free(Allocate(4));
  arena_->Purge(0);
  EXPECT_EQ(dense(4), 0u);
  EXPECT_EQ(dense(4), 0u) << "nor later";
  arena_->FreeMetadata(first, Metadata::kUnit);
}

TEST_F(ArenaTest, NothingGoesByItselfWithPurgingOff) {
  purge_ = "0";
  Make(64 * kMiB, 0);
  Span* const span = Allocate(300);
  Fill(span, 'p');
  Free(span);
  EXPECT_EQ(hak_observed.parts[0].large_bytes, 0u);
  EXPECT_EQ(hak_observed.parts[0].free_dirty_bytes, 300 * kGranuleSize);
  EXPECT_EQ(arena_->Decay(os::CoarseMilliseconds() + 100000), 0u);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 300 * kGranuleSize);
  EXPECT_EQ(arena_->Purge(0), 300 * kGranuleSize);
}

TEST_F(ArenaTest, LaterWhatIsFreeStaysUntilNobodyWantedIt) {
  purge_ = "later";
  MakeWithDecay(0);
  int64_t now = os::CoarseMilliseconds() + kDecay * 20;
  EXPECT_EQ(arena_->Decay(now), 0u);
  Free(Allocate(400));
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 400 * kGranuleSize);
  now += 10 * kDecay;
  EXPECT_EQ(arena_->Decay(now), 0u) << "it has not been free for so long";
  Span* const wanted = Allocate(300);
  Free(wanted);
  EXPECT_EQ(arena_->Decay(now + 10 * kDecay - 1), 0u);
  now += 10 * kDecay;
  EXPECT_EQ(arena_->Decay(now), 100 * kGranuleSize)
      << "the 300 were wanted meanwhile";
  EXPECT_EQ(arena_->Decay(now + 10 * kDecay), 300 * kGranuleSize);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 0u);
}

TEST_F(ArenaTest, LaterWhatIsHardlyThereGoesSooner) {
  purge_ = "later";
  MakeWithDecay(0);
  const int64_t now = os::CoarseMilliseconds() + kDecay * 20;
  EXPECT_EQ(arena_->Decay(now), 0u);
  arena_->FreeSpan(Allocate(400, kGranuleSize, 7), Metadata::kUnit,
                   390 * kGranulePages, 40 * kGranulePages);
  EXPECT_EQ(arena_->Decay(now + kDecay), 0u);
  EXPECT_EQ(arena_->Decay(now + 2 * kDecay), 400 * kGranuleSize);
}

// After how many HAKMEM_DECAY_MS memory goes that nobody wanted.
TEST_F(ArenaTest, UnwantedMemoryGoesByWhatThatCosts) {
  const auto periods = [this](bool sparse) {
    Retention retention;
    int64_t now = 100 * kDecay;
    EXPECT_EQ(arena_->Unwanted(retention, 7, sparse, now), 0u);
    int64_t passed = 0;
    for (size_t unwanted = 0; unwanted == 0; ++passed) {
      EXPECT_EQ(arena_->Unwanted(retention, 7, sparse, now + kDecay - 1), 0u);
      now += kDecay;
      unwanted = arena_->Unwanted(retention, 7, sparse, now);
      EXPECT_TRUE(unwanted == 0 || unwanted == 7);
    }
    return passed;
  };
  for (const char* const purge : {"1", "later", "auto"}) {
    for (const bool much : {false, true}) {
      for (const bool pressed : {false, true}) {
        purge_ = purge;
        MakeWithDecay(0);
        arena_->NotePurgeCost(much ? 10000 : 1000);
        arena_->SetPressed(pressed);
        const bool later = arena_->options().purge == kPurgeLater ||
                           (arena_->options().purge == kPurgeByCost && much);
        EXPECT_EQ(periods(false), later && !pressed ? 10 : 1);
        EXPECT_EQ(periods(true), 1);
      }
    }
  }
}

TEST_F(ArenaTest, NearALimitLaterIsAtOnce) {
  purge_ = "later";
  MakeWithDecay(0);
  arena_->SetPressed(true);
  Free(Allocate(400));
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 0u);
}

TEST_F(ArenaTest, ByDefaultItsCostSaysWhenMemoryGoes) {
  purge_ = "auto";
  for (const bool much : {false, true}) {
    MakeWithDecay(0);
    EXPECT_EQ(arena_->options().purge, Options().purge);
    arena_->NotePurgeCost(much ? 10000 : 1000);
    Free(Allocate(400));
    EXPECT_EQ(arena_->GetStats().dirty_bytes, much ? 400 * kGranuleSize : 0);
  }
}

TEST_F(ArenaTest, ItsCostIsFoundOutWhereItMatters) {
  EXPECT_GT(os::PurgeNanoseconds(), 0);
  for (const char* const purge : {"0", "1", "later", "auto"}) {
    purge_ = purge;
    Make(64 * kMiB, 0);
    EXPECT_EQ(arena_->purge_cost(), Arena::PurgeCost::kNotKnown);
    Free(Allocate(400));
    EXPECT_EQ(arena_->purge_cost() != Arena::PurgeCost::kNotKnown,
              arena_->options().purge == kPurgeByCost)
        << purge;
  }
  // Also where there is never too much, once some of it is to go.
  purge_ = "auto";
  MakeWithDecay(64 * kMiB);
  int64_t now = os::CoarseMilliseconds() + kDecay * 20;
  arena_->Decay(now);
  Free(Allocate(400));
  arena_->Decay(now += kDecay);
  EXPECT_EQ(arena_->purge_cost(), Arena::PurgeCost::kNotKnown);
  const size_t gone = arena_->Decay(now += kDecay);
  ASSERT_NE(arena_->purge_cost(), Arena::PurgeCost::kNotKnown);
  const bool much = arena_->purge_cost() == Arena::PurgeCost::kMuch;
  EXPECT_EQ(gone, much ? 0 : 400 * kGranuleSize);
  now += 10 * kDecay;
  EXPECT_EQ(arena_->Decay(now), much ? 400 * kGranuleSize : 0);
}

TEST_F(ArenaTest, ResidencyIsWhatWasTouched) {
  Make(64 * kMiB, 16 * kMiB);
  Span* const large = Allocate(10);
  Span* const slab = Allocate(10, kGranuleSize, 7);
  Fill(slab, 's');
  Start(large)[5 * os::kPageSize] = 1;
  const Arena::Residency residency = arena_->GetResidency();
  EXPECT_EQ(residency.slabs, 10 * kGranuleSize);
  EXPECT_EQ(residency.large, os::kPageSize);
  EXPECT_EQ(residency.free, 0u);
  EXPECT_GT(residency.tables, 0u);
  Free(slab);
  EXPECT_EQ(arena_->GetResidency().slabs, 0u);
  EXPECT_EQ(arena_->GetResidency().free, 10 * kGranuleSize);
  Free(large);
}

// The same again and again is not to cost fresh pages each time.
TEST_F(ArenaTest, WhatIsWantedBackMayStayTheNextTime) {
  MakeWithDecay(kMiB);
  Span* span = Allocate(400);
  Fill(span, '1');
  Free(span);
  EXPECT_LE(arena_->GetStats().dirty_bytes, kMiB);
  span = Allocate(400);
  Fill(span, '2');
  // Half of the memory of it is forgotten with each second that passes.
  Free(span);
  EXPECT_GT(arena_->GetStats().dirty_bytes, 4 * kMiB);
}

// Memory that slabs of other classes want back while the program has as much as
// before is free in another place then.
TEST_F(ArenaTest, NoMoreStaysWhereDemandIsSteady) {
  constexpr SizeClass kClass = 1;
  constexpr int64_t kBytes = 400 * int64_t{kGranuleSize};
  MakeWithDecay(kMiB);
  const auto replace = [this](int64_t change) {
    for (int i = 0; i < 2; ++i) {
      Span* const span = Allocate(400, kGranuleSize, kClass);
      Fill(span, 's');
      arena_->demand().Add(0, change);
      arena_->demand().Note(arena_->decay_period(), os::CoarseMilliseconds());
      arena_->demand().Add(0, -change);
      Free(span);
    }
    return arena_->GetStats().dirty_bytes;
  };
  arena_->demand().Add(0, kBytes);
  EXPECT_LE(replace(0), kMiB + kBytes / 128);
  EXPECT_GT(replace(kBytes), 4 * kMiB) << "where it goes up and down";
}

// Slabs are more than their blocks.
TEST_F(ArenaTest, WhatSlabsAreMoreThanTheirBlocksMayStayToo) {
  constexpr SizeClass kClass = 1;
  constexpr size_t kSlabs = 100;
  constexpr uint32_t kGranules = 4;
  constexpr auto kBytes =
      static_cast<int64_t>(kSlabs * kGranules * kGranuleSize);
  MakeWithDecay(kMiB);
  arena_->regretted() = 2 * kBytes;
  // What goes where blocks are `percent` of their slabs.
  const auto purged = [this](int64_t percent) {
    const int64_t blocks = kBytes / 100 * percent;
    const size_t before = arena_->GetStats().purged_bytes;
    std::vector<Span*> slabs(kSlabs);
    arena_->demand().Add(0, blocks);
    arena_->demand().Note(arena_->decay_period(), os::CoarseMilliseconds());
    for (Span*& slab : slabs) {
      slab = Allocate(kGranules, kGranuleSize, kClass);
      Fill(slab, 's');
    }
    arena_->demand().Add(0, -blocks);
    for (Span* const slab : slabs) Free(slab);
    return arena_->GetStats().purged_bytes - before;
  };
  EXPECT_GT(purged(60), 0u) << "but not all, whatever they are";
  EXPECT_EQ(purged(85), 0u);
}

// What slabs wanted back of their pages may stay as free runs as well: who has
// it first when demand falls depends on how the blocks lie.
TEST_F(ArenaTest, WhatThePoolsWantBackMayStayHere) {
  constexpr SizeClass kClass = 1;
  MakeWithDecay(kMiB);
  arena_->regretted() = 5 * kMiB;
  const auto drop = [this](uint32_t granules) {
    const auto bytes = static_cast<int64_t>(granules * kGranuleSize);
    Span* const span = Allocate(granules, kGranuleSize, kClass);
    Fill(span, 'd');
    arena_->demand().Add(0, bytes);
    arena_->demand().Note(arena_->decay_period(), os::CoarseMilliseconds());
    arena_->demand().Add(0, -bytes);
    Free(span);
    return arena_->GetStats().dirty_bytes;
  };
  EXPECT_EQ(drop(30), 30 * kGranuleSize) << "beyond the plain bound";
  const size_t dirty = drop(400);
  EXPECT_GT(dirty, 5 * kMiB);
  EXPECT_LE(dirty, 6 * kMiB);
}

// Buffers of ever other sizes need free memory in many places: what they wanted
// back stays while they come and go, whatever the time.
TEST_F(ArenaTest, WhatLargeBlocksWantBackStaysWhileTheyComeAndGo) {
  setenv("HAKMEM_DECAY_MS", "200", 1);
  Make(256 * kMiB, kMiB);
  unsetenv("HAKMEM_DECAY_MS");
  Span* const kept = Allocate(1600);
  Free(Allocate(800));
  EXPECT_LE(arena_->GetStats().dirty_bytes, 8 * kMiB);
  Free(Allocate(800));
  const auto run = [](const auto& step) {
    const int64_t end = os::CoarseMilliseconds() + 500;
    while (os::CoarseMilliseconds() < end) step();
  };
  run([this] { Free(Allocate(10)); });
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 800 * kGranuleSize);
  run([this] { arena_->Decay(os::CoarseMilliseconds()); });
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 0u) << "they are gone";
  Free(kept);
}

// What went long ago would not be there whatever the bound.
TEST_F(ArenaTest, WhatIsWantedBackLateMayNotStay) {
  MakeWithDecay(kMiB);
  Span* span = Allocate(400);
  Fill(span, '1');
  Free(span);
  // The first purges the rest, or the second where the system has not been up
  // for as long as kDecay; the third comes long after that.
  for (int i = 1; i <= 3; ++i) {
    arena_->Decay(os::CoarseMilliseconds() + 2 * i * kDecay);
  }
  span = Allocate(400);
  Fill(span, '2');
  Free(span);
  EXPECT_LE(arena_->GetStats().dirty_bytes, 2 * kMiB);
}

// It counts once, in the period in which it went and in the next, whatever the
// number of that.
TEST_F(ArenaTest, WhatLatelyWentIsWantedBackOnce) {
  for (const int64_t later : {0, 1}) {
    MakeWithDecay(64 * kMiB);
    Span* const spans[] = {Allocate(100), Allocate(100), Allocate(100)};
    const auto wants_back = [this] {
      arena_->large_regretted() = 0;
      Span* const span = Allocate(100);
      Fill(span, 'w');
      return std::pair(span, arena_->large_regretted() != 0);
    };
    int64_t now = os::CoarseMilliseconds() + later * kDecay;
    for (Span* const span : spans) {
      arena_->Decay(now += kDecay);
      Fill(span, '1');
      Free(span);
      arena_->Purge(0);
    }
    EXPECT_FALSE(wants_back().second);
    EXPECT_TRUE(wants_back().second);
    const auto [last, wants_last] = wants_back();
    EXPECT_TRUE(wants_last);
    Allocate(300);  // what is remembered is at most what large blocks have
    Free(last);
    EXPECT_FALSE(wants_back().second) << "it has not gone again";
  }
}

TEST_F(ArenaTest, FreeLargeTakesNothingButTheStartOfALargeBlock) {
  Make(16 * kMiB, kMiB);
  Span* const large = Allocate(3);
  Span* const slab = Allocate(3, kGranuleSize, 7);
  char* const block = Start(large);
  EXPECT_EQ(arena_->FreeLarge(block + 16), nullptr);
  EXPECT_EQ(arena_->FreeLarge(block + kGranuleSize), nullptr);
  EXPECT_EQ(arena_->FreeLarge(Start(slab)), nullptr);
  EXPECT_EQ(arena_->FreeLarge(arena_->AddressOf(0)), nullptr);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({large, slab}));
  EXPECT_EQ(arena_->FreeLarge(block), large);
  EXPECT_EQ(arena_->FreeLarge(block), nullptr);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({slab}));
}

// Who goes on where a span began may find that in the midst of a free run.
TEST_F(ArenaTest, ASpanComesAndGoesWithItsRun) {
  Make(4 * kMiB, kMiB);
  constexpr size_t kBytes = 2 * Metadata::kUnit;
  RunPages pages = {.missed = 1, .dense = 1};
  bool zeroed = false;
  Span* const span = arena_->AllocateSpan(kSlab, kBytes, 3, &zeroed, &pages);
  ASSERT_NE(span, nullptr);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(pages.missed, 0u);
  EXPECT_EQ(pages.dense, 0u);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span}));
  Fill(span, 's');
  // What there is no room for leaves nothing behind.
  EXPECT_EQ(arena_->AllocateSpan(kSlab, kBytes, 61, nullptr), nullptr);
  EXPECT_EQ(arena_->AllocateSpan(kSlab, kBytes, 1000, nullptr), nullptr);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({span}));
  EXPECT_EQ(arena_->metadata_bytes(), kBytes);
  arena_->FreeSpan(span, kBytes);
  EXPECT_EQ(arena_->metadata_bytes(), 0u);
  Span* const again = arena_->AllocateSpan(kSlab, kBytes, 63, &zeroed);
  ASSERT_NE(again, nullptr);
  EXPECT_FALSE(zeroed);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({again}));
  // A span that is to stay does.
  arena_->FreeSpan(again, 0);
  EXPECT_EQ(arena_->metadata_bytes(), kBytes);
  EXPECT_EQ(again->size_class, 7u);
  arena_->FreeMetadata(again, kBytes);
  EXPECT_EQ(arena_->metadata_bytes(), 0u);
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({}));
}

TEST_F(ArenaTest, SpansAreFoundFromTheMidstOfAFreeRun) {
  Make(64 * kMiB, kMiB);
  Span* const first = Allocate(1);
  Span* const gone = Allocate(2, 2 * kMiB);
  Span* const last = Allocate(3, 4 * kMiB);
  const uint32_t middle = gone->start;
  Free(gone);
  const auto spans_from = [this](uint32_t from) {
    std::vector<Span*> seen;
    arena_->ForEachSpan(
        from, 1000,
        [](void* context, Span* span) {
          static_cast<std::vector<Span*>*>(context)->push_back(span);
        },
        &seen);
    return seen;
  };
  EXPECT_EQ(spans_from(0), (std::vector<Span*>{first, last}));
  EXPECT_EQ(spans_from(middle), std::vector<Span*>{last});
  EXPECT_EQ(spans_from(middle + 1), std::vector<Span*>{last});
  EXPECT_EQ(spans_from(last->start + 1), std::vector<Span*>{});
}

TEST_F(ArenaTest, ThreadsGetRunsOfTheirOwn) {
  Make(128 * kMiB, kMiB);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      std::vector<Span*> live;
      // The first and last word of each granule, the cheapest pattern that
      // finds two owners.
      const auto each_word = [this](const Span* span, auto fn) {
        for (uint32_t g = 0; g < span->granules; ++g) {
          auto* const words =
              reinterpret_cast<uint64_t*>(arena_->AddressOf(span->start + g));
          fn(words[0]);
          fn(words[kGranuleSize / 8 - 1]);
        }
      };
      const auto mark = [&each_word, t](const Span* span) {
        each_word(span,
                  [t](uint64_t& word) { word = static_cast<uint64_t>(t + 1); });
      };
      for (int step = 0; step < 500; ++step) {
        if (live.size() < 20 && random() % 3 != 0) {
          bool zeroed = false;
          Span* const span =
              Allocate(1 + random() % 5, kGranuleSize,
                       random() % 2 == 0 ? kNoClass : t + 1, &zeroed);
          ASSERT_NE(span, nullptr);
          if (zeroed) {
            each_word(span, [](uint64_t& word) { ASSERT_EQ(word, 0u); });
          }
          mark(span);
          live.push_back(span);
        } else if (!live.empty()) {
          std::swap(live[random() % live.size()], live.back());
          Span* const span = live.back();
          each_word(span, [t](uint64_t& word) {
            ASSERT_EQ(word, static_cast<uint64_t>(t + 1));
          });
          if (random() % 4 == 0 && arena_->ResizeRun(span, 1 + random() % 8)) {
            mark(span);
          } else {
            Free(span);
            live.pop_back();
          }
        }
        if (step % 100 == 0) arena_->Purge(kMiB);
      }
      for (Span* const span : live) Free(span);
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_NO_FATAL_FAILURE(ExpectMaps({}));
  ASSERT_NE(Allocate(2000), nullptr) << "the free runs did not join";
}

// Ends with status 0 when an arena of 1 GiB was asked for and what the limit
// on address space allows was got.
[[noreturn]] void ReserveUnderLimit(size_t limit_bytes, bool expected) {
  setenv("HAKMEM_ARENA_BYTES", "1G", 1);
  const struct rlimit limit = {limit_bytes, limit_bytes};
  Arena arena;
  if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(3);
  if (arena.EnsureReady() != expected) _exit(2);
  Span span{};
  if (arena.AllocateRun(&span, 1, 1, nullptr) != expected) _exit(4);
  const size_t reserved = arena.GetStats().reserved_bytes;
  _exit(expected == (reserved >= 4 * kMiB) && reserved <= limit_bytes / 2 ? 0
                                                                          : 1);
}

TEST(ArenaDeathTest, ReservesWhatALimitOnAddressSpaceLeaves) {
  if (kSanitized) GTEST_SKIP() << "shadow memory is far beyond the limit";
  EXPECT_EXIT(ReserveUnderLimit(300 * kMiB, true), testing::ExitedWithCode(0),
              "");
  // Less than the program has already.
  EXPECT_EXIT(ReserveUnderLimit(kMiB, false), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace hakmem
