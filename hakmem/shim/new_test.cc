// operator new and delete in every form. This program's are hakmem's, but for
// the nothrow forms of new, which are the C++ run time's over hakmem's.

#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>

#include "gtest/gtest.h"

namespace {

// Not constant, so that the compiler does not refuse at once.
volatile size_t impossible = SIZE_MAX / 2;

constexpr std::align_val_t kAligned{256};
constexpr size_t kSizes[] = {0, 1, 8, 100, 1024, 5000, 70000, 1 << 20, 5 << 20};

bool IsAligned(const void* block, std::align_val_t alignment) {
  return reinterpret_cast<uintptr_t>(block) % static_cast<size_t>(alignment) ==
         0;
}

// Takes the handler away again when a test ends.
class HandlerGuard {
 public:
  explicit HandlerGuard(std::new_handler handler)
      : before_(std::set_new_handler(handler)) {}
  ~HandlerGuard() { std::set_new_handler(before_); }
  HandlerGuard(const HandlerGuard&) = delete;
  HandlerGuard& operator=(const HandlerGuard&) = delete;

 private:
  const std::new_handler before_;
};

int handler_calls = 0;
void* reserve = nullptr;

TEST(NewTest, EveryFormOfDeleteTakesWhatItsNewGave) {
  for (const size_t size : kSizes) {
    for (int round = 0; round < 2; ++round) {
      const auto use = [size](void* block) {
        EXPECT_NE(block, nullptr) << size;
        if (block != nullptr) std::memset(block, 0x11, size);
        return block;
      };
      ::operator delete(use(::operator new(size)));
      ::operator delete(use(::operator new(size)), size);
      ::operator delete(use(::operator new(size, std::nothrow)), std::nothrow);
      ::operator delete[](use(::operator new[](size)));
      ::operator delete[](use(::operator new[](size)), size);
      ::operator delete[](use(::operator new[](size, std::nothrow)),
                          std::nothrow);
      ::operator delete(use(::operator new(size, kAligned)), kAligned);
      ::operator delete(use(::operator new(size, kAligned)), size, kAligned);
      ::operator delete(use(::operator new(size, kAligned, std::nothrow)),
                        kAligned, std::nothrow);
      ::operator delete[](use(::operator new[](size, kAligned)), kAligned);
      ::operator delete[](use(::operator new[](size, kAligned)), size,
                          kAligned);
      ::operator delete[](use(::operator new[](size, kAligned, std::nothrow)),
                          kAligned, std::nothrow);
    }
  }
}

TEST(NewTest, AlignedFormsAlign) {
  for (size_t alignment = 1; alignment <= size_t{64} << 20; alignment *= 2) {
    const auto align = static_cast<std::align_val_t>(alignment);
    for (void* const block :
         {::operator new(40, align), ::operator new[](40, align),
          ::operator new(40, align, std::nothrow),
          ::operator new[](40, align, std::nothrow)}) {
      ASSERT_TRUE(IsAligned(block, align)) << alignment;
      ::operator delete(block, align);
    }
  }
}

TEST(NewTest, DeleteIgnoresNull) {
  ::operator delete(nullptr);
  ::operator delete[](nullptr);
  ::operator delete(nullptr, kAligned);
  ::operator delete (nullptr, size_t{8});
}

TEST(NewTest, ThrowsBadAllocWhenThereIsNoHandler) {
  const HandlerGuard guard(nullptr);
  EXPECT_THROW((void)::operator new(impossible), std::bad_alloc);
  EXPECT_THROW((void)::operator new[](impossible), std::bad_alloc);
  EXPECT_THROW((void)::operator new(impossible, kAligned), std::bad_alloc);
  EXPECT_THROW((void)::operator new[](impossible, kAligned), std::bad_alloc);
  // Kept, or the compiler may leave the pair of new and delete out.
  EXPECT_THROW(reserve = new char[impossible], std::bad_alloc);
}

TEST(NewTest, NothrowFormsReturnNull) {
  const HandlerGuard guard(nullptr);
  EXPECT_EQ(::operator new(impossible, std::nothrow), nullptr);
  EXPECT_EQ(::operator new[](impossible, std::nothrow), nullptr);
  EXPECT_EQ(::operator new(impossible, kAligned, std::nothrow), nullptr);
  EXPECT_EQ(::operator new[](impossible, kAligned, std::nothrow), nullptr);
}

// [new.delete.single]: the handler is called again and again until it makes
// memory available, throws, or takes itself away.
TEST(NewTest, CallsTheHandlerUntilItTakesItselfAway) {
  for (const bool aligned : {false, true}) {
    handler_calls = 0;
    const HandlerGuard guard([] {
      if (++handler_calls == 3) std::set_new_handler(nullptr);
    });
    if (aligned) {
      EXPECT_THROW((void)::operator new(impossible, kAligned), std::bad_alloc);
    } else {
      EXPECT_THROW((void)::operator new(impossible), std::bad_alloc);
    }
    EXPECT_EQ(handler_calls, 3);
  }
}

TEST(NewTest, WhatTheHandlerThrowsPassesThrough) {
  const HandlerGuard guard([] { throw std::runtime_error("no more"); });
  EXPECT_THROW((void)::operator new(impossible), std::runtime_error);
  EXPECT_THROW((void)::operator new[](impossible), std::runtime_error);
  EXPECT_THROW((void)::operator new(impossible, kAligned), std::runtime_error);
}

TEST(NewTest, NothrowFormsCallTheHandlerToo) {
  handler_calls = 0;
  const HandlerGuard guard([] {
    ++handler_calls;
    throw std::bad_alloc();
  });
  EXPECT_EQ(::operator new(impossible, std::nothrow), nullptr);
  EXPECT_EQ(::operator new[](impossible, std::nothrow), nullptr);
  EXPECT_EQ(handler_calls, 2);
}

// The program's data segment in bytes, which RLIMIT_DATA bounds.
size_t DataBytes() {
  size_t pages[6] = {};
  FILE* const file = std::fopen("/proc/self/statm", "r");
  for (size_t& figure : pages) EXPECT_EQ(std::fscanf(file, "%zu", &figure), 1);
  std::fclose(file);
  return pages[5] * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST(NewTest, SucceedsOnceTheHandlerHasFreedMemory) {
  constexpr size_t kBlock = size_t{1} << 30;
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_DATA, &before), 0);
  rlimit one_and_a_half = before;
  one_and_a_half.rlim_cur = DataBytes() + kBlock / 2 * 3;
  ASSERT_EQ(setrlimit(RLIMIT_DATA, &one_and_a_half), 0);
  reserve = ::operator new(kBlock);
  handler_calls = 0;
  {
    const HandlerGuard guard([] {
      ++handler_calls;
      ::operator delete(reserve);
      reserve = nullptr;
    });
    void* const block = ::operator new(kBlock);
    EXPECT_NE(block, nullptr);
    EXPECT_EQ(handler_calls, 1);
    ::operator delete(block);
  }
  ASSERT_EQ(setrlimit(RLIMIT_DATA, &before), 0);
}

}  // namespace
