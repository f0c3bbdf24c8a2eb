#include "hakmem/core/slab_use.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#include "gtest/gtest.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

TEST(SlabUseTest, AClassAndItsTwinHaveOne) {
  EXPECT_EQ(&SlabUse::Of(50), &SlabUse::Of(TwinOf(50)));
  EXPECT_NE(&SlabUse::Of(50), &SlabUse::Of(51));
}

TEST(SlabUseTest, NothingIsKnownAtFirst) {
  const SlabUse use;
  EXPECT_FALSE(use.IsLittle());
  EXPECT_FALSE(use.IsMost());
}

TEST(SlabUseTest, SaysHowMuchIsUsed) {
  struct {
    size_t resident;
    bool little;
    bool most;
  } const kCases[] = {{0, true, false},   {1, true, false},   {31, true, false},
                      {33, false, false}, {95, false, false}, {97, false, true},
                      {128, false, true}};
  for (const auto& expected : kCases) {
    SlabUse use;
    use.NoteResident(expected.resident, 128);
    EXPECT_EQ(use.IsLittle(), expected.little) << expected.resident;
    EXPECT_EQ(use.IsMost(), expected.most) << expected.resident;
  }
}

TEST(SlabUseTest, MoreCountsAtOnceAndLessByAndBy) {
  SlabUse use;
  use.NoteResident(1, 128);
  use.NoteResident(128, 128);
  EXPECT_TRUE(use.IsMost());
  for (int i = 0; i < 2; ++i) use.NoteResident(1, 128);
  EXPECT_FALSE(use.IsMost());
  EXPECT_FALSE(use.IsLittle());
  int slabs = 0;
  for (; !use.IsLittle() && slabs < 100; ++slabs) use.NoteResident(1, 128);
  EXPECT_GE(slabs, 2);
  EXPECT_LE(slabs, 8);
}

TEST(SlabUseTest, AsksForSomeOfMany) {
  // Also where the test runs under a filter of system calls.
  ASSERT_EQ(setenv("HAKMEM_MINCORE", "1", 1), 0);
  arena.EnsureOptions();
  constexpr uint32_t kPages = 64;
  constexpr size_t kBytes = kPages * os::kPageSize;
  auto* const pages = static_cast<char*>(
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  ASSERT_NE(pages, MAP_FAILED);
  ASSERT_EQ(madvise(pages, kBytes, MADV_NOHUGEPAGE), 0);
  SlabUse use;
  pages[0] = 1;
  // As long as it has not asked, all counts as used.
  for (int i = 0; i < 32; ++i) EXPECT_EQ(use.UnusedPages(pages, kPages), 0u);
  // A page is four 255ths, and of what is known the rest is unused.
  EXPECT_EQ(use.UnusedPages(pages, kPages), kPages - 1);
  for (uint32_t i = 0; i < kPages; ++i) pages[i * os::kPageSize] = 1;
  int unasked = 0;
  for (; use.UnusedPages(pages, kPages) != 0 && unasked < 1000; ++unasked) {
  }
  EXPECT_GE(unasked, 32);
  EXPECT_LE(unasked, 96);
  munmap(pages, kBytes);
}

TEST(SlabUseTest, FillsSoonWhatOthersDid) {
  ASSERT_EQ(setenv("HAKMEM_MINCORE", "1", 1), 0);
  arena.EnsureOptions();
  constexpr uint32_t kPages = 32;
  constexpr size_t kBytes = kPages * os::kPageSize;
  auto* const slab = static_cast<char*>(os::Map(kBytes, os::kPageSize));
  ASSERT_NE(slab, nullptr);
  os::RefuseHugePages(slab, kBytes);
  const auto touch = [slab](uint32_t pages) {
    ASSERT_TRUE(os::Purge(slab, kBytes));
    for (uint32_t i = 0; i < pages; ++i) slab[i * os::kPageSize] = 1;
  };
  SlabUse use;
  // Of eight, how many are to be filled.
  const auto filled = [&use, slab] {
    int count = 0;
    for (int i = 0; i < 8; ++i) count += use.FillsSoon(slab, kBytes) ? 1 : 0;
    return count;
  };
  touch(kPages);
  EXPECT_EQ(filled(), 0) << "nothing is known";
  EXPECT_EQ(filled(), 7) << "and one is left, to know the next time";
  touch(kPages - 2);
  EXPECT_EQ(filled(), 7);
  touch(kPages - 3);
  EXPECT_EQ(filled(), 0);
  touch(0);
  EXPECT_EQ(filled(), 0);
  touch(kPages);
  EXPECT_EQ(filled(), 7);
  os::Unmap(slab, kBytes);
}

TEST(SlabUseTest, ManyAreThoseThatHaveNotGone) {
  SlabUse use;
  for (int i = 0; i < 100; ++i) {
    use.NoteMade();
    use.NoteGone();
  }
  EXPECT_FALSE(use.AreMany());
  for (int i = 0; i < 16; ++i) {
    EXPECT_FALSE(use.AreMany());
    use.NoteMade();
  }
  EXPECT_TRUE(use.AreMany());
  use.NoteGone();
  EXPECT_FALSE(use.AreMany());
}

// How many of `slabs` return their tails; each of those goes in its turn.
int Returned(SlabUse& use, int slabs, bool soon) {
  int returned = 0;
  for (int i = 0; i < slabs; ++i) {
    if (use.KeepsTail()) continue;
    ++returned;
    use.NoteTail(soon);
  }
  return returned;
}

TEST(SlabUseTest, TailsGoWhileThatLasts) {
  SlabUse use;
  EXPECT_EQ(Returned(use, 100, false), 100);
  const int soon = Returned(use, 1000, true);
  EXPECT_GE(soon, 1000 / 128);
  EXPECT_LE(soon, 1000 / 128 + 8);
  // Of one that does, half as many keep theirs, and so on.
  Returned(use, 300, false);
  EXPECT_EQ(Returned(use, 100, false), 100);
}

// Where many are made before the first of them goes.
TEST(SlabUseTest, TailsStayThoughNoneHasGoneYet) {
  SlabUse use;
  Returned(use, 1000, true);
  int returned = 0;
  for (int i = 0; i < 1280; ++i) returned += use.KeepsTail() ? 0 : 1;
  EXPECT_EQ(returned, 10);
}

}  // namespace
}  // namespace hakmem
