// hakmem::Allocator and hakmem::MemoryResource under the containers of the
// standard library.

#include "hakmem/shim/allocator.h"

#include <sys/resource.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <scoped_allocator>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace {

using hakmem::Allocator;
using hakmem::MemoryResource;

bool IsAligned(const void* block, size_t alignment) {
  return reinterpret_cast<uintptr_t>(block) % alignment == 0;
}

template <size_t kAlignment>
struct alignas(kAlignment) Aligned {
  explicit Aligned(int value) : value(value) {}
  bool operator<(const Aligned& other) const { return value < other.value; }
  int value;
};

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

// Not constant, so that the compiler does not refuse at once.
volatile size_t impossible = SIZE_MAX / 2;

// Constant initialisation, rebinding and comparison need no run time.
constinit std::vector<int, Allocator<int>> constant_initialised;
static_assert(Allocator<int>() == Allocator<char>());
static_assert(!(Allocator<int>() != Allocator<char>()));
static_assert(Allocator<int>(Allocator<char>()) == Allocator<int>());
static_assert(std::is_same_v<
              std::allocator_traits<Allocator<int>>::rebind_alloc<std::string>,
              Allocator<std::string>>);
static_assert(std::allocator_traits<Allocator<int>>::is_always_equal::value);
static_assert(std::is_empty_v<Allocator<int>>);
static_assert(std::is_nothrow_move_assignable_v<
              std::vector<std::string, Allocator<std::string>>>);
static_assert(sizeof(std::vector<int, Allocator<int>>) ==
              sizeof(std::vector<int>));

template <size_t kAlignment>
void FillContainersOf() {
  using T = Aligned<kAlignment>;
  std::vector<T, Allocator<T>> vector;
  std::list<T, Allocator<T>> list;
  std::deque<T, Allocator<T>> deque;
  std::map<T, int, std::less<T>, Allocator<std::pair<const T, int>>> map;
  for (int i = 0; i < 200; ++i) {
    vector.emplace_back(i);
    list.emplace_back(i);
    deque.emplace_back(i);
    map.emplace(T(i), i);
    ASSERT_TRUE(IsAligned(vector.data(), kAlignment)) << i;
    ASSERT_TRUE(IsAligned(&list.back(), kAlignment)) << i;
    ASSERT_TRUE(IsAligned(&deque.back(), kAlignment)) << i;
    ASSERT_TRUE(IsAligned(&map.find(T(i))->first, kAlignment)) << i;
  }
  int expected = 0;
  for (const auto& [key, value] : map) {
    EXPECT_EQ(key.value, expected);
    EXPECT_EQ(value, expected++);
  }
  for (int i = 0; i < 200; ++i) EXPECT_EQ(vector[i].value, i);
}

TEST(AllocatorTest, ContainersOfOverAlignedTypes) {
  FillContainersOf<4>();
  FillContainersOf<16>();
  FillContainersOf<32>();
  FillContainersOf<64>();
  FillContainersOf<4096>();
}

// Blocks of lesser types are aligned by where they lie in their slab anyway.
TEST(AllocatorTest, AlignsBeyondTheGranule) {
  using Page = Aligned<size_t{2} << 20>;
  Allocator<Page> allocator;
  std::vector<Page*> pages;
  for (int i = 0; i < 4; ++i) {
    pages.push_back(allocator.allocate(1));
    EXPECT_TRUE(IsAligned(pages.back(), alignof(Page))) << i;
  }
  for (Page* const page : pages) allocator.deallocate(page, 1);
}

TEST(AllocatorTest, BlocksAreOfHakmemsHeap) {
  Allocator<char> allocator;
  for (const size_t size : {size_t{1}, size_t{3000}, size_t{5} << 20}) {
    char* const block = allocator.allocate(size);
    EXPECT_GE(hak_usable_size(block), size);
    block[size - 1] = 1;
    allocator.deallocate(block, size);
  }
  char* const empty = allocator.allocate(0);
  ASSERT_NE(empty, nullptr);
  Allocator<char>(Allocator<int>()).deallocate(empty, 0);
}

TEST(AllocatorTest, SizeThatDoesNotFitIsABadArrayLength) {
  Allocator<uint64_t> allocator;
  handler_calls = 0;
  const HandlerGuard guard([] {
    ++handler_calls;
    std::set_new_handler(nullptr);
  });
  EXPECT_THROW((void)allocator.allocate(SIZE_MAX / sizeof(uint64_t) + 1),
               std::bad_array_new_length);
  EXPECT_THROW((void)allocator.allocate(SIZE_MAX), std::bad_array_new_length);
  // More memory would not have helped.
  EXPECT_EQ(handler_calls, 0);
  // This one does fit, and there is no such memory.
  try {
    (void)allocator.allocate(SIZE_MAX / sizeof(uint64_t));
    ADD_FAILURE() << "got all of the address space";
  } catch (const std::bad_array_new_length&) {
    ADD_FAILURE() << "SIZE_MAX - 7 bytes do fit into size_t";
  } catch (const std::bad_alloc&) {
  }
}

TEST(AllocatorTest, NoMemoryIsBadAlloc) {
  EXPECT_THROW((void)Allocator<char>().allocate(impossible), std::bad_alloc);
  EXPECT_THROW((void)Allocator<Aligned<64>>().allocate(impossible / 64),
               std::bad_alloc);
  EXPECT_THROW((void)MemoryResource().allocate(impossible), std::bad_alloc);
  EXPECT_THROW((void)MemoryResource().allocate(impossible, 4096),
               std::bad_alloc);
  std::vector<int, Allocator<int>> numbers(3, 7);
  EXPECT_THROW(numbers.resize(impossible / 8), std::bad_alloc);
  EXPECT_EQ(numbers, (std::vector<int, Allocator<int>>{7, 7, 7}));
}

TEST(AllocatorTest, AsksTheNewHandlerLikeOperatorNew) {
  handler_calls = 0;
  const HandlerGuard guard([] {
    if (++handler_calls == 3) std::set_new_handler(nullptr);
  });
  EXPECT_THROW((void)Allocator<char>().allocate(impossible), std::bad_alloc);
  EXPECT_EQ(handler_calls, 3);
}

// Memory that really ends, between two elements of a container.
TEST(AllocatorTest, ContainerSurvivesExhaustion) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_DATA, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = size_t{512} << 20;
  ASSERT_EQ(setrlimit(RLIMIT_DATA, &tight), 0);
  using Chunk = std::vector<char, Allocator<char>>;
  std::list<Chunk, Allocator<Chunk>> chunks;
  bool thrown = false;
  try {
    while (chunks.size() < 4096) chunks.emplace_back(1 << 20);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  EXPECT_TRUE(thrown);
  EXPECT_GE(chunks.size(), 16u);
  chunks.clear();
  EXPECT_EQ(Chunk(1 << 20).size(), size_t{1} << 20);
  ASSERT_EQ(setrlimit(RLIMIT_DATA, &before), 0);
}

TEST(AllocatorTest, MovesAndSwapsTakeTheBlockAlong) {
  std::vector<int, Allocator<int>> source(1000, 5);
  const int* const data = source.data();
  std::vector<int, Allocator<int>> target(3);
  target = std::move(source);
  EXPECT_EQ(target.data(), data);
  std::vector<int, Allocator<int>> other(std::move(target), Allocator<int>());
  EXPECT_EQ(other.data(), data);
  std::vector<int, Allocator<int>> last;
  last.swap(other);
  EXPECT_EQ(last.data(), data);

  std::list<int, Allocator<int>> front(5, 1);
  std::list<int, Allocator<int>> back(5, 2);
  const int* const element = &back.front();
  front.splice(front.end(), back);
  EXPECT_EQ(&*std::next(front.begin(), 5), element);
}

TEST(AllocatorTest, ServesSharedPointersAndNestedContainers) {
  const auto shared =
      std::allocate_shared<Aligned<64>>(Allocator<Aligned<64>>(), 42);
  EXPECT_TRUE(IsAligned(shared.get(), 64));
  EXPECT_EQ(shared->value, 42);

  using String =
      std::basic_string<char, std::char_traits<char>, Allocator<char>>;
  std::vector<String, std::scoped_allocator_adaptor<Allocator<String>>> strings;
  for (int i = 0; i < 100; ++i) strings.emplace_back(100, 'a' + i % 26);
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(strings[i], String(100, 'a' + i % 26));

  constant_initialised.assign(100, 9);
  EXPECT_EQ(constant_initialised.back(), 9);
  constant_initialised = {};
}

TEST(AllocatorTest, AnotherThreadMayFree) {
  std::vector<std::vector<int, Allocator<int>>> vectors;
  for (int i = 0; i < 1000; ++i) vectors.emplace_back(i, i);
  std::thread([moved = std::move(vectors)]() mutable {
    for (int i = 0; i < 1000; ++i) {
      for (const int element : moved[i]) ASSERT_EQ(element, i);
    }
    moved.clear();
  }).join();
}

TEST(MemoryResourceTest, AlignsAsAsked) {
  MemoryResource resource;
  for (size_t alignment = 1; alignment <= size_t{1} << 20; alignment *= 2) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{8}, size_t{9},
                              size_t{1000}, size_t{100000}}) {
      // Two, for the first may be aligned by luck.
      void* const first = resource.allocate(size, alignment);
      void* const second = resource.allocate(size, alignment);
      EXPECT_TRUE(IsAligned(first, alignment)) << size << " " << alignment;
      EXPECT_TRUE(IsAligned(second, alignment)) << size << " " << alignment;
      EXPECT_NE(first, second);
      EXPECT_GE(hak_usable_size(first), size);
      resource.deallocate(first, size, alignment);
      resource.deallocate(second, size, alignment);
    }
  }
}

TEST(MemoryResourceTest, EqualsItsLikeAndNoOther) {
  const MemoryResource first;
  const MemoryResource second;
  EXPECT_EQ(first, second);
  EXPECT_EQ(first, *hakmem::SharedMemoryResource());
  EXPECT_FALSE(first == *std::pmr::new_delete_resource());
  EXPECT_EQ(hakmem::SharedMemoryResource(), hakmem::SharedMemoryResource());
}

TEST(MemoryResourceTest, ContainersMoveBetweenTwo) {
  MemoryResource first;
  MemoryResource second;
  std::pmr::vector<std::pmr::string> source(&first);
  for (int i = 0; i < 100; ++i) source.emplace_back(200, 'x');
  const std::pmr::string* const data = source.data();
  std::pmr::vector<std::pmr::string> target(&second);
  target = std::move(source);
  EXPECT_EQ(target.data(), data);
  EXPECT_EQ(target.get_allocator().resource(), &second);
  EXPECT_EQ(target.back(), std::pmr::string(200, 'x'));

  // From a resource that is not ours the elements are moved one by one.
  std::pmr::vector<std::pmr::string> foreign(std::pmr::new_delete_resource());
  foreign.emplace_back(200, 'y');
  const std::pmr::string* const foreign_data = foreign.data();
  target = std::move(foreign);
  EXPECT_NE(target.data(), foreign_data);
  EXPECT_EQ(target.front(), std::pmr::string(200, 'y'));
}

TEST(MemoryResourceTest, ServesAsTheDefaultAndUnderPools) {
  std::pmr::memory_resource* const before =
      std::pmr::set_default_resource(hakmem::SharedMemoryResource());
  {
    std::pmr::unordered_map<int, std::pmr::string> map;
    for (int i = 0; i < 1000; ++i) map[i] = std::pmr::string(100, 'a' + i % 26);
    EXPECT_EQ(map.get_allocator().resource(), hakmem::SharedMemoryResource());
    EXPECT_EQ(map[700], std::pmr::string(100, 'a' + 700 % 26));
    std::pmr::monotonic_buffer_resource buffer(1024);
    std::pmr::vector<Aligned<256>> aligned(&buffer);
    for (int i = 0; i < 100; ++i) aligned.emplace_back(i);
    EXPECT_TRUE(IsAligned(aligned.data(), 256));
  }
  std::pmr::set_default_resource(before);
}

}  // namespace
