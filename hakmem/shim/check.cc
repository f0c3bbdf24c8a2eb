// What --config=checked compiles in: a look at what the program says of a block
// when it gives it back, resizes it or asks for its size.
//
// It finds a size or an alignment that is not the block's, which otherwise
// nobody asks, and a block that is none in calls that otherwise do not get as
// far as its slab. That config has the pools locked, so that every free reaches
// its slab in the call that makes it. No memory is needed beside the blocks;
// each look takes some dozen nanoseconds and the lock of a pool.

#include <bit>
#include <cstdint>
#include <cstdlib>

#include "hakmem/core/report.h"
#include "hakmem/shim/heap.h"
#include "hakmem/shim/stage.h"

namespace hakmem::heap {
namespace {

bool IsFreeInSlab(SizeClass size_class, const void* block) {
  const SizeClass plain = PlainOf(size_class);
  if (plain <= kLastTinyClass)
    return tiny_pool.backend().IsFree(size_class, block);
  if (plain <= kLastL2Class) return l2_pool.backend().IsFree(size_class, block);
  return l25_pool.backend().IsFree(size_class, block);
}

[[noreturn]] void DieOfSize(const void* block, size_t size, size_t usable) {
  Line line;
  line.Text("wrong size given back with a block: ").Number(size);
  line.Text(" bytes where it has ").Number(usable).Text(", at ").Address(block);
  line.Write();
  abort();
}

}  // namespace

void CheckLive(const void* block) {
  if (block == nullptr) return;
  const ErrnoKeeper keeper;
  const SizeClass size_class = arena.ClassOf(block);
  if (size_class == kNoClass) {
    LargeSize(block);  // ends the program when it is no block
  } else if (IsFreeInSlab(size_class, block)) {
    Die("double free or use after free of the block", block);
  }
}

void CheckSize(const void* block, size_t size, size_t alignment) {
  if (block == nullptr) return;
  const size_t usable = UsableSize(block);
  if (!std::has_single_bit(alignment) ||
      reinterpret_cast<uintptr_t>(block) % alignment != 0) {
    Die("wrong alignment given back with the block", block);
  }
  const SizeClass size_class = arena.ClassOf(block);
  // Any block may be a run of its own where its class had none left.
  const bool fits = size_class != kNoClass
                        ? size_class == (IsTwin(size_class)
                                             ? TwinOf(ClassFor(size, alignment))
                                             : ClassFor(size, alignment))
                        : size <= usable && usable - size <= kGranuleSize;
  if (!fits) DieOfSize(block, size, usable);
}

}  // namespace hakmem::heap
