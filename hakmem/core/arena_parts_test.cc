// The arena in several parts.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <latch>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "gtest/gtest.h"
#include "hakmem/core/arena_test.h"
#include "hakmem/core/observed.h"

namespace hakmem {
namespace {

constexpr size_t kGiB = size_t{1} << 30;

class ArenaPartsTest : public ArenaTest {
 protected:
  static constexpr uint32_t kParts = 4;
  // The least that a part has.
  static constexpr size_t kPartBytes = 4 * kGiB;
  static constexpr uint32_t kPartGranules = kPartBytes / kGranuleSize;

  void MakeParts(size_t retain_bytes = kMiB, uint32_t parts = kParts) {
    setenv("HAKMEM_ARENA_PARTS", std::to_string(parts).c_str(), 1);
    Make(parts * kPartBytes, retain_bytes);
    unsetenv("HAKMEM_ARENA_PARTS");
    ASSERT_EQ(arena_->parts(), parts);
    ASSERT_EQ(arena_->parts_in_use(), 1u);
  }

  // Likewise, with kDecay for HAKMEM_DECAY_MS.
  void MakePartsWithDecay(size_t retain_bytes = kMiB) {
    setenv("HAKMEM_DECAY_MS", std::to_string(kDecay).c_str(), 1);
    MakeParts(retain_bytes);
    unsetenv("HAKMEM_DECAY_MS");
  }

  // Calls fn() on a thread of its own.
  template <typename Fn>
  static void OnThread(Fn fn) {
    std::thread(fn).join();
  }

  // Lets a thread that is new wait for the lock of its part, so many times.
  void Wait(uint32_t times) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    std::atomic<uint32_t> begun = 0;
    std::atomic<uint32_t> done = 0;
    std::thread waiter([&] {
      for (uint32_t i = 0; i < times; ++i) {
        while (begun == i) std::this_thread::yield();
        Free(Allocate(1));
        ++done;
      }
    });
    for (uint32_t i = 0; i < times; ++i) {
      std::vector<uint32_t> before;
      for (uint32_t part = 0; part < arena_->parts_in_use(); ++part) {
        before.push_back(arena_->part(part).waits());
        arena_->part(part).mutex().Lock();
      }
      const auto waits = [this, &before] {
        for (uint32_t part = 0; part < before.size(); ++part) {
          if (arena_->part(part).waits() != before[part]) return true;
        }
        return false;
      };
      ++begun;
      while (!waits()) std::this_thread::yield();
      for (uint32_t part = 0; part < before.size(); ++part) {
        arena_->part(part).mutex().Unlock();
      }
      while (done == i) std::this_thread::yield();
    }
    waiter.join();
  }

  uint32_t WaitsInAll() {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < kParts; ++i) sum += arena_->part(i).waits();
    return sum;
  }

  void WaitUntilInUse(uint32_t parts) {
    while (arena_->parts_in_use() < parts) Wait(ArenaPart::kManyWaits);
  }

  // What needs more than any part has room for is looked for in all of them.
  // Nothing becomes accessible by that, which takes Helgrind seconds for a GiB.
  void UseAllParts() {
    EXPECT_EQ(Allocate(1, kPartBytes), nullptr);
    EXPECT_EQ(arena_->parts_in_use(), kParts);
  }

  // How far parts are from where they were is told when it goes on.
  static void WaitForTheClock() {
    const int64_t now = os::CoarseMilliseconds();
    while (os::CoarseMilliseconds() == now) {
    }
  }

  // A run of every part, by its number, from threads.
  std::vector<Span*> OneOfEach(uint32_t granules,
                               SizeClass size_class = kNoClass) {
    std::vector<Span*> spans(kParts);
    while (std::count(spans.begin(), spans.end(), nullptr) != 0) {
      OnThread([&] {
        Span* const span = Allocate(granules, kGranuleSize, size_class);
        ASSERT_NE(span, nullptr);
        Span*& known = spans[PartOf(span)];
        if (known == nullptr) {
          known = span;
        } else {
          Free(span);
        }
      });
    }
    return spans;
  }

  uint32_t PartOf(const Span* span) const {
    return span->start / kPartGranules;
  }

  uint32_t PartOfPiece(const void* piece) const {
    const size_t share = arena_->maps().metadata_bytes / arena_->parts();
    return static_cast<uint32_t>(size_t{arena_->IndexOf(piece)} *
                                 Metadata::kUnit / share);
  }

  // That these are all the spans that there are, as the maps have them.
  void ExpectSpans(std::vector<Span*> live) {
    std::sort(live.begin(), live.end(),
              [](auto* a, auto* b) { return a->start < b->start; });
    std::vector<Span*> seen;
    uint32_t granule = 0;
    do {
      granule = arena_->ForEachSpan(
          granule, 50,
          [](void* context, Span* span) {
            static_cast<std::vector<Span*>*>(context)->push_back(span);
          },
          &seen);
    } while (granule != 0);
    ASSERT_EQ(seen, live);
    size_t slab_bytes = 0;
    size_t large_bytes = 0;
    uint32_t end = 0;
    for (Span* const span : live) {
      ASSERT_LE(end, span->start);
      end = span->start + span->granules;
      ASSERT_EQ(PartOf(span), (end - 1) / kPartGranules);
      for (uint32_t g = span->start; g < end; ++g) {
        ASSERT_EQ(arena_->SpanOf(arena_->AddressOf(g)), span);
        ASSERT_EQ(arena_->ClassOf(arena_->AddressOf(g)), span->size_class);
      }
      (span->kind == Span::Kind::kSlab ? slab_bytes : large_bytes) +=
          span->granules * kGranuleSize;
    }
    const Arena::Stats stats = arena_->GetStats();
    EXPECT_EQ(stats.slab_bytes, slab_bytes);
    EXPECT_EQ(stats.large_bytes, large_bytes);
    EXPECT_EQ(arena_->live_bytes(), slab_bytes + large_bytes);
  }
};

TEST_F(ArenaPartsTest, ThereAreAsManyAsTheArenaHasRoomFor) {
  const auto parts = [this](size_t bytes, const char* asked) {
    setenv("HAKMEM_ARENA_PARTS", asked, 1);
    Make(bytes, kMiB);
    unsetenv("HAKMEM_ARENA_PARTS");
    return arena_->parts();
  };
  EXPECT_EQ(parts(4 * kMiB, "8"), 1u);
  EXPECT_EQ(parts(kPartBytes, "8"), 1u);
  EXPECT_EQ(parts(2 * kPartBytes - kMiB, "8"), 1u);
  EXPECT_EQ(parts(2 * kPartBytes, "8"), 2u);
  EXPECT_EQ(parts(5 * kPartBytes, "8"), 5u);
  EXPECT_EQ(parts(16 * kPartBytes, "8"), 8u);
  EXPECT_EQ(parts(64 * kPartBytes, "16"), Arena::kMostParts);
  EXPECT_EQ(parts(16 * kPartBytes, "3"), 3u);
  EXPECT_EQ(parts(16 * kPartBytes, "1"), 1u);
  EXPECT_EQ(parts(16 * kPartBytes, "0"),
            std::bit_floor(std::min(arena_->processors(), Arena::kMostParts)));
}

TEST_F(ArenaPartsTest, LimitsMeanOne) {
  for (const char* const limit : {"HAKMEM_LIMIT", "HAKMEM_SOFT_LIMIT"}) {
    setenv("HAKMEM_ARENA_PARTS", "4", 1);
    setenv(limit, "1G", 1);
    Make(16 * kPartBytes, kMiB);
    unsetenv("HAKMEM_ARENA_PARTS");
    unsetenv(limit);
    EXPECT_EQ(arena_->parts(), 1u) << limit;
  }
}

// Every granule lies in a part, also where their number is no power of two.
TEST_F(ArenaPartsTest, TheLastHasWhatIsOver) {
  setenv("HAKMEM_ARENA_PARTS", "3", 1);
  Make(4 * kPartBytes + kMiB, kMiB);
  unsetenv("HAKMEM_ARENA_PARTS");
  ASSERT_EQ(arena_->parts(), 3u);
  EXPECT_EQ(arena_->PartOf(0), 0u);
  EXPECT_EQ(arena_->PartOf(kPartGranules - 1), 0u);
  EXPECT_EQ(arena_->PartOf(kPartGranules), 1u);
  EXPECT_EQ(arena_->PartOf(3 * kPartGranules), 2u);
  Span* const longest = Allocate(2 * kPartGranules);
  ASSERT_NE(longest, nullptr);
  EXPECT_EQ(longest->start, 2 * kPartGranules);
  EXPECT_TRUE(arena_->ResizeRun(longest, 2 * kPartGranules + 16));
  EXPECT_FALSE(arena_->ResizeRun(longest, 2 * kPartGranules + 17));
}

TEST_F(ArenaPartsTest, ThreadsBeginInTheFirst) {
  MakeParts();
  for (int i = 0; i < 5; ++i) {
    OnThread([this] { EXPECT_EQ(PartOf(Allocate(1)), 0u); });
  }
  EXPECT_EQ(arena_->parts_in_use(), 1u);
}

TEST_F(ArenaPartsTest, MoreComeIntoUseWhereTheLockIsWaitedForOften) {
  MakeParts();
  for (const uint32_t parts : {2, 4}) {
    const uint32_t before = WaitsInAll();
    WaitUntilInUse(parts);
    EXPECT_EQ(arena_->parts_in_use(), parts);
    EXPECT_GE(WaitsInAll() - before, ArenaPart::kManyWaits);
  }
}

// A program that runs for long has any number of them.
TEST_F(ArenaPartsTest, NoMoreComeIntoUseWhereItIsAtTimes) {
  MakeParts();
  ArenaPart& part = arena_->part(0);
  int64_t period = 0;
  for (uint32_t i = 0; i < ArenaPart::kManyWaits + 10;) {
    const int64_t now = os::CoarseMilliseconds() / ArenaPart::kWaitPeriod;
    if (now == period) {
      std::this_thread::yield();
      continue;
    }
    period = now;
    Wait(ArenaPart::kManyWaits / 8);
    i += ArenaPart::kManyWaits / 8;
  }
  EXPECT_GE(part.waits(), ArenaPart::kManyWaits);
  EXPECT_EQ(arena_->parts_in_use(), 1u);
}

TEST_F(ArenaPartsTest, ThreadsSpreadAndStay) {
  MakeParts();
  UseAllParts();
  std::map<uint32_t, int> threads;
  for (uint32_t i = 0; i < 3 * kParts; ++i) {
    OnThread([&] {
      std::set<uint32_t> seen;
      for (int n = 0; n < 10; ++n) seen.insert(PartOf(Allocate(1)));
      ASSERT_EQ(seen.size(), 1u);
      ++threads[*seen.begin()];
    });
  }
  ASSERT_EQ(threads.size(), kParts);
  for (const auto& [part, count] : threads) EXPECT_EQ(count, 3) << part;
}

TEST_F(ArenaPartsTest, WhatAnotherThreadFreesGoesHome) {
  MakeParts();
  UseAllParts();
  for (int i = 0; i < 8; ++i) {
    OnThread([this] {
      Span* const slab = Allocate(3, kGranuleSize, 7);
      Span* const large = Allocate(5);
      const uint32_t slab_start = slab->start;
      const uint32_t large_start = large->start;
      ExpectSpans({slab, large});
      OnThread([&] {
        Free(slab);
        EXPECT_EQ(arena_->FreeLarge(Start(large)), large);
        EXPECT_EQ(arena_->FreeLarge(Start(large)), nullptr);
      });
      ExpectSpans({});
      // The lowest that there is, in the same part.
      Span* const again = Allocate(8);
      EXPECT_EQ(again->start, slab_start);
      EXPECT_EQ(again->start + 3, large_start);
      Free(again);
    });
  }
}

TEST_F(ArenaPartsTest, WhatOnePartHasNoRoomForComesFromAnother) {
  MakeParts();
  constexpr uint32_t kRun = kPartGranules / 4;
  EXPECT_EQ(Allocate(kPartGranules + 1), nullptr) << "more than any has";
  EXPECT_EQ(arena_->parts_in_use(), 1u);
  std::vector<Span*> spans;
  while (Span* const span = Allocate(kRun)) spans.push_back(span);
  // The first granule of all is in no run.
  EXPECT_EQ(spans.size(), kParts * 4 - 1);
  EXPECT_EQ(arena_->parts_in_use(), kParts);
  ExpectSpans(spans);
  std::map<uint32_t, uint32_t> of_part;
  for (const Span* const span : spans) ++of_part[PartOf(span)];
  EXPECT_EQ(of_part,
            (std::map<uint32_t, uint32_t>{{0, 3}, {1, 4}, {2, 4}, {3, 4}}));
  // What is left of part 0, whose threads had it to themselves.
  OnThread([this] { EXPECT_EQ(PartOf(Allocate(kRun - 1)), 0u); });
  EXPECT_EQ(Allocate(1), nullptr);
  for (Span* const span : spans) {
    const uint32_t start = span->start;
    Free(span);
    Span* const again = Allocate(kRun);
    ASSERT_NE(again, nullptr);
    EXPECT_EQ(again->start, start);
  }
}

TEST_F(ArenaPartsTest, NoRunReachesFromOneIntoTheNext) {
  MakeParts();
  Span* const first = Allocate(kPartGranules - 2);
  Span* const last = Allocate(1);
  ASSERT_EQ(last->start, kPartGranules - 1);
  Span* const next = Allocate(1);
  ASSERT_EQ(next->start, kPartGranules);
  Free(next);
  EXPECT_FALSE(arena_->ResizeRun(last, 2));
  // Free runs on both sides of the border do not join.
  Free(last);
  Free(first);
  Span* const whole = Allocate(kPartGranules);
  ASSERT_NE(whole, nullptr);
  EXPECT_EQ(whole->start % kPartGranules, 0u);
  Span* const rest = Allocate(kPartGranules - 1);
  ASSERT_NE(rest, nullptr);
  EXPECT_EQ(rest->start, 1u);
  ExpectSpans({whole, rest});
}

TEST_F(ArenaPartsTest, PartsThatWereNeverUsedHaveNothing) {
  MakeParts();
  Span* const span = Allocate(1);
  const size_t tables = arena_->GetStats().table_bytes;
  for (uint32_t part = 0; part < kParts; ++part) {
    for (const uint32_t granule : {0u, 2u, kPartGranules - 1}) {
      char* const address = arena_->AddressOf(part * kPartGranules + granule);
      EXPECT_EQ(arena_->SpanOf(address), nullptr);
      EXPECT_EQ(arena_->ClassOf(address), kNoClass);
      EXPECT_EQ(arena_->FreeLarge(address), nullptr);
      EXPECT_EQ(arena_->OwnerOf(address), 0u);
    }
  }
  UseAllParts();
  EXPECT_EQ(arena_->FreeLarge(arena_->AddressOf(3 * kPartGranules)), nullptr);
  EXPECT_EQ(arena_->GetStats().table_bytes, tables);
  ExpectSpans({span});
  OneOfEach(1);
  EXPECT_GT(arena_->GetStats().table_bytes, tables);
}

TEST_F(ArenaPartsTest, ASpanStandsInThePartOfItsRun) {
  MakeParts();
  UseAllParts();
  constexpr size_t kBytes = 3 * Metadata::kUnit;
  std::set<uint32_t> seen;
  while (seen.size() < kParts) {
    OnThread([&] {
      bool zeroed = false;
      Span* const span = arena_->AllocateSpan(kSlab, kBytes, 5, &zeroed);
      ASSERT_NE(span, nullptr);
      EXPECT_EQ(span->granules, 5u);
      EXPECT_EQ(PartOfPiece(span), PartOf(span));
      ExpectSpans({span});
      EXPECT_EQ(arena_->metadata_bytes(), kBytes);
      seen.insert(PartOf(span));
      // Somebody else's metadata.
      void* const piece = arena_->AllocateMetadata(kBytes);
      EXPECT_EQ(PartOfPiece(piece), PartOf(span)) << "not the thread's own";
      std::memset(reinterpret_cast<char*>(span) + sizeof(Span), 1,
                  kBytes - sizeof(Span));
      std::memset(piece, 2, kBytes);
      ExpectSpans({span});
      arena_->FreeSpan(span, kBytes);
      arena_->FreeMetadata(piece, kBytes);
    });
    ExpectSpans({});
    EXPECT_EQ(arena_->metadata_bytes(), 0u);
  }
}

TEST_F(ArenaPartsTest, MetadataThatOnePartHasNotComesFromAnother) {
  MakeParts(kMiB, 2);
  std::vector<void*> pieces;
  while (arena_->parts_in_use() == 1) {
    pieces.push_back(arena_->AllocateMetadata(Metadata::kMaxPiece));
    ASSERT_NE(pieces.back(), nullptr);
  }
  EXPECT_EQ(PartOfPiece(pieces.back()), 1u);
  // All but the table of the pages.
  const size_t share = arena_->maps().metadata_bytes / 2;
  EXPECT_GT(pieces.size(), share / Metadata::kMaxPiece * 99 / 100);
  for (size_t i = 0; i + 1 < pieces.size(); ++i) {
    ASSERT_EQ(PartOfPiece(pieces[i]), 0u);
  }
  // Threads of both: a span stands where there is room, and then its run is
  // there too, or is the thread's own.
  std::set<uint32_t> seen;
  while (seen.size() < 2) {
    OnThread([&] {
      Span* const span =
          arena_->AllocateSpan(kSlab, Metadata::kUnit, 1, nullptr);
      ASSERT_NE(span, nullptr);
      EXPECT_EQ(PartOfPiece(span), 1u);
      EXPECT_EQ(PartOf(span), 1u);
      Span* const run = Allocate(1);
      ASSERT_NE(run, nullptr);
      EXPECT_EQ(PartOfPiece(run), 1u);
      seen.insert(PartOf(run));
      Free(run);
      Free(span);
    });
    ExpectSpans({});
    ASSERT_EQ(arena_->metadata_bytes(), pieces.size() * Metadata::kMaxPiece);
  }
  for (void* const piece : pieces) {
    arena_->FreeMetadata(piece, Metadata::kMaxPiece);
  }
  EXPECT_EQ(arena_->metadata_bytes(), 0u);

  // A span that the only part in use has no room for brings the next into use.
  MakeParts(kMiB, 2);
  for (size_t i = 1; i < pieces.size(); ++i) {
    ASSERT_NE(arena_->AllocateMetadata(Metadata::kMaxPiece), nullptr);
  }
  ASSERT_EQ(arena_->parts_in_use(), 1u);
  Span* const span = arena_->AllocateSpan(kSlab, Metadata::kUnit, 1, nullptr);
  ASSERT_NE(span, nullptr);
  EXPECT_EQ(PartOf(span), 1u);
}

TEST_F(ArenaPartsTest, ThreadsGetMetadataOfTheirOwn) {
  MakeParts();
  UseAllParts();
  constexpr int kThreads = 8;
  constexpr int kRounds = 300;
  constexpr size_t kBytes = 2 * Metadata::kUnit;
  // Each frees what another has allocated.
  std::array<std::array<char*, kRounds>, kThreads> given = {};
  std::mutex mu;
  const auto exchange = [&mu](char*& place, char* piece) {
    const std::lock_guard lock(mu);
    return std::exchange(place, piece);
  };
  std::vector<std::vector<char*>> kept(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        auto* const a = static_cast<char*>(arena_->AllocateMetadata(kBytes));
        auto* const b = static_cast<char*>(arena_->AllocateMetadata(kBytes));
        std::memset(a, t, kBytes);
        std::memset(b, t, kBytes);
        kept[t].push_back(b);
        exchange(given[t][i], a);
        char* const others = exchange(given[(t + 1) % kThreads][i], nullptr);
        if (others == nullptr) continue;
        for (size_t n = 0; n < kBytes; ++n) {
          ASSERT_EQ(others[n], (t + 1) % kThreads);
        }
        arena_->FreeMetadata(others, kBytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<char*> all;
  for (int t = 0; t < kThreads; ++t) {
    for (char* const piece : given[t]) {
      if (piece != nullptr) kept[t].push_back(piece);
    }
    for (char* const piece : kept[t]) {
      EXPECT_TRUE(all.insert(piece).second);
      for (size_t n = 0; n < kBytes; ++n) ASSERT_EQ(piece[n], t);
    }
  }
  EXPECT_EQ(arena_->metadata_bytes(), all.size() * kBytes);
  for (char* const piece : all) arena_->FreeMetadata(piece, kBytes);
  EXPECT_EQ(arena_->metadata_bytes(), 0u);
}

TEST_F(ArenaPartsTest, FiguresAreSums) {
  MakeParts(64 * kMiB);
  UseAllParts();
  arena_->Purge(0);
  const std::vector<Span*> slabs = OneOfEach(10, 7);
  const std::vector<Span*> large = OneOfEach(20);
  std::vector<Span*> all = slabs;
  all.insert(all.end(), large.begin(), large.end());
  ExpectSpans(all);
  // Of what is in the first part less is touched than of the others.
  for (Span* const span : all) {
    if (PartOf(span) != 0) Fill(span, 'a');
  }
  constexpr size_t kTouched = (kParts - 1) * kGranuleSize;
  Arena::Residency residency = arena_->GetResidency();
  EXPECT_EQ(residency.slabs, 10 * kTouched);
  EXPECT_EQ(residency.large, 20 * kTouched);
  const size_t held = arena_->held_bytes();
  EXPECT_GE(held, arena_->live_bytes() + arena_->GetStats().dirty_bytes);
  for (Span* const span : large) Free(span);
  // Which were more when each part was tried.
  const size_t dirty = arena_->GetStats().dirty_bytes;
  EXPECT_GE(dirty, kParts * 20 * kGranuleSize);
  EXPECT_EQ(arena_->live_bytes(), kParts * 10 * kGranuleSize);
  EXPECT_LE(arena_->held_bytes(), held);
  residency = arena_->GetResidency();
  EXPECT_EQ(residency.large, 0u);
  EXPECT_EQ(residency.free, 20 * kTouched);
  uint64_t shown[5] = {};
  for (const ObservedPart& part : hak_observed.parts) {
    shown[0] += part.committed_bytes;
    shown[1] += part.slab_bytes;
    shown[2] += part.large_bytes;
    shown[3] += part.free_dirty_bytes;
    shown[4] += part.metadata_bytes;
  }
  EXPECT_EQ(shown[0], arena_->GetStats().committed_bytes);
  EXPECT_EQ(shown[1], kParts * 10 * kGranuleSize);
  EXPECT_EQ(shown[2], 0u);
  EXPECT_EQ(shown[3], dirty);
  EXPECT_EQ(shown[4], kParts * Metadata::kUnit);
  EXPECT_EQ(arena_->metadata_bytes(), kParts * Metadata::kUnit);
  EXPECT_EQ(arena_->GetStats().metadata_bytes, kParts * Metadata::kUnit);
  for (Span* const span : slabs) Free(span);
}

TEST_F(ArenaPartsTest, PurgeLeavesWhatIsToBeKeptOfAll) {
  MakeParts(64 * kMiB);
  UseAllParts();
  const std::vector<Span*> spans = OneOfEach(20);
  arena_->Purge(0);
  for (Span* const span : spans) Free(span);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, kParts * 20 * kGranuleSize);
  EXPECT_EQ(arena_->Purge(kParts * 20 * kGranuleSize), 0u);
  EXPECT_EQ(arena_->Purge(30 * kGranuleSize),
            (kParts * 20 - 30) * kGranuleSize);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 30 * kGranuleSize);
  EXPECT_EQ(arena_->Purge(0), 30 * kGranuleSize);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 0u);
}

TEST_F(ArenaPartsTest, EachDecays) {
  MakePartsWithDecay(64 * kMiB);
  UseAllParts();
  const std::vector<Span*> spans = OneOfEach(20);
  for (Span* const span : spans) Free(span);
  int64_t now = os::CoarseMilliseconds();
  size_t purged = 0;
  for (int i = 0; i < 3; ++i) purged += arena_->Decay(now += kDecay);
  EXPECT_GE(purged, kParts * 20 * kGranuleSize);
  EXPECT_EQ(arena_->GetStats().dirty_bytes, 0u);
}

// Together no more stays than of an arena in one; and a part may have all of
// it.
TEST_F(ArenaPartsTest, WhatMayStayIsOneSum) {
  MakePartsWithDecay(8 * kMiB);
  WaitUntilInUse(kParts);
  const std::vector<Span*> spans = OneOfEach(80, 7);
  arena_->Purge(0);
  Free(spans[1]);
  EXPECT_EQ(hak_observed.parts[1].free_dirty_bytes, 80 * kGranuleSize);
  for (const int part : {0, 2, 3}) {
    Free(spans[part]);
    EXPECT_LE(arena_->GetStats().dirty_bytes, 8 * kMiB);
  }
  EXPECT_EQ(hak_observed.parts[1].free_dirty_bytes, 80 * kGranuleSize);
  EXPECT_GT(arena_->GetStats().dirty_bytes, 5 * kMiB);
}

// What one has beyond the sum goes when anybody tidies.
TEST_F(ArenaPartsTest, DecayKeepsToTheSum) {
  MakePartsWithDecay(kMiB);
  WaitUntilInUse(kParts);
  // Of 2 GiB that are live 16 MiB may stay, of none 1 MiB.
  const std::vector<Span*> spans = OneOfEach(160);
  Span* const most = Allocate(kPartGranules / 2);
  arena_->Purge(0);
  const uint32_t part = (PartOf(most) + 1) % kParts;
  Free(spans[part]);
  ASSERT_EQ(hak_observed.parts[part].free_dirty_bytes, 160 * kGranuleSize);
  Free(most);
  arena_->Decay(os::CoarseMilliseconds());
  EXPECT_LE(arena_->GetStats().dirty_bytes, 2 * kMiB);
}

// What goes from part to part is wanted in each, though the sum is steady.
TEST_F(ArenaPartsTest, WhatCrossesMayStay) {
  constexpr size_t kRuns = 32;
  constexpr uint32_t kRunGranules = 16;
  constexpr size_t kBytes = kRuns * kRunGranules * kGranuleSize;
  MakePartsWithDecay(kMiB);
  WaitUntilInUse(kParts);
  std::vector<Span*> spans;
  for (size_t i = 0; i < kRuns; ++i) {
    spans.push_back(Allocate(kRunGranules, kGranuleSize, 7));
  }
  uint32_t at = PartOf(spans[0]);
  const auto move = [&] {
    WaitForTheClock();
    const uint32_t to = at ^ 1;
    while (at != to) {
      OnThread([&] {
        Span* const probe = Allocate(1);
        const bool is_there = PartOf(probe) == to;
        Free(probe);
        if (!is_there) return;
        for (Span*& span : spans) {
          Free(span);
          span = Allocate(kRunGranules, kGranuleSize, 7);
        }
        at = to;
      });
    }
  };
  const auto purged = [this] { return arena_->GetStats().purged_bytes; };
  move();
  EXPECT_GT(purged(), kBytes / 2);
  for (int i = 0; i < 6; ++i) move();
  const size_t before = purged();
  for (int i = 0; i < 4; ++i) move();
  EXPECT_LT(purged() - before, kBytes) << "of four times as much";
  // It goes when nothing does so any longer.
  arena_->Decay(os::CoarseMilliseconds() + 2 * kDecay);
  arena_->Decay(os::CoarseMilliseconds() + 4 * kDecay);
  EXPECT_LE(arena_->GetStats().dirty_bytes, 2 * kMiB);
}

TEST_F(ArenaPartsTest, WhatComesAndGoesCrossesNothing) {
  MakePartsWithDecay();
  UseAllParts();
  for (int i = 0; i < 3; ++i) {
    std::vector<Span*> spans;
    for (int run = 0; run < 32; ++run) {
      spans.push_back(Allocate(16, kGranuleSize, 7));
    }
    for (Span* const span : spans) {
      if (span == spans[0] || span == spans[31]) WaitForTheClock();
      Free(span);
    }
    EXPECT_EQ(arena_->crossing_granules(), 0u);
  }
}

TEST_F(ArenaPartsTest, AnOwnersBinIsEnteredInAll) {
  constexpr uint32_t kKey = 12345;
  MakeParts();
  UseAllParts();
  const SizeClass twin = TwinOf(7);
  const std::vector<Span*> owned = OneOfEach(2, twin);
  const std::vector<Span*> others = OneOfEach(2, twin);
  for (const Span* const span : owned) {
    ASSERT_TRUE(arena_->MakeRoomForOwner(span));
    arena_->SetOwner(span, kKey);
  }
  for (const Span* const span : others) {
    ASSERT_TRUE(arena_->MakeRoomForOwner(span));
    arena_->SetOwner(span, kKey + 1);
  }
  const uint32_t bin = arena_->GiveOwnBin(kKey, twin);
  ASSERT_GE(bin, kFirstOwnBin);
  for (uint32_t i = 0; i < kParts; ++i) {
    char* const last = arena_->AddressOf(owned[i]->start + 1);
    EXPECT_EQ(arena_->view().ClassOf(last), bin);
    EXPECT_EQ(arena_->OwnerOf(last), kKey);
    EXPECT_EQ(arena_->ClassOf(last), twin);
    EXPECT_EQ(arena_->view().ClassOf(Start(others[i])), MapValueOf(twin));
    EXPECT_EQ(arena_->OwnerOf(Start(others[i])), kKey + 1);
  }
}

TEST_F(ArenaPartsTest, AWalkGoesOnInTheNext) {
  MakeParts();
  UseAllParts();
  for (Span* const span : OneOfEach(1)) Free(span);
  const auto walk = [this](uint32_t from, uint32_t granules) {
    return arena_->ForEachSpan(
        from, granules, [](void*, Span*) {}, nullptr);
  };
  // But for the first of all.
  const auto first = static_cast<uint32_t>(
      hak_observed.parts[0].committed_bytes / kGranuleSize - 1);
  EXPECT_EQ(walk(0, first - 1), first);
  EXPECT_EQ(walk(0, first), kPartGranules);
  EXPECT_EQ(walk(0, first + 10), kPartGranules + 10);
  EXPECT_EQ(walk(3 * kPartGranules, kPartGranules), 0u);
  EXPECT_EQ(walk(kParts * kPartGranules - 1, 10), 0u);
}

// Threads that take from their own parts and give back to all.
TEST_F(ArenaPartsTest, ThreadsExchangeRuns) {
  MakeParts();
  UseAllParts();
  constexpr int kThreads = 4;
  std::array<std::atomic<Span*>, 32> shared{};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &shared] {
      std::mt19937 random(static_cast<uint32_t>(t));
      for (int step = 0; step < 1500; ++step) {
        Span* const span = Allocate(1 + random() % 9, kGranuleSize,
                                    random() % 2 == 0 ? kNoClass : 7);
        ASSERT_NE(span, nullptr);
        auto* const words = reinterpret_cast<uintptr_t*>(Start(span));
        const size_t last = span->granules * kGranuleSize / 8 - 1;
        words[0] = words[last] = reinterpret_cast<uintptr_t>(span);
        HelgrindRelease(&shared);
        Span* const other = shared[random() % shared.size()].exchange(span);
        HelgrindAcquire(&shared);
        if (step % 100 == 0) arena_->Purge(kMiB);
        if (step % 100 == 50) arena_->Decay(os::CoarseMilliseconds());
        if (other == nullptr) continue;
        auto* const theirs = reinterpret_cast<uintptr_t*>(Start(other));
        ASSERT_EQ(theirs[0], reinterpret_cast<uintptr_t>(other));
        ASSERT_EQ(theirs[other->granules * kGranuleSize / 8 - 1], theirs[0]);
        Free(other);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<Span*> left;
  for (const std::atomic<Span*>& span : shared) {
    if (span != nullptr) left.push_back(span);
  }
  ExpectSpans(left);
  for (Span* const span : left) Free(span);
  ExpectSpans({});
  uint64_t least = kPartBytes;
  for (uint32_t i = 0; i < kParts; ++i) {
    least = std::min(least, hak_observed.parts[i].committed_bytes.load());
  }
  const auto most = static_cast<uint32_t>(least / kGranuleSize - 1);
  const std::vector<Span*> longest = OneOfEach(most);
  for (uint32_t i = 0; i < kParts; ++i) {
    EXPECT_EQ(longest[i]->start, std::max(i * kPartGranules, 1u))
        << "the free runs did not join";
  }
}

// Growth comes while others are at work, who go on in the new parts.
TEST_F(ArenaPartsTest, ThreadsMayBringMoreIntoUse) {
  MakeParts();
  constexpr int kThreads = 4;
  std::latch started(kThreads);
  std::vector<std::thread> threads;
  std::array<std::atomic<bool>, kParts> seen{};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, &started, &seen] {
      started.count_down();
      for (int left = 20; left != 0;) {
        const bool all = arena_->parts_in_use() == kParts;
        Span* const span = Allocate(3);
        ASSERT_NE(span, nullptr);
        if (all) seen[PartOf(span)].store(true);
        Free(span);
        arena_->GetStats();
        if (all) --left;
        std::this_thread::yield();  // Helgrind runs one at a time
      }
    });
  }
  started.wait();
  UseAllParts();
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(std::count(seen.begin(), seen.end(), true), 1);
  ExpectSpans({});
}

}  // namespace
}  // namespace hakmem
