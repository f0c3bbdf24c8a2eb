// allocator.h in C++17, without exceptions and RTTI; see BUILD.bazel.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory_resource>
#include <new>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/allocator.h"

#if defined(__cpp_exceptions) || defined(__cpp_rtti) || __cplusplus >= 202002L
#error "compiled with what this test is to do without"
#endif

namespace {

volatile size_t impossible = SIZE_MAX / 2;

TEST(AllocatorNoExceptionsTest, ServesContainers) {
  std::vector<int, hakmem::Allocator<int>> vector(1000, 3);
  EXPECT_EQ(vector.back(), 3);
  std::pmr::map<int, int> map(hakmem::SharedMemoryResource());
  for (int i = 0; i < 1000; ++i) map[i] = i;
  EXPECT_EQ(map.at(999), 999);
  EXPECT_TRUE(hakmem::Allocator<int>() == hakmem::Allocator<char>());
  EXPECT_FALSE(hakmem::Allocator<int>() != hakmem::Allocator<char>());
}

TEST(AllocatorNoExceptionsTest, ResourcesEqualThemselves) {
  const hakmem::MemoryResource resource;
  EXPECT_TRUE(resource.is_equal(resource));
  EXPECT_FALSE(resource.is_equal(*std::pmr::new_delete_resource()));
}

TEST(AllocatorNoExceptionsDeathTest, NoMemoryEndsTheProgramWithALine) {
  const char kLine[] = "^hakmem: out of memory, and exceptions are off\n$";
  EXPECT_DEATH((void)hakmem::Allocator<char>().allocate(impossible), kLine);
  EXPECT_DEATH((void)hakmem::Allocator<int>().allocate(SIZE_MAX), kLine);
  EXPECT_DEATH((void)hakmem::SharedMemoryResource()->allocate(impossible),
               kLine);
}

}  // namespace
