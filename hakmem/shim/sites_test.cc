// Sites as a program sees them: that every block is counted for the site that
// it was allocated for, whoever frees it and however.

#include <pthread.h>
#include <stdlib.h>

#include <barrier>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/in_child.h"

namespace {

// Of all pools, above them, and the smallest.
constexpr size_t kSizes[] = {1,      8,       16,      17,     64,    80,
                             500,    1024,    1025,    5000,   32768, 32769,
                             200000, 1048576, 1048577, 5000000};

hak_site_stats StatsOf(uintptr_t site) {
  hak_site_stats stats;
  EXPECT_EQ(hak_site_stats_get(site, &stats, sizeof(stats)), 0);
  return stats;
}

uint64_t Sum(const uint64_t* from, int count) {
  uint64_t sum = 0;
  for (int i = 0; i < count; ++i) sum += from[i];
  return sum;
}

// A site of its own for each test.
class SitesTest : public testing::Test {
 protected:
  SitesTest() {
    const auto* const info =
        testing::UnitTest::GetInstance()->current_test_info();
    site_ = hak_site("sites_test.cc", ++line, info->name());
    EXPECT_NE(site_, 0u);
  }
  ~SitesTest() override { EXPECT_EQ(hak_sites_check(), 0); }

  static inline unsigned line = 0;
  uintptr_t site_;
};

TEST_F(SitesTest, BlocksOfEverySizeAreCounted) {
  std::vector<void*> blocks;
  uint64_t bytes = 0;
  for (const size_t size : kSizes) {
    for (int i = 0; i < 50; ++i) {
      void* const block = hak_alloc_at(size, site_);
      ASSERT_NE(block, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % (size > 8 ? 16 : 8), 0u);
      std::memset(block, i, size);
      EXPECT_GE(hak_usable_size(block), size);
      bytes += hak_usable_size(block);
      blocks.push_back(block);
    }
  }
  hak_site_stats stats = StatsOf(site_);
  EXPECT_EQ(stats.id, site_);
  EXPECT_EQ(stats.kind, uint64_t{HAK_SITE_PLACE});
  EXPECT_STREQ(stats.file, "sites_test.cc");
  EXPECT_STREQ(stats.label, "BlocksOfEverySizeAreCounted");
  EXPECT_EQ(stats.live_blocks, blocks.size());
  EXPECT_EQ(stats.live_bytes, bytes);
  EXPECT_EQ(stats.total_blocks, blocks.size());
  EXPECT_EQ(stats.total_bytes, bytes);
  EXPECT_EQ(Sum(stats.sizes, HAK_SIZE_BUCKETS), blocks.size());
  EXPECT_EQ(stats.sizes[4], 3u * 50);  // 1, 8 and 16 bytes; 17 are in [5]
  EXPECT_EQ(stats.sizes[20], 50u);     // 1 MiB
  EXPECT_EQ(hak_sites_check(), 0);
  for (void* const block : blocks) hak_free_at(block, site_);
  stats = StatsOf(site_);
  EXPECT_EQ(stats.live_blocks, 0u);
  EXPECT_EQ(stats.live_bytes, 0u);
  EXPECT_EQ(stats.total_blocks, blocks.size());
  EXPECT_GT(stats.peak_bytes, bytes - bytes / 50);
  EXPECT_LE(stats.peak_bytes, bytes);
  EXPECT_GT(Sum(stats.ages, HAK_AGE_BUCKETS), 0u);
  EXPECT_LE(Sum(stats.ages, HAK_AGE_BUCKETS), blocks.size());
}

TEST_F(SitesTest, AnyFunctionThatFreesCountsIt) {
  void (*const frees[])(void*) = {
      &free,
      &hak_free,
      [](void* block) { ::operator delete(block); },
      [](void* block) { hak_free_at(block, 0); },
      [](void* block) { free(realloc(block, 9000)); },
      [](void* block) { EXPECT_EQ(realloc(block, 0), nullptr); }};
  for (int round = 0; round < 100; ++round) {
    for (const auto release : frees) {
#ifdef HAKMEM_CHECKED_TEST
      if (release == frees[3]) continue;
#endif
      release(hak_alloc_at(100, site_));
      EXPECT_EQ(StatsOf(site_).live_blocks, 0u);
    }
  }
}

TEST_F(SitesTest, IdsMayBeAnyNumber) {
  for (const uintptr_t id : {uintptr_t{0}, uintptr_t{1}, uintptr_t{77},
                             ~uintptr_t{0}, site_ + 1, site_ - 37}) {
    void* const block = hak_alloc_at(50, id);
    const hak_site_stats stats = StatsOf(id);
    EXPECT_EQ(stats.kind, uint64_t{HAK_SITE_NUMBER});
    EXPECT_EQ(stats.id, id);
    EXPECT_EQ(stats.live_blocks, 1u);
    hak_free_at(block, id);
    EXPECT_EQ(StatsOf(id).live_blocks, 0u);
  }
  hak_site_stats stats;
  EXPECT_EQ(hak_site_stats_get(123456, &stats, sizeof(stats)), ENOENT);
  EXPECT_EQ(hak_site_stats_get(site_, nullptr, 0), EINVAL);
}

TEST_F(SitesTest, ZeroedAndAlignedBlocks) {
  for (const size_t size : kSizes) {
    for (int i = 0; i < 3; ++i) {
      auto* const zeroed =
          static_cast<unsigned char*>(hak_calloc_at(1, size, site_));
      ASSERT_NE(zeroed, nullptr);
      for (size_t byte = 0; byte < size; ++byte) ASSERT_EQ(zeroed[byte], 0);
      std::memset(zeroed, 0xff, size);
      hak_free_at(zeroed, site_);
    }
    for (size_t alignment = 1; alignment <= size_t{4} << 20; alignment *= 8) {
      void* const block = hak_aligned_alloc_at(alignment, size, site_);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % alignment, 0u);
      EXPECT_EQ(StatsOf(site_).live_blocks, 1u);
      hak_free_at(block, site_);
    }
  }
  EXPECT_EQ(hak_aligned_alloc_at(3, 10, site_), nullptr);
  EXPECT_EQ(errno, EINVAL);
  errno = 0;
  EXPECT_EQ(hak_calloc_at(SIZE_MAX / 2, 3, site_), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  errno = 0;
  EXPECT_EQ(hak_alloc_at(SIZE_MAX, site_), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(StatsOf(site_).live_blocks, 0u);
}

TEST_F(SitesTest, ResizedBlocksStayWithTheirSite) {
  const uintptr_t other = hak_site("other.cc", 1, "");
  for (const size_t from : kSizes) {
    for (const size_t to : kSizes) {
      void* block = hak_alloc_at(from, site_);
      std::memset(block, 1, from);
      block = realloc(block, to);
      EXPECT_EQ(StatsOf(site_).live_blocks, 1u) << from << " to " << to;
      EXPECT_EQ(StatsOf(site_).live_bytes, hak_usable_size(block));
      block = hak_realloc_at(block, from, other);
      EXPECT_EQ(StatsOf(site_).live_blocks, 0u) << from << " to " << to;
      EXPECT_EQ(StatsOf(other).live_blocks, 1u);
      EXPECT_EQ(StatsOf(other).live_bytes, hak_usable_size(block));
      EXPECT_EQ(*static_cast<char*>(block), 1);
      hak_free_at(block, other);
      // One of none becomes one of the site.
      block = hak_realloc_at(hak_alloc(from), to, site_);
      EXPECT_EQ(StatsOf(site_).live_blocks, 1u);
      hak_free_at(block, site_);
      // And one of none stays that.
      free(realloc(malloc(from), to));
      EXPECT_EQ(StatsOf(site_).live_blocks, 0u);
    }
  }
  EXPECT_EQ(StatsOf(other).live_bytes, 0u);
  free(hak_realloc_at(nullptr, 10, site_));
  EXPECT_EQ(hak_realloc_at(hak_alloc_at(5, site_), 0, site_), nullptr);
}

TEST_F(SitesTest, MacrosAskOnceForEachPlace) {
  std::vector<void*> blocks;
  for (int i = 0; i < 10; ++i) blocks.push_back(HAK_ALLOC(40));
  void* const another = HAK_ALLOC(40);
  std::map<uint64_t, uint64_t> lines;
  hak_sites_visit(
      [](const hak_site_stats* stats, void* arg) {
        // A visitor may allocate.
        const std::string file(stats->file);
        if (file.find("hakmem/shim/sites_test.cc") != std::string::npos) {
          (*static_cast<std::map<uint64_t, uint64_t>*>(arg))[stats->line] =
              stats->live_blocks;
        }
      },
      &lines);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines.begin()->second, 10u);
  EXPECT_EQ(lines.rbegin()->second, 1u);
  EXPECT_EQ(lines.begin()->first + 1, lines.rbegin()->first);
  for (void* const block : blocks) free(block);
  free(another);
}

TEST_F(SitesTest, ScopesMarkWhatNamesNoSite) {
  const uintptr_t inner = hak_site("scope.cc", 1, "inner");
  std::vector<void*> blocks;
  const auto allocate = [&blocks] {
    for (const size_t size : {10, 2000, 100000, 3000000}) {
      blocks.push_back(malloc(size));
      blocks.push_back(calloc(size, 1));
      blocks.push_back(::operator new(size));
      blocks.push_back(aligned_alloc(64, size));
      blocks.push_back(hak_alloc(size));
    }
  };
  blocks.reserve(1000);
  std::barrier barrier(2);
  std::thread thread([&] {
    barrier.arrive_and_wait();
    blocks.push_back(malloc(10));
  });
  allocate();
  {
    const hakmem::Scope scope(site_);
    allocate();
    const uintptr_t token = hak_scope_begin(inner);
    allocate();
    blocks.push_back(hak_alloc_at(10, site_));
    // Another thread's allocations are not this one's.
    barrier.arrive_and_wait();
    thread.join();
    hak_scope_end(token);
    allocate();
  }
  allocate();
  EXPECT_EQ(StatsOf(site_).live_blocks, 2 * 20u + 1);
  EXPECT_EQ(StatsOf(inner).live_blocks, 20u);
  EXPECT_EQ(StatsOf(inner).kind, uint64_t{HAK_SITE_SCOPE});
  for (void* const block : blocks) free(block);
  EXPECT_EQ(StatsOf(site_).live_blocks, 0u);
  EXPECT_EQ(StatsOf(inner).live_blocks, 0u);
  {
    HAK_SCOPE("by macro");
    free(malloc(100));
  }
  void* const plain = malloc(10);
  EXPECT_EQ(StatsOf(site_).live_blocks, 0u);
  free(plain);
}

TEST_F(SitesTest, BlocksThatOtherThreadsFree) {
  constexpr int kThreads = 8;
  constexpr int kRounds = 20;
  constexpr int kBlocks = 300;
  const uintptr_t sites[] = {site_, hak_site("t.cc", 1, ""), 4711};
  std::vector<std::vector<void*>> blocks(kThreads, std::vector<void*>(kBlocks));
  std::barrier barrier(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < kRounds; ++round) {
        for (void*& block : blocks[t]) {
          block = hak_alloc_at(random() % (random() % 8 == 0 ? 40000 : 900),
                               sites[random() % 3]);
          ASSERT_NE(block, nullptr);
        }
        barrier.arrive_and_wait();
        for (void*& block : blocks[(t + round) % kThreads]) free(block);
        barrier.arrive_and_wait();
        if (t == 0) {
          for (const uintptr_t site : sites) {
            EXPECT_EQ(StatsOf(site).live_blocks, 0u);
          }
          EXPECT_EQ(hak_sites_check(), 0);
        }
        barrier.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t total = 0;
  for (const uintptr_t site : sites) {
    const hak_site_stats stats = StatsOf(site);
    EXPECT_EQ(stats.live_bytes, 0u);
    total += stats.total_blocks;
  }
  EXPECT_EQ(total, uint64_t{kThreads} * kRounds * kBlocks);
}

TEST_F(SitesTest, AThreadsEndLosesNothing) {
  std::vector<void*> blocks(1000);
  std::thread([&] {
    for (void*& block : blocks) block = hak_alloc_at(48, site_);
    for (int i = 0; i < 500; ++i) hak_free_at(blocks[i], site_);
  }).join();
  EXPECT_EQ(StatsOf(site_).live_blocks, 500u);
  EXPECT_EQ(StatsOf(site_).total_blocks, 1000u);
  EXPECT_EQ(hak_sites_check(), 0);
  for (int i = 500; i < 1000; ++i) free(blocks[i]);
  EXPECT_EQ(StatsOf(site_).live_blocks, 0u);
}

// Among the destructors of pthread keys, after the thread's caches have gone.
TEST_F(SitesTest, ADestructorThatAllocatesIsCounted) {
  static uintptr_t site;
  site = site_;
  static void* left;
  pthread_key_t key;
  ASSERT_EQ(pthread_key_create(&key,
                               [](void* block) {
                                 free(block);
                                 left = hak_alloc_at(64, site);
                               }),
            0);
  std::thread([&] {
    free(hak_alloc_at(64, site_));
    pthread_setspecific(key, hak_alloc_at(64, site_));
  }).join();
  EXPECT_EQ(StatsOf(site_).live_blocks, 1u);
  EXPECT_EQ(StatsOf(site_).total_blocks, 3u);
  EXPECT_EQ(hak_sites_check(), 0);
  free(left);
  pthread_key_delete(key);
}

TEST_F(SitesTest, AForkedChildTakesTheCountsOver) {
  std::barrier barrier(2);
  std::vector<void*> blocks(100);
  std::thread thread([&] {
    for (void*& block : blocks) block = hak_alloc_at(200, site_);
    barrier.arrive_and_wait();
    barrier.arrive_and_wait();
  });
  barrier.arrive_and_wait();
  hakmem::InChild([this, &blocks] {
    const bool has_all =
        StatsOf(site_).live_blocks == blocks.size() && hak_sites_check() == 0;
    for (void* const block : blocks) free(block);
    return has_all && StatsOf(site_).live_blocks == 0 && hak_sites_check() == 0;
  });
  barrier.arrive_and_wait();
  thread.join();
  EXPECT_EQ(StatsOf(site_).live_blocks, blocks.size());
  for (void* const block : blocks) free(block);
}

// More pairs of site and size than a thread has slots for.
TEST_F(SitesTest, ManySitesAtATime) {
  std::map<uintptr_t, std::vector<void*>> blocks;
  std::mt19937 random(5);
  for (int i = 0; i < 40000; ++i) {
    const uintptr_t id = 1000000 + random() % 3000;
    std::vector<void*>& of_site = blocks[id];
    if (of_site.size() > 5 || (random() % 3 == 0 && !of_site.empty())) {
      free(of_site.back());
      of_site.pop_back();
    } else {
      of_site.push_back(hak_alloc_at(random() % 1200, id));
    }
  }
  EXPECT_EQ(hak_sites_check(), 0);
  for (const auto& [id, of_site] : blocks) {
    const hak_site_stats stats = StatsOf(id);
    EXPECT_EQ(stats.live_blocks, of_site.size());
    uint64_t bytes = 0;
    for (void* const block : of_site) bytes += hak_usable_size(block);
    EXPECT_EQ(stats.live_bytes, bytes);
  }
  for (const auto& [id, of_site] : blocks) {
    for (void* const block : of_site) hak_free_at(block, id);
    EXPECT_EQ(StatsOf(id).live_blocks, 0u);
  }
}

TEST_F(SitesTest, MemoryOfFreedBlocksGoesBack) {
  hak_release_memory(0);
  hak_stats before;
  hak_stats_get(&before, sizeof(before));
  std::vector<void*> blocks(20000);
  for (void*& block : blocks) block = hak_alloc_at(1000, site_);
  for (void* const block : blocks) free(block);
  hak_release_memory(0);
  hak_stats after;
  hak_stats_get(&after, sizeof(after));
  EXPECT_LE(after.slab_bytes, before.slab_bytes + (1 << 20));
  EXPECT_EQ(hak_sites_check(), 0);
}

// Four bytes a block, and what does not grow with their number.
TEST_F(SitesTest, CostFourBytesABlock) {
  constexpr size_t kBlocks = 200000;
  for (const size_t size : {16, 64, 112, 1000}) {
    std::vector<void*> blocks(kBlocks);
    const auto metadata = [&](auto allocate) {
      // The first slabs of a class, whole, are of what does not grow.
      std::vector<void*> first(5000);
      for (void*& block : first) block = allocate();
      hak_stats before;
      hak_stats_get(&before, sizeof(before));
      for (void*& block : blocks) block = allocate();
      hak_stats after;
      hak_stats_get(&after, sizeof(after));
      for (void* const block : blocks) free(block);
      for (void* const block : first) free(block);
      hak_release_memory(0);
      return static_cast<double>(after.metadata_bytes) -
             static_cast<double>(before.metadata_bytes);
    };
    const double plain = metadata([size] { return malloc(size); });
    const double tracked =
        metadata([this, size] { return hak_alloc_at(size, site_); });
    EXPECT_LE((tracked - plain) / kBlocks, 4.1) << size;
  }
}

TEST_F(SitesTest, JsonHasTheSite) {
  void* const block = hak_alloc_at(100, site_);
  void* const quoted = hak_alloc_at(100, hak_site("a\"b\\c\n.cc", 7, "l"));
  char* const json = hak_stats_json();
  ASSERT_NE(json, nullptr);
  const std::string text(json);
  free(json);
  EXPECT_NE(text.find("\"file\":\"sites_test.cc\",\"line\":"),
            std::string::npos);
  EXPECT_NE(text.find("\"label\":\"JsonHasTheSite\",\"live_blocks\":1,"
                      "\"live_bytes\":112,"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("\"file\":\"a\\\"b\\\\c\\u000a.cc\""), std::string::npos);
  EXPECT_EQ(text.back(), '\n');
  free(block);
  free(quoted);
}

TEST_F(SitesTest, ErrnoIsKept) {
  std::vector<void*> blocks(3000);
  errno = 77;
  for (size_t i = 0; i < blocks.size(); ++i) {
    blocks[i] = hak_alloc_at(i % 1100, 900000 + i % 200);
    ASSERT_EQ(errno, 77);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    hak_free_at(blocks[i], 900000 + i % 200);
    ASSERT_EQ(errno, 77);
  }
}

}  // namespace
