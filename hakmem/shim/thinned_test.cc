// What of samples is taken where a program allocates and frees very much at one
// place, by the sites that they leave: HAKMEM_PROFILE is set, and there is no
// thread that would have blocks count in windows.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/observed.h"
#include "hakmem/core/sampling.h"
#include "hakmem/shim/expect_abort.h"
#include "hakmem/shim/hakmem.h"

namespace {

// The call of malloc is not their last, and so is one.
template <size_t kSize>
[[gnu::noinline]] void* AllocateAgain() {
  return hakmem::Launder(malloc(kSize));
}
template <size_t kSize>
[[gnu::noinline]] void* AllocateKept() {
  return hakmem::Launder(malloc(kSize));
}

struct Taken {
  uint64_t samples = 0;
  int least_shift = 64;
  int most_shift = -1;
};

// Of the samples that the function, which is short, has allocated.
Taken TakenBy(void* (*function)()) {
  const auto start = reinterpret_cast<uintptr_t>(function);
  const auto* const sites = reinterpret_cast<const hakmem::ObservedSite*>(
      hak_observed.sites.address.load());
  const auto* const cells = reinterpret_cast<const hakmem::ObservedCell*>(
      hak_observed.cells.address.load());
  const auto* const frames =
      reinterpret_cast<const uint64_t*>(hak_observed.frames.address.load());
  Taken taken;
  for (uint64_t i = 0; i < hak_observed.sites.count.load(); ++i) {
    const hakmem::ObservedSite& site = sites[i];
    if (site.kind.load() != hakmem::SiteKind::kStack) continue;
    const uint64_t caller = frames[site.frames];
    if (caller < start || caller > start + 32) continue;
    const int shift = hakmem::ShareShiftOf(site.module_offset);
    taken.least_shift = std::min(taken.least_shift, shift);
    taken.most_shift = std::max(taken.most_shift, shift);
    for (uint32_t next = site.first_cell.load(); next != 0;
         next = cells[next - 1].next) {
      taken.samples += cells[next - 1].allocs.load();
    }
  }
  return taken;
}

// A block that grows where it is has not been freed. The first test: samples of
// the others make all large ones rare.
TEST(ThinnedTest, WhatIsResized) {
  constexpr size_t kSize = 50000000;
  void* block = AllocateKept<kSize>();
  for (size_t i = 1; i <= 1000; ++i) {
    block = realloc(block, kSize + i * 65536);
    ASSERT_NE(block, nullptr);
  }
  const Taken resized = TakenBy(&AllocateKept<kSize>);
  std::vector<void*> kept;
  for (int i = 0; i < 100; ++i) kept.push_back(AllocateKept<kSize>());
  const Taken taken = TakenBy(&AllocateKept<kSize>);
  EXPECT_GT(taken.samples, resized.samples);
  EXPECT_EQ(taken.most_shift, 0);
  for (void* const one : kept) free(one);
  free(block);
}

// 9 GB are allocated and freed, which would be 18,000 samples or, where each
// block is one, 4500. Meanwhile what is kept, of the same size, has all of
// those that are found.
template <size_t kSize>
void FreeMuchAndKeepSome() {
  std::vector<void*> kept;
  for (size_t i = 0; i < 300000000 / kSize; ++i) {
    for (int j = 0; j < 30; ++j) free(AllocateAgain<kSize>());
    kept.push_back(AllocateKept<kSize>());
  }
  const Taken again = TakenBy(&AllocateAgain<kSize>);
  EXPECT_GE(again.samples, 16u);
  EXPECT_LE(again.samples, 2500u);
  EXPECT_GE(again.most_shift, 2);
  const Taken of_kept = TakenBy(&AllocateKept<kSize>);
  EXPECT_GE(of_kept.samples, 1u);
  EXPECT_EQ(of_kept.least_shift, 0);
  EXPECT_EQ(of_kept.most_shift, 0);
  for (void* const block : kept) free(block);
}

TEST(ThinnedTest, TinyBlocks) { FreeMuchAndKeepSome<400>(); }
TEST(ThinnedTest, L2Blocks) { FreeMuchAndKeepSome<3000>(); }
TEST(ThinnedTest, L25Blocks) { FreeMuchAndKeepSome<100000>(); }
TEST(ThinnedTest, LargeBlocks) { FreeMuchAndKeepSome<2000000>(); }

}  // namespace
