#include "tools/larson.h"

#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "tools/common/random.h"
#include "tools/larson_pattern.h"

namespace hakmem::tools {
namespace {

using Clock = std::chrono::steady_clock;

// How many operations run between two looks at the clock. A look costs about as
// much as an operation; 512 make that invisible and still end a run of slow
// operations (1 MiB blocks) in time.
constexpr int kBatch = 512;

struct Slot {
  char* block = nullptr;
  uint32_t size = 0;
  uint32_t serial = 0;  // with the chain's number, the pattern; verify only
};

struct Chain;

// The parts of a run, for one choice of options that are looked at in each
// operation.
struct Parts {
  void (*fill)(Chain* chain);
  void (*replace)(Chain* chain, int count);
  void (*empty)(Chain* chain);
};

// What all chains share. Written before the gate opens, or under the mutex.
struct Run {
  Run(const LarsonOptions& options, const LarsonHeap& heap, const Parts& parts)
      : options(options), heap(heap), parts(parts) {}

  const LarsonOptions options;
  const LarsonHeap heap;
  const Parts parts;

  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  Clock::time_point deadline;
  // Chains whose thread is about to end, for the main thread to look after.
  std::vector<Chain*> waiting;
};

// One chain: its array, and the state that a thread hands to the next. Aligned
// so that no two chains' counters share a line or a pair of prefetched lines.
struct alignas(128) Chain {
  Chain(Run* run, int number)
      : run(run),
        number(number),
        random(run->options.seed, static_cast<uint64_t>(number)),
        slots(static_cast<size_t>(run->options.blocks_per_thread)) {}

  Run* const run;
  const int number;
  Random random;
  std::vector<Slot> slots;
  uint32_t next_serial = 0;
  std::thread owner;  // the main thread's alone
  bool time_is_up = false;

  uint64_t operations = 0;
  uint64_t allocations[kPools] = {};
  uint64_t handovers = 0;
  uint64_t verified = 0;
  Clock::time_point end;
  absl::Status status;
};

uint64_t Stamp(const Chain& chain, const Slot& slot) {
  return static_cast<uint64_t>(chain.number) << 32 | slot.serial;
}

// Whether the block is as its owner left it; if not, says so in the status.
bool Check(Chain* chain, const Slot& slot) {
  ++chain->verified;
  const size_t bad = FindMismatch(slot.block, slot.size, Stamp(*chain, slot));
  if (bad == slot.size) [[likely]]
    return true;
  chain->status = absl::DataLossError(absl::StrFormat(
      "block %p of %u bytes (array %d, serial %u): byte %u is 0x%02x and not "
      "0x%02x as its owner wrote: it has a second owner, or was overrun",
      slot.block, slot.size, chain->number, slot.serial, bad,
      static_cast<unsigned char>(slot.block[bad]),
      PatternByte(Stamp(*chain, slot), bad)));
  return false;
}

// Puts a new block into `slot`. False, and the status says why, if there is
// none or if it is wrong. A boolean and not a status on the way back, since the
// loop below runs this 10^8 times a second.
template <bool kVerify, bool kSites>
inline bool Fill(Chain* chain, const LarsonHeap& heap, Slot* slot,
                 uint32_t size) {
  char* const block = static_cast<char*>(heap.Allocate<kSites>(size));
  slot->block = block;
  slot->size = size;
  if (block == nullptr) [[unlikely]] {
    chain->status = absl::ResourceExhaustedError(
        absl::StrFormat("malloc(%u) returned a null pointer", size));
    return false;
  }
  if constexpr (!kVerify) {
    // As in the paper's program: a server writes to what it has asked for.
    block[0] = 'a';
    return true;
  }
  const size_t alignment = size >= 16 ? 16 : size >= 8 ? 8 : 1;
  if (reinterpret_cast<uintptr_t>(block) % alignment != 0) {
    chain->status = absl::DataLossError(absl::StrFormat(
        "block %p of %u bytes is not aligned to %u", block, size, alignment));
    return false;
  }
  slot->serial = chain->next_serial++;
  WritePattern(block, size, Stamp(*chain, *slot));
  return true;
}

uint32_t RandomSize(const LarsonOptions& options, uint64_t bits) {
  return static_cast<uint32_t>(
      options.min_size +
      Random::Scale(bits & 0xffffffffu,
                    options.max_size - options.min_size + 1));
}

// `count` replacements, or fewer if one fails. State that changes is kept in
// locals: it then lives in registers, and the chain's lines are written once a
// batch.
template <bool kVerify, bool kSites>
void Replace(Chain* chain, int count) {
  const LarsonOptions& options = chain->run->options;
  const LarsonHeap heap = chain->run->heap;
  Random random = chain->random;
  Slot* const slots = chain->slots.data();
  const uint64_t slot_count = chain->slots.size();
  uint64_t allocations[kPools] = {};
  int done = 0;
  for (; done < count; ++done) {
    const uint64_t bits = random.Next();
    Slot& slot = slots[Random::Scale(bits >> 32, slot_count)];
    if constexpr (kVerify) {
      if (!Check(chain, slot)) break;
    }
    heap.Release<kSites>(slot.block);
    const uint32_t size = RandomSize(options, bits);
    if (!Fill<kVerify, kSites>(chain, heap, &slot, size)) [[unlikely]]
      break;
    ++allocations[PoolOf(size)];
  }
  chain->random = random;
  chain->operations += static_cast<uint64_t>(done);
  for (int pool = 0; pool < kPools; ++pool) {
    chain->allocations[pool] += allocations[pool];
  }
}

// A thread's whole life.
void Live(Chain* chain) {
  Run* const run = chain->run;
  Clock::time_point deadline;
  {
    std::unique_lock<std::mutex> lock(run->mutex);
    run->changed.wait(lock, [run] { return run->open; });
    deadline = run->deadline;
  }
  const uint64_t life = static_cast<uint64_t>(run->options.rounds) *
                        static_cast<uint64_t>(run->options.blocks_per_thread);
  for (uint64_t left = life;
       left > 0 && chain->status.ok() && !chain->time_is_up;) {
    const int count = left < kBatch ? static_cast<int>(left) : kBatch;
    run->parts.replace(chain, count);
    left -= static_cast<uint64_t>(count);
    chain->time_is_up = Clock::now() >= deadline;
  }
  chain->end = Clock::now();
  std::lock_guard<std::mutex> lock(run->mutex);
  run->waiting.push_back(chain);
  run->changed.notify_all();
}

void CountLive(const Chain& chain, int64_t sign, int64_t counts[kPools]) {
  for (const Slot& slot : chain.slots) {
    counts[PoolOf(slot.size)] += sign;
  }
}

template <bool kVerify, bool kSites>
void FillChain(Chain* chain) {
  const LarsonOptions& options = chain->run->options;
  for (Slot& slot : chain->slots) {
    const uint32_t size = RandomSize(options, chain->random.Next());
    if (!Fill<kVerify, kSites>(chain, chain->run->heap, &slot, size)) return;
  }
}

template <bool kVerify, bool kSites>
void EmptyChain(Chain* chain) {
  for (Slot& slot : chain->slots) {
    if (kVerify && !Check(chain, slot)) return;
    chain->run->heap.Release<kSites>(slot.block);
  }
}

template <bool kVerify, bool kSites>
constexpr Parts kParts = {&FillChain<kVerify, kSites>,
                          &Replace<kVerify, kSites>,
                          &EmptyChain<kVerify, kSites>};

const Parts& PartsFor(bool verify, bool sites) {
  if (verify) return sites ? kParts<true, true> : kParts<true, false>;
  return sites ? kParts<false, true> : kParts<false, false>;
}

// Starts the threads, and successors for those that end, until the time is up.
// Returns when the timed part began.
//
// The main thread starts the successors, not the thread that ends, for two
// reasons. It can join the old thread first: an allocator flushes a thread's
// caches at its very end, and so the number of threads is what the user asked
// for, and `--threads=1` is correct on an allocator that has no locks at all.
// And glibc reuses stacks of ended threads under a lock that Helgrind cannot
// see, which it reports as a race if several threads start others.
Clock::time_point RunChains(Run* run,
                            std::vector<std::unique_ptr<Chain>>* chains) {
  for (auto& chain : *chains) chain->owner = std::thread(Live, chain.get());
  std::unique_lock<std::mutex> lock(run->mutex);
  const Clock::time_point start = Clock::now();
  run->deadline =
      start + std::chrono::duration_cast<Clock::duration>(
                  std::chrono::duration<double>(run->options.seconds));
  run->open = true;
  run->changed.notify_all();
  for (size_t running = chains->size(); running > 0;) {
    run->changed.wait(lock, [run] { return !run->waiting.empty(); });
    Chain* const chain = run->waiting.back();
    run->waiting.pop_back();
    lock.unlock();
    chain->owner.join();
    if (chain->status.ok() && !chain->time_is_up) {
      ++chain->handovers;
      chain->owner = std::thread(Live, chain);
    } else {
      --running;
    }
    lock.lock();
  }
  return start;
}

}  // namespace

LarsonHeap SystemHeap() {
  return {.allocate = &std::malloc, .release = &std::free};
}

absl::Status ValidateLarsonOptions(const LarsonOptions& options) {
  if (options.threads < 1 || options.threads > 4096) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--threads is %d; it has to be 1 to 4096", options.threads));
  }
  if (!std::isfinite(options.seconds) || options.seconds <= 0 ||
      options.seconds > 86400) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--seconds is %g; it has to be above 0 and at most 86400",
        options.seconds));
  }
  constexpr size_t kMost = size_t{1} << 30;
  if (options.min_size < 1 || options.max_size > kMost) {
    return absl::InvalidArgumentError(
        absl::StrFormat("sizes are %u to %u; they have to be 1 to %u",
                        options.min_size, options.max_size, kMost));
  }
  if (options.min_size > options.max_size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--min_size is %u, which is more than --max_size, %u",
                        options.min_size, options.max_size));
  }
  if (options.blocks_per_thread < 1 || options.blocks_per_thread > 100000000) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--blocks_per_thread is %d; it has to be 1 to 100000000",
        options.blocks_per_thread));
  }
  if (options.rounds < 1) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--rounds is %d; it has to be 1 or more", options.rounds));
  }
  return absl::OkStatus();
}

absl::StatusOr<LarsonResult> RunLarson(const LarsonOptions& options,
                                       LarsonHeap heap,
                                       LarsonObserver observer) {
  Run run(options, heap, PartsFor(options.verify, heap.allocate_at != nullptr));
  std::vector<std::unique_ptr<Chain>> chains;
  // Room for all, so that the list does not allocate in the timed part.
  run.waiting.reserve(static_cast<size_t>(options.threads));
  for (int i = 0; i < options.threads; ++i) {
    chains.push_back(std::make_unique<Chain>(&run, i));
  }
  for (auto& chain : chains) {
    run.parts.fill(chain.get());
    if (!chain->status.ok()) return chain->status;
  }
  // A block freed in the timed part was live when it began or was allocated
  // during it, so frees by pool follow from two counts outside of it and cost
  // the loop nothing.
  int64_t frees[kPools] = {};
  for (auto& chain : chains) CountLive(*chain, 1, frees);

  if (observer.begin != nullptr) observer.begin(observer.context);
  const Clock::time_point start = RunChains(&run, &chains);
  if (observer.end != nullptr) observer.end(observer.context);

  LarsonResult result;
  for (auto& chain : chains) {
    if (!chain->status.ok()) return chain->status;
    CountLive(*chain, -1, frees);
    result.operations += chain->operations;
    result.handovers += chain->handovers;
    for (int pool = 0; pool < kPools; ++pool) {
      result.calls[pool] += chain->allocations[pool];
      frees[pool] += static_cast<int64_t>(chain->allocations[pool]);
    }
    const double seconds =
        std::chrono::duration<double>(chain->end - start).count();
    if (seconds > result.seconds) result.seconds = seconds;
  }
  for (int pool = 0; pool < kPools; ++pool) {
    result.calls[pool] += static_cast<uint64_t>(frees[pool]);
  }
  for (auto& chain : chains) {
    run.parts.empty(chain.get());
    if (!chain->status.ok()) return chain->status;
    result.blocks_verified += chain->verified;
  }
  return result;
}

}  // namespace hakmem::tools
