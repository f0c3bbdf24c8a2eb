// What --config=checked finds that the default lets pass, or sees later: every
// error ends the program in the call that makes it.

#include <malloc.h>
#include <stdlib.h>

#include <cstdint>
#include <new>
#include <thread>

#include "gtest/gtest.h"
#include "hakmem/shim/expect_abort.h"
#include "hakmem/shim/hakmem.h"

extern "C" {
void free_sized(void* ptr, size_t size) noexcept;
void free_aligned_sized(void* ptr, size_t alignment, size_t size) noexcept;
size_t nallocx(size_t size, int flags) noexcept;
void sdallocx(void* ptr, size_t size, int flags) noexcept;
}

namespace {

using hakmem::Launder;

constexpr size_t kMiB = size_t{1} << 20;

// Of every pool and above.
constexpr size_t kSizes[] = {8, 100, 1000, 5000, 30000, 100000, 1000000};
constexpr size_t kSizesAndLarge[] = {8,     100,    1000,    5000,
                                     30000, 100000, 1000000, 3 * kMiB};

constexpr char kDouble[] = "double free";
constexpr char kMiddle[] = "middle of a";
constexpr char kWrongSize[] = "wrong size";

TEST(CheckTest, RightSizesPass) {
  for (const size_t size : kSizesAndLarge) {
    for (int step = -1; step <= 1; ++step) {
      const size_t bytes = size + static_cast<size_t>(step);
      free_sized(malloc(bytes), bytes);
      free_sized(calloc(bytes, 3), bytes * 3);
      free_sized(realloc(malloc(bytes), bytes - bytes / 4), bytes - bytes / 4);
      free_sized(realloc(malloc(bytes), bytes * 2), bytes * 2);
      ::operator delete(::operator new(bytes), bytes);
      for (size_t alignment = 1; alignment <= 64 * 1024; alignment *= 2) {
        free_aligned_sized(aligned_alloc(alignment, bytes), alignment, bytes);
        ::operator delete (::operator new (bytes, std::align_val_t{alignment}),
                           bytes, std::align_val_t{alignment});
      }
      sdallocx(malloc(bytes), nallocx(bytes, 0), 0);
    }
  }
  ::operator delete (::operator new(0), size_t{0});
  free_sized(malloc(0), 0);
  free_sized(nullptr, 100);
}

TEST(CheckTest, WrongSizes) {
  for (const size_t size : kSizesAndLarge) {
    void* const block = malloc(size);
    for (const size_t wrong : {size * 2, size / 2 - 1, size_t{0}, SIZE_MAX}) {
      if (wrong == 0 && size <= 8) continue;  // 0 is served as 8
      if (wrong == size / 2 - 1 && size <= 8) continue;
      EXPECT_ABORT(free_sized(block, wrong), kWrongSize, block);
      EXPECT_ABORT(sdallocx(block, wrong, 0), kWrongSize, block);
      EXPECT_ABORT(::operator delete(block, wrong), kWrongSize, block);
      EXPECT_ABORT(::operator delete[](block, wrong), kWrongSize, block);
      EXPECT_ABORT(free_aligned_sized(block, 8, wrong), kWrongSize, block);
      EXPECT_ABORT(::operator delete (block, wrong, std::align_val_t{8}),
                   kWrongSize, block);
      EXPECT_ABORT(::operator delete[](block, wrong, std::align_val_t{8}),
                   kWrongSize, block);
    }
    free(block);
  }
}

TEST(CheckTest, TheLineSaysBothSizes) {
  void* const block = malloc(100);
  EXPECT_ABORT(free_sized(block, 300),
               "wrong size given back with a block: 300 bytes where it has 112",
               block);
  free(block);
}

// A destructor that is not virtual: the size is the base's.
struct Base {
  int number = 1;
};
struct Derived : Base {
  char more[100];
};

TEST(CheckTest, DeleteThroughABaseWithoutAVirtualDestructor) {
  Base* const base = static_cast<Base*>(Launder(new Derived));
  EXPECT_ABORT(delete base, kWrongSize, base);
  delete static_cast<Derived*>(base);
}

TEST(CheckTest, WrongAlignments) {
  void* const block = aligned_alloc(64, 100);
  // The block's neighbour is at no multiple of this, or this one is not.
  char* odd = static_cast<char*>(aligned_alloc(16, 48));
  while (reinterpret_cast<uintptr_t>(odd) % 64 == 0) {
    odd = static_cast<char*>(aligned_alloc(16, 48));
  }
  EXPECT_ABORT(free_aligned_sized(odd, 64, 48), "wrong alignment", odd);
  EXPECT_ABORT(free_aligned_sized(block, 48, 100), "wrong alignment", block);
  EXPECT_ABORT(free_aligned_sized(block, 0, 100), "wrong alignment", block);
  free(block);
  free(odd);
}

TEST(CheckTest, IntoASmallBlock) {
  for (const size_t size : kSizes) {
    if (size < 100) continue;
    char* const block = static_cast<char*>(malloc(size));
    for (const int offset : {8, 16, 48}) {
      void* const inside = Launder(block + offset);
      EXPECT_ABORT(free(inside), kMiddle, inside);
      EXPECT_ABORT(free_sized(inside, size), kMiddle, inside);
      EXPECT_ABORT(::operator delete(inside), kMiddle, inside);
      EXPECT_ABORT((void)Launder(realloc(inside, size)), kMiddle, inside);
      EXPECT_ABORT(if (malloc_usable_size(inside) != 0) exit(0), kMiddle,
                   inside);
    }
    free(block);
  }
}

TEST(CheckTest, TwiceByTwoThreads) {
  for (const size_t size : kSizesAndLarge) {
    void* const block = malloc(size);
    const auto free_twice = [block] {
      std::thread([block] { free(Launder(block)); }).join();
      free(Launder(block));
    };
    EXPECT_ABORT(free_twice(), kDouble, block);
    free(block);
  }
}

TEST(CheckTest, Twice) {
  for (const size_t size : kSizesAndLarge) {
    void* const block = malloc(size);
    EXPECT_ABORT((free(block), free(Launder(block))), kDouble, block);
    EXPECT_ABORT((free(block), free_sized(Launder(block), size)), kDouble,
                 block);
    EXPECT_ABORT((free(block), Launder(realloc(Launder(block), size))), kDouble,
                 block);
    EXPECT_ABORT((free(block),
                  malloc_usable_size(Launder(block)) != 0 ? exit(0) : exit(1)),
                 kDouble, block);
    free(block);
  }
}

// With others between the two, so that it is not the last one cached.
TEST(CheckTest, TwiceWithOthersBetween) {
  for (const size_t size : kSizes) {
    void* blocks[20];
    for (void*& block : blocks) block = malloc(size);
    const auto free_all_and_one_again = [&blocks] {
      for (void* const block : blocks) free(block);
      free(Launder(blocks[3]));
    };
    EXPECT_ABORT(free_all_and_one_again(), kDouble, blocks[3]);
    for (void* const block : blocks) free(block);
  }
}

}  // namespace
