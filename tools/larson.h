// larson: a server's life as an allocator sees it, after Larson & Krishnan,
// "Memory allocation for long-running server applications", ISMM 1998.
//
// A number of *chains* run side by side. A chain is an array of live blocks and
// one thread at a time that replaces random blocks of it by new ones of random
// size. After a while the thread starts a successor, hands the array over and
// ends. So blocks are freed by other threads than those that allocated them,
// and threads come and go as they do in a server.
//
// Threads synchronise by mutex, condition variable and join only: Helgrind and
// TSan then have nothing to excuse in this program, and what they report is the
// allocator's.

#ifndef TOOLS_LARSON_H_
#define TOOLS_LARSON_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hakmem::tools {

// hakmem's pools by request size: tiny up to 1 KiB, L2 up to 32 KiB, L2.5 up to
// 1 MiB, and what is above.
enum Pool { kTiny, kL2, kL25, kLarge, kPools };

constexpr Pool PoolOf(size_t size) {
  return static_cast<Pool>((size > 1024) + (size > 32 * 1024) +
                           (size > 1024 * 1024));
}

struct LarsonOptions {
  // The sizes, the blocks a thread and the rounds of the configuration that
  // today's comparisons of allocators use ("larson-sized": 8..1000 bytes, 5000
  // blocks, 100 rounds, seed 4141), so that figures can be set beside theirs.
  int threads = 4;
  double seconds = 3;
  size_t min_size = 8;
  size_t max_size = 1000;  // inclusive
  int blocks_per_thread = 5000;
  // A thread replaces rounds * blocks_per_thread blocks, then hands over.
  int rounds = 100;
  uint64_t seed = 4141;
  // Fill each block with a pattern of its own, check all of it before freeing.
  bool verify = false;
};

// InvalidArgument, with a message for the user, unless the options make sense.
absl::Status ValidateLarsonOptions(const LarsonOptions& options);

// The allocator to run on. Function pointers, so that a test can bring one that
// is broken on purpose, and so that the compiler cannot elide the calls.
struct LarsonHeap {
  void* (*allocate)(size_t size) = nullptr;
  void (*release)(void* block) = nullptr;
  // In place of those where they are not null, for `site`: the loop calls
  // either by itself, so that the two can be compared.
  void* (*allocate_at)(size_t size, uintptr_t site) = nullptr;
  void (*release_at)(void* block, uintptr_t site) = nullptr;
  uintptr_t site = 0;

  template <bool kSites>
  void* Allocate(size_t size) const {
    return kSites ? allocate_at(size, site) : allocate(size);
  }
  template <bool kSites>
  void Release(void* block) const {
    kSites ? release_at(block, site) : release(block);
  }
};
LarsonHeap SystemHeap();  // malloc and free

// Called before the timed part's first thread is started and after its last one
// has ended. For reading statistics.
struct LarsonObserver {
  void (*begin)(void* context) = nullptr;
  void (*end)(void* context) = nullptr;
  void* context = nullptr;
};

struct LarsonResult {
  uint64_t operations = 0;  // one free and one malloc each, in the timed part
  double seconds = 0;
  uint64_t calls[kPools] = {};  // malloc and free, by the size of the block
  uint64_t handovers = 0;       // threads that took over an array
  uint64_t blocks_verified = 0;
};

// Fills the arrays, runs all chains for `options.seconds`, frees everything.
// DataLoss if verification found a block that something else wrote to or a
// misaligned one, ResourceExhausted if the heap returned null. Valid options
// only.
absl::StatusOr<LarsonResult> RunLarson(const LarsonOptions& options,
                                       LarsonHeap heap,
                                       LarsonObserver observer = {});

}  // namespace hakmem::tools

#endif  // TOOLS_LARSON_H_
