// What is not to be given to free(): one line on stderr that names the error
// and the address, then SIGABRT.

#include <malloc.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "gtest/gtest.h"
#include "hakmem/shim/expect_abort.h"
#include "hakmem/shim/hakmem.h"

extern "C" {
void free_sized(void* ptr, size_t size) noexcept;
void free_aligned_sized(void* ptr, size_t alignment, size_t size) noexcept;
void sdallocx(void* ptr, size_t size, int flags) noexcept;
void cfree(void* ptr) noexcept;
void __libc_free(void* ptr) noexcept;
void* __libc_realloc(void* ptr, size_t size) noexcept;
}

namespace {

using hakmem::Launder;

constexpr size_t kMiB = size_t{1} << 20;

// True where a small block goes straight back to its slab.
bool Locked() { return std::string_view(hak_config()) == "p0"; }

constexpr char kForeign[] = "foreign";

TEST(MisuseTest, Stack) {
  alignas(16) char block[64];
  EXPECT_ABORT(free(Launder(block)), kForeign, block);
}

TEST(MisuseTest, Static) {
  alignas(16) static char block[64];
  EXPECT_ABORT(free(Launder(block)), kForeign, block);
}

TEST(MisuseTest, MappingOfTheProgram) {
  void* const block = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(block, MAP_FAILED);
  EXPECT_ABORT(free(Launder(block)), kForeign, block);
  munmap(block, 1 << 20);
}

TEST(MisuseTest, NoAddressAtAll) {
  for (const uintptr_t address :
       {uintptr_t{8}, uintptr_t{4096}, UINTPTR_MAX, UINTPTR_MAX - 7}) {
    void* const block = reinterpret_cast<void*>(address);
    EXPECT_ABORT(free(Launder(block)), kForeign, block);
  }
}

TEST(MisuseTest, Misaligned) {
  for (const size_t size :
       {size_t{100}, size_t{3000}, size_t{100000}, 3 * kMiB}) {
    char* const block = static_cast<char*>(malloc(size));
    for (const int offset : {1, 2, 4, 7, 9}) {
      EXPECT_ABORT(free(Launder(block + offset)), "misaligned", block + offset);
    }
    free(block);
  }
}

TEST(MisuseTest, IntoALargeBlock) {
  char* const block = static_cast<char*>(malloc(3 * kMiB));
  for (const size_t offset : {size_t{16}, size_t{65536}, 2 * kMiB}) {
    EXPECT_ABORT(free(Launder(block + offset)), "middle of a large block",
                 block + offset);
  }
  free(block);
}

TEST(MisuseTest, LargeBlockTwice) {
  void* const block = malloc(3 * kMiB);
  EXPECT_ABORT((free(block), free(Launder(block))), "double free", block);
  free(block);
}

TEST(MisuseTest, EveryFunctionThatTakesABlockLooks) {
  alignas(16) static char block[64];
  void* const foreign = Launder(block);
  EXPECT_ABORT((void)Launder(realloc(foreign, 100)), kForeign, block);
  EXPECT_ABORT((void)Launder(realloc(foreign, 10 * kMiB)), kForeign, block);
  EXPECT_ABORT((void)Launder(realloc(foreign, 0)), kForeign, block);
  EXPECT_ABORT(::operator delete(foreign), kForeign, block);
  EXPECT_ABORT(hak_free(foreign), kForeign, block);
  EXPECT_ABORT(hak_free_at(foreign, 1), kForeign, block);
  EXPECT_ABORT(free_sized(foreign, 64), kForeign, block);
  EXPECT_ABORT(free_aligned_sized(foreign, 16, 64), kForeign, block);
  EXPECT_ABORT(sdallocx(foreign, 64, 0), kForeign, block);
  EXPECT_ABORT(cfree(foreign), kForeign, block);
  EXPECT_ABORT(__libc_free(foreign), kForeign, block);
  EXPECT_ABORT((void)Launder(__libc_realloc(foreign, 100)), kForeign, block);
  EXPECT_ABORT(if (malloc_usable_size(foreign) != 0) exit(0), kForeign, block);
  void* const large = malloc(3 * kMiB);
  EXPECT_ABORT((free(large), Launder(realloc(Launder(large), 5 * kMiB))),
               "double free", large);
  free(large);
}

// Without memory beside each block a small one's second free shows when it gets
// back to its slab: at once where the pool is locked.
TEST(MisuseTest, SmallBlockTwice) {
  if (!Locked()) GTEST_SKIP() << "small blocks wait in magazines";
  for (const size_t size : {8, 100, 1000, 5000, 30000, 100000, 1000000}) {
    void* const neighbour = malloc(size);  // keeps the slab alive
    void* const block = malloc(size);
    EXPECT_ABORT((free(block), free(Launder(block))), "double free", block);
    free(block);
    free(neighbour);
  }
}

TEST(MisuseTest, IntoASmallBlock) {
  if (!Locked()) GTEST_SKIP() << "small blocks wait in magazines";
  for (const size_t size : {100, 1000, 5000, 30000, 100000, 1000000}) {
    char* const block = static_cast<char*>(malloc(size));
    for (const int offset : {8, 16, 48}) {
      EXPECT_ABORT(free(Launder(block + offset)), "middle of a block",
                   block + offset);
    }
    free(block);
  }
}

// Cached pools find it when they hand the block back: here, because the thread
// asks for it.
TEST(MisuseTest, SmallBlockTwiceIsSeenWhenItGetsBackToItsSlab) {
  if (Locked()) GTEST_SKIP() << "seen at once";
  for (const size_t size : {8, 100, 1000, 5000, 30000}) {
    void* const neighbour = malloc(size);  // keeps the slab alive
    void* const block = malloc(size);
    const auto free_twice = [block] {
      std::thread([block] {
        free(Launder(block));
        free(Launder(block));
        hak_release_memory(0);
      }).join();
    };
    EXPECT_ABORT(free_twice(), "double free", block);
    free(block);
    free(neighbour);
  }
}

TEST(MisuseTest, IntoASmallBlockIsSeenWhenItGetsToTheSlab) {
  if (Locked()) GTEST_SKIP() << "seen at once";
  for (const size_t size : {100, 1000, 5000, 30000}) {
    char* const block = static_cast<char*>(malloc(size));
    void* const inside = block + 16;
    const auto free_inside = [inside] {
      std::thread([inside] {
        free(Launder(inside));
        hak_release_memory(0);
      }).join();
    };
    EXPECT_ABORT(free_inside(), "middle of a block", inside);
    free(block);
  }
}

// realloc() looks before it copies, also where free() would not.
TEST(MisuseTest, ReallocOfAPointerIntoASmallBlock) {
  for (const size_t size : {100, 1000, 5000, 30000, 100000, 1000000}) {
    char* const block = static_cast<char*>(malloc(size));
    void* const inside = block + 16;
    EXPECT_ABORT((void)Launder(realloc(Launder(inside), 2 * size)),
                 "middle of a block", inside);
    EXPECT_ABORT((void)Launder(realloc(Launder(inside), 10 * kMiB)),
                 "middle of a block", inside);
    free(block);
  }
}

}  // namespace
