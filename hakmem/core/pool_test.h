// What the test suites of the pools share: the pool under test, driven as the
// shim drives it, and a pattern that shows a block with two owners.
//
// The suites (pool_test.cc, pool_threads_test.cc, pool_exhaustion_test.cc) are
// compiled once, over this interface. Each test program links one of the pools
// to them; pool_crate() in pool.bzl declares the programs.

#ifndef HAKMEM_CORE_POOL_TEST_H_
#define HAKMEM_CORE_POOL_TEST_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "absl/base/config.h"
#include "gtest/gtest.h"
#include "hakmem/core/core.h"

namespace hakmem {

// A variant of a pool, LockedPool or CachedPool, behind one interface. Blocks
// come and go by the calling thread's bins first and the pool's slow path
// second, as in the heap.
class TestPool {
 public:
  virtual const PoolGeometry& geometry() const = 0;
  virtual bool cached() const = 0;
  virtual void* Allocate(SizeClass size_class) = 0;
  virtual void Free(void* block) = 0;
  virtual LockedPool& backend() = 0;
  virtual void DrainDepots() = 0;

 protected:
  ~TestPool() = default;
};

template <typename Pool>
class TestPoolOver final : public TestPool {
 public:
  explicit constexpr TestPoolOver(Pool& pool) : pool_(pool) {}

  const PoolGeometry& geometry() const override { return pool_.geometry(); }
  bool cached() const override { return Pool::kCached; }
  void* Allocate(SizeClass size_class) override {
    void* const block = thread_cache.Pop(size_class);
    return block != nullptr ? block : pool_.Allocate(thread_cache, size_class);
  }
  void Free(void* block) override {
    if (!thread_cache.Push(block)) {
      const SizeClass size_class = arena.ClassOf(block);
      ASSERT_TRUE(geometry().Contains(size_class)) << size_class;
      pool_.Free(thread_cache, size_class, block);
    }
  }
  LockedPool& backend() override { return pool_.backend(); }
  void DrainDepots() override { pool_.DrainDepots(); }

 private:
  Pool& pool_;
};

// The pool of this test program.
TestPool& GetTestPool();

class PoolSuite : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(arena.EnsureReady()); }

  // Whatever a test did, it has freed all of its blocks: then everything that
  // waits for reuse goes back to the arena, and nothing may be left.
  void TearDown() override {
    ReleaseAll();
    EXPECT_EQ(arena.GetStats().slab_bytes, 0u) << "blocks were lost";
    EXPECT_EQ(cache_budget.used(), 0);
  }

  void ReleaseAll() {
    thread_cache.FlushBins();
    ThreadCache::FlushParked(ThreadCache::Parked::kAll);
    pool_.DrainDepots();
    pool_.backend().ReleaseEmptySlabs();
    magazine_store.Release();
  }

  // Rounds for a test of threads: fewer where a tool makes each one slow.
  static int Rounds(int rounds) {
    if (Mutex::on_valgrind()) return std::max(rounds / 25, 1);
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
    return std::max(rounds / 5, 1);
#else
    return rounds;
#endif
  }

  SizeClass first_class() const { return pool_.geometry().first_class; }
  SizeClass last_class() const { return pool_.geometry().last_class; }

  // Every block of a class lies at multiples of this.
  static size_t AlignmentOf(SizeClass size_class) {
    return std::min(size_t{1} << std::countr_zero(ClassSize(size_class)),
                    kGranuleSize);
  }

  TestPool& pool_ = GetTestPool();
};

namespace pool_test_internal {

// Calls fn(word, value) for words of the block: all of a small one, every page
// of a larger one, and the last in any case.
template <typename Fn>
void ForPattern(void* block, uint64_t owner, Fn fn) {
  auto* const words = static_cast<uint64_t*>(block);
  const size_t count = ClassSize(arena.ClassOf(block)) / sizeof(uint64_t);
  const size_t step = count <= 128 ? 1 : os::kPageSize / sizeof(uint64_t);
  const uint64_t value = owner * 0x9E3779B97F4A7C15u;
  for (size_t i = 0; i < count; i += step) fn(words[i], value + i);
  fn(words[count - 1], value + count - 1);
}

}  // namespace pool_test_internal

// Writes a pattern that is the owner's alone over a block.
inline void Fill(void* block, uint64_t owner) {
  pool_test_internal::ForPattern(
      block, owner, [](uint64_t& word, uint64_t value) { word = value; });
}

// Whether the pattern is still there.
inline bool IsFilled(void* block, uint64_t owner) {
  bool whole = true;
  pool_test_internal::ForPattern(block, owner,
                                 [&whole](uint64_t& word, uint64_t value) {
                                   whole = whole && word == value;
                                 });
  return whole;
}

}  // namespace hakmem

#endif  // HAKMEM_CORE_POOL_TEST_H_
