// A libFuzzer target: an input is a program of calls of the native API, which
// up to four threads run at once on blocks that they share.
//
// The first byte says how many threads; each four bytes after it are a call:
//   0  bits 0-2 what (Call), bits 3-4 which thread
//   1  which of kSlots places holds the block
//   2  size: power of two (modulo kSizes; the last ones cannot be served)
//   3  size: what is added to it, in 256ths; also the alignment's power
// A place that holds a block is emptied before another goes there. At the end
// every block is checked once more and given back.

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "hakmem/shim/fuzz/block_model.h"
#include "hakmem/shim/hakmem.h"

namespace hakmem::fuzz {
namespace {

enum class Call : uint8_t {
  kAlloc,
  kCalloc,
  kAligned,
  kRealloc,
  kFree,
  kCheck,
  kAllocAt,
  kFreeMany,
};

constexpr size_t kCallBytes = 4;
constexpr size_t kSlots = 64;
constexpr size_t kThreads = 4;
constexpr size_t kSizes = 25;       // powers of two to 4 MiB, then
constexpr size_t kImpossible = 23;  // those that have to fail
constexpr size_t kAlignments = 22;  // powers of two to 2 MiB

struct Slot {
  std::mutex mu;
  Block block;
};

struct State {
  Slot slots[kSlots];
  LiveBlocks live;
};

size_t SizeOf(const uint8_t* call) {
  const size_t power = call[2] % kSizes;
  if (power >= kImpossible) return SIZE_MAX - call[3];
  if (power == 0) return call[3] % 8;
  const size_t base = size_t{1} << power;
  return base + base * call[3] / 256 - (call[3] & 1);
}

void Give(State& state, Slot& slot, bool with_site) {
  Block& block = slot.block;
  if (block.address == nullptr) return;
  if (hak_usable_size(block.address) != block.usable) {
    Fail("changed its size", block.address, block.size);
  }
  block.Check(block.usable);
  state.live.Remove(block.address);
  if (with_site) {
    hak_free_at(block.address, 7);
  } else {
    hak_free(block.address);
  }
  block = Block();
}

// Puts what a call returned into the slot.
void Take(State& state, Slot& slot, void* result, size_t size, size_t alignment,
          uint64_t seed, bool zero) {
  if (result == nullptr) {
    if (size <= PTRDIFF_MAX || errno != ENOMEM) {
      Fail("was refused", result, size);
    }
    return;
  }
  if (size > PTRDIFF_MAX) Fail("is too large to exist", result, size);
  slot.block.Adopt(result, size, alignment, seed);
  state.live.Add(result, slot.block.usable);
  if (zero) slot.block.CheckZero();
  slot.block.Fill();
}

size_t NaturalAlignment(size_t size) { return size <= 8 ? 8 : 16; }

void Resize(State& state, Slot& slot, size_t size, uint64_t seed) {
  Block old = slot.block;
  if (old.address != nullptr) state.live.Remove(old.address);
  void* const result = hak_realloc(old.address, size);
  if (old.address != nullptr && size == 0) {
    if (result != nullptr) Fail("of size 0 was not freed", result, size);
    slot.block = Block();
    return;
  }
  if (result == nullptr && old.address != nullptr) {
    if (size <= PTRDIFF_MAX) Fail("was refused", result, size);
    state.live.Add(old.address, old.usable);
    old.Check(old.usable);
    return;
  }
  if (result != nullptr && old.address != nullptr) {
    // What it held came along.
    Block moved = old;
    moved.address = static_cast<unsigned char*>(result);
    moved.Check(std::min(old.usable, size));
  }
  slot.block = Block();
  Take(state, slot, result, size, NaturalAlignment(size), seed, false);
}

void Run(State& state, const uint8_t* call, uint64_t seed) {
  Slot& slot = state.slots[call[1] % kSlots];
  const size_t size = SizeOf(call);
  const Call what = static_cast<Call>(call[0] % 8);
  const std::lock_guard lock(slot.mu);
  errno = 0;
  switch (what) {
    case Call::kAlloc:
    case Call::kAllocAt:
      Give(state, slot, what == Call::kAllocAt);
      Take(state, slot,
           what == Call::kAlloc ? hak_alloc(size) : hak_alloc_at(size, 7), size,
           NaturalAlignment(size), seed, false);
      break;
    case Call::kCalloc: {
      Give(state, slot, false);
      const size_t count = call[3] % 5 + 1;
      // The product has to fit, unless it is to fail.
      const size_t each = size > PTRDIFF_MAX ? size : size / count;
      const size_t total = size > PTRDIFF_MAX ? size : each * count;
      Take(state, slot, hak_calloc(count, each), total, NaturalAlignment(total),
           seed, true);
      break;
    }
    case Call::kAligned: {
      Give(state, slot, false);
      const size_t alignment = size_t{1} << (call[3] % kAlignments);
      Take(state, slot, hak_aligned_alloc(alignment, size), size, alignment,
           seed, false);
      break;
    }
    case Call::kRealloc:
      Resize(state, slot, size, seed);
      break;
    case Call::kFree:
      Give(state, slot, false);
      break;
    case Call::kCheck:
      if (slot.block.address != nullptr) slot.block.Check(slot.block.usable);
      break;
    case Call::kFreeMany:
      // Many of one size at once, which reaches what a few do not: magazines
      // that are full, slabs that are.
      std::vector<void*> blocks(size <= 4096 ? 1 + call[3] * 4 : 0);
      for (void*& block : blocks) {
        block = hak_alloc(size);
        state.live.Add(block, hak_usable_size(block));
      }
      for (void* block : blocks) {
        state.live.Remove(block);
        hak_free(block);
      }
      break;
  }
}

// The calls of one thread, in their order.
void RunThread(State& state, const uint8_t* calls, size_t count, size_t thread,
               size_t threads) {
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* const call = calls + i * kCallBytes;
    if ((call[0] >> 3) % kThreads % threads == thread) {
      Run(state, call, i * 1000003);
    }
  }
}

}  // namespace
}  // namespace hakmem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hakmem::fuzz;  // NOLINT: all of the above
  if (size < 1 + kCallBytes) return 0;
  State state;
  const size_t threads = data[0] % kThreads + 1;
  const size_t count = (size - 1) / kCallBytes;
  std::vector<std::thread> others;
  for (size_t thread = 1; thread < threads; ++thread) {
    others.emplace_back([&state, data, count, thread, threads] {
      RunThread(state, data + 1, count, thread, threads);
    });
  }
  RunThread(state, data + 1, count, 0, threads);
  for (std::thread& other : others) other.join();
  for (Slot& slot : state.slots) Give(state, slot, false);
  return 0;
}
