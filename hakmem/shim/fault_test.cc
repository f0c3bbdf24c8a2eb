// The system refuses memory: every call that hakmem makes for some, one by one.
//
// The linker leads this program's mmap, mprotect, madvise, mremap and munmap to
// the functions below (--wrap in BUILD.bazel), which refuse the calls that a
// plan names. A process runs a workload under one plan from its very first
// allocation on, before any constructor; the test starts one for every call of
// that workload. Whatever is refused: each allocation works or says ENOMEM, no
// block is lost or given out twice, and once the system grants memory again
// there is no trace of it.

#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/early.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/random_heap.h"
#include "hakmem/shim/start_process.h"

namespace {

using hakmem::Next;
using hakmem::StartProcess;
using hakmem::Workload;

// The calls with these numbers, from 1, are refused.
struct Plan {
  std::atomic<uint64_t> first{UINT64_MAX};
  std::atomic<uint64_t> count{0};
};
constinit Plan plan;
constinit std::atomic<uint64_t> calls{0};
constinit std::atomic<uint64_t> refused{0};

// Of so many calls one is refused, at random; 0 for none.
constinit std::atomic<uint32_t> one_in{0};

bool Refuse() {
  const uint64_t call = calls.fetch_add(1) + 1;
  bool refuse = call >= plan.first && call - plan.first < plan.count;
  if (const uint32_t odds = one_in.load(); odds != 0) {
    thread_local uint64_t state = call * 0x9E3779B97F4A7C15u | 1;
    refuse = refuse || Next(state) % odds == 0;
  }
  if (!refuse) return false;
  refused.fetch_add(1);
  errno = ENOMEM;
  return true;
}

// Abseil gets the memory for what a thread waits with in pieces of this size,
// and ends the program when there is none.
constexpr size_t kAbseilPiece = 65536;

}  // namespace

extern "C" {

void* __real_mmap(void*, size_t, int, int, int, off_t);
int __real_munmap(void*, size_t);
int __real_mprotect(void*, size_t, int);
int __real_madvise(void*, size_t, int);
void* __real_mremap(void*, size_t, size_t, int);

void* __wrap_mmap(void* address, size_t size, int protection, int flags, int fd,
                  off_t offset) {
  if (size != kAbseilPiece && Refuse()) return MAP_FAILED;
  return __real_mmap(address, size, protection, flags, fd, offset);
}

int __wrap_munmap(void* address, size_t size) {
  return Refuse() ? -1 : __real_munmap(address, size);
}

int __wrap_mprotect(void* address, size_t size, int protection) {
  return Refuse() ? -1 : __real_mprotect(address, size, protection);
}

int __wrap_madvise(void* address, size_t size, int advice) {
  return Refuse() ? -1 : __real_madvise(address, size, advice);
}

void* __wrap_mremap(void* address, size_t size, size_t new_size, int flags) {
  return Refuse() ? MAP_FAILED : __real_mremap(address, size, new_size, flags);
}

}  // extern "C"

namespace {

// A site with so much of one size that it has slabs of its own.
void RunBusySite(bool may_fail) {
  constexpr size_t kSize = 100;
  static unsigned char* blocks[3000];
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < std::size(blocks); ++i) {
      errno = EXDEV;
      blocks[i] = static_cast<unsigned char*>(hak_alloc_at(kSize, 7));
      CHECK(errno == (blocks[i] != nullptr ? EXDEV : ENOMEM));
      CHECK(may_fail || blocks[i] != nullptr);
      if (blocks[i] != nullptr) std::memset(blocks[i], 1 + i % 255, kSize);
    }
    for (size_t i = 0; i < std::size(blocks); ++i) {
      if (blocks[i] == nullptr) continue;
      for (size_t at = 0; at < kSize; ++at) CHECK(blocks[i][at] == 1 + i % 255);
      free(blocks[i]);
    }
  }
}

// Exit statuses.
constexpr int kDone = 0;
constexpr int kNothingRefused = 10;

constinit Workload workload(20260501);

[[noreturn]] void RunPlan(uint64_t first, uint64_t count, int steps,
                          bool with_sites) {
  plan.first = first;
  plan.count = count;
  if (with_sites) RunBusySite(true);
  const int failures = workload.Run(steps, true);
  const bool was_refused = refused != 0;
  CHECK(failures == 0 || was_refused);
  plan.count = 0;
  if (with_sites) RunBusySite(false);
  workload.Run(steps, false);
  workload.FreeAll();
  hak_release_memory(0);
  hak_stats stats;
  CHECK(hak_stats_get(&stats, sizeof(stats)) == 0);
  CHECK(stats.slab_bytes == 0);
  CHECK(stats.large_bytes == 0);
  CHECK(stats.direct_bytes == 0);
  CHECK(stats.free_dirty_bytes == 0);
  CHECK(!with_sites || hak_sites_check() == 0);
  _exit(was_refused ? kDone : kNothingRefused);
}

constexpr char kWithSites[] = "FAULT_SITES=1";

// FAULT_PLAN=first:count:steps, and perhaps kWithSites
void BeforeConstructors(int, char**, char** environment) {
  constexpr char kName[] = "FAULT_PLAN=";
  if (environment[0] == nullptr) return;
  if (std::strncmp(environment[0], kName, sizeof(kName) - 1) != 0) return;
  char* end = nullptr;
  const uint64_t first =
      std::strtoull(environment[0] + sizeof(kName) - 1, &end, 10);
  const uint64_t count = std::strtoull(end + 1, &end, 10);
  RunPlan(first, count, static_cast<int>(std::strtoull(end + 1, &end, 10)),
          environment[1] != nullptr &&
              std::strcmp(environment[1], kWithSites) == 0);
}

HAKMEM_RUN_BEFORE_CONSTRUCTORS(&BeforeConstructors);

// Several programs in one, some of whose calls are refused at random.
[[noreturn]] void RunThreads(uint32_t odds) {
  constexpr int kThreads = 4;
  constexpr int kThreadSteps = 600;
  constexpr int kMostRounds = 20;
  std::vector<Workload> workloads;
  for (uint64_t i = 0; i < kThreads; ++i) workloads.emplace_back(1000 + i * 77);
  std::latch refusing(1);
  std::latch ran(kThreads);
  std::latch granting(1);
  std::vector<std::thread> threads;
  for (Workload& own : workloads) {
    threads.emplace_back([&] {
      refusing.wait();
      // Again where chance has refused nothing yet, with all given back: a heap
      // that keeps what it has makes hardly any calls.
      for (int round = 0; round < kMostRounds; ++round) {
        own.Run(kThreadSteps, true);
        if (refused != 0) break;
        own.FreeAll();
        hak_release_memory(0);
      }
      ran.count_down();
      granting.wait();
      own.Run(kThreadSteps, false);
      own.FreeAll();
    });
  }
  one_in = odds;
  refusing.count_down();
  ran.wait();
  one_in = 0;
  granting.count_down();
  for (std::thread& thread : threads) thread.join();
  _exit(refused != 0 ? kDone : kNothingRefused);
}

[[gnu::constructor]] void RunThreadsIfAsked() {
  const char* const odds = getenv("FAULT_ODDS");
  if (odds != nullptr) {
    RunThreads(static_cast<uint32_t>(std::strtoul(odds, nullptr, 10)));
  }
}

// Refuses `count` calls from each call of a workload of so many steps on.
void RefuseFromEachCall(uint64_t count, int steps, const char* option) {
  uint64_t first = 1;
  for (;; ++first) {
    const std::string variable = "FAULT_PLAN=" + std::to_string(first) + ":" +
                                 std::to_string(count) + ":" +
                                 std::to_string(steps);
    const int status = StartProcess({variable.c_str(), option});
    if (status == kNothingRefused) break;
    ASSERT_EQ(status, kDone) << "calls refused from number " << first;
  }
  EXPECT_GT(first, 20u) << "the workload made hardly any calls";
}

// Enough for the heap to grow and to shrink; fewer where nearly every step
// makes calls.
constexpr int kSteps = 250;
constexpr int kFewSteps = 60;

constexpr uint64_t kOne = 1;
constexpr uint64_t kSome = 6;
constexpr uint64_t kAllUntilItStops = UINT64_MAX;

TEST(FaultTest, EachCall) {
  RefuseFromEachCall(kOne, kSteps, "HAKMEM_ARENA_BYTES=1T");
}

TEST(FaultTest, SomeFromEachCall) {
  RefuseFromEachCall(kSome, kSteps, "HAKMEM_ARENA_BYTES=1T");
}

TEST(FaultTest, AllFromEachCall) {
  RefuseFromEachCall(kAllUntilItStops, kSteps, "HAKMEM_ARENA_BYTES=1T");
}

// With an arena too small for the workload, so that much is mapped directly.
TEST(FaultTest, EachCallOfDirectMappings) {
  RefuseFromEachCall(kOne, kFewSteps, "HAKMEM_ARENA_BYTES=4M");
}

TEST(FaultTest, SomeFromEachCallOfDirectMappings) {
  RefuseFromEachCall(kSome, kFewSteps, "HAKMEM_ARENA_BYTES=4M");
}

TEST(FaultTest, AllFromEachCallOfDirectMappings) {
  RefuseFromEachCall(kAllUntilItStops, kFewSteps, "HAKMEM_ARENA_BYTES=4M");
}

// With all that is free returned at once, so that much is made accessible,
// given back and wanted again.
TEST(FaultTest, EachCallOfAHeapThatKeepsNothing) {
  RefuseFromEachCall(kOne, kSteps, "HAKMEM_RETAIN_BYTES=0");
}

TEST(FaultTest, AllFromEachCallOfAHeapThatKeepsNothing) {
  RefuseFromEachCall(kAllUntilItStops, kSteps, "HAKMEM_RETAIN_BYTES=0");
}

TEST(FaultTest, EachCallWithABusySite) {
  RefuseFromEachCall(kOne, kFewSteps, kWithSites);
}

TEST(FaultTest, SomeFromEachCallWithABusySite) {
  RefuseFromEachCall(kSome, kFewSteps, kWithSites);
}

TEST(FaultTest, AllFromEachCallWithABusySite) {
  RefuseFromEachCall(kAllUntilItStops, kFewSteps, kWithSites);
}

TEST(FaultTest, AnyCallsWhileThreadsRun) {
  for (const char* const odds : {"20", "5", "1"}) {
    const std::string variable = std::string("FAULT_ODDS=") + odds;
    for (const char* const option :
         {"HAKMEM_ARENA_BYTES=8M", "HAKMEM_RETAIN_BYTES=0"}) {
      EXPECT_EQ(StartProcess({variable.c_str(), option}), kDone)
          << odds << " " << option;
    }
  }
}

}  // namespace
