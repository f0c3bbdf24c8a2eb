// Large blocks: what is above 1 MiB, or aligned beyond what slabs give, and
// whatever the arena has no room for.
//
// A large block is a run of granules of its own. Its memory stays with the
// arena when it is freed, within the arena's bound, so that a program which
// keeps replacing large buffers does not pay for fresh pages each time. What
// does not fit into the arena, of any size, is a direct mapping of the system:
// slower, and as correct.

#ifndef HAKMEM_CORE_LARGE_H_
#define HAKMEM_CORE_LARGE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/tag.h"

namespace hakmem {

// A large block's span in the arena.
struct LargeSpan : Span {
  std::atomic<Tag> tag;
};

// What was known of a large block that is gone.
struct FreedLarge {
  size_t bytes;
  Tag tag;
};

// The direct mappings, by address: an open hash table in memory of its own.
//
// Thread safety: every function may be called from any thread.
class DirectMappings {
 public:
  constexpr DirectMappings() = default;

  // Maps at least `bytes` zeroed bytes at a multiple of `alignment`, a power of
  // two, whose block has this tag. Null when the system refuses.
  void* Map(size_t bytes, size_t alignment, Tag tag = kNoTag)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Unmaps the block; false when it is none of these. `*freed`, unless null,
  // says what it was.
  bool Unmap(const void* block, FreedLarge* freed = nullptr)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Resizes the block to at least `bytes` bytes, where it stands or elsewhere
  // at a page; returns where. Null, and nothing changed, when it is none of
  // these or the system refuses.
  void* Resize(void* block, size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // The block's tag; kNoTag also when it is none of these.
  Tag TagOf(const void* block) ABSL_LOCKS_EXCLUDED(mu_);
  void SetTag(const void* block, Tag tag) ABSL_LOCKS_EXCLUDED(mu_);

  // As TagClock has it, and ForEachTaggedBlock(), for the blocks here.
  void Sweep(uint32_t clock, uint32_t elapsed) ABSL_LOCKS_EXCLUDED(mu_);
  void ForEachBlock(void (*fn)(void* context, Tag tag, uint64_t bytes),
                    void* context) ABSL_LOCKS_EXCLUDED(mu_);

  // Size of the block in bytes, or 0 when it is none of these.
  size_t SizeOf(const void* block) ABSL_LOCKS_EXCLUDED(mu_);

  size_t mapped_bytes() const {
    return mapped_.load(std::memory_order_relaxed);
  }

  // Of the table, and what the system backs with memory: of the blocks, asked
  // page by page, and of the table. In bytes.
  size_t table_bytes() ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    return capacity_ * sizeof(Entry);
  }
  struct Residency {
    size_t blocks;
    size_t table;
  };
  Residency GetResidency() ABSL_LOCKS_EXCLUDED(mu_);

  // How many there are.
  size_t count() ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    return live_;
  }

  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

 private:
  struct Entry {
    uintptr_t address;  // 0: never used; kGone: used before
    size_t bytes;
    Tag tag;
  };

  void* Move(void* block, size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  Entry* Find(uintptr_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowFigures() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Insert(Entry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_{Mutex::Locking::kInner};
  Entry* table_ ABSL_GUARDED_BY(mu_) = nullptr;
  size_t capacity_ ABSL_GUARDED_BY(mu_) = 0;  // a power of two, or 0
  size_t filled_ ABSL_GUARDED_BY(mu_) = 0;    // entries that are not 0
  size_t live_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<size_t> mapped_{0};
};

extern constinit DirectMappings direct_mappings;

// A block of at least `size` bytes at a multiple of `alignment`, a power of
// two, or null. `*zeroed`, unless null, says whether it reads as zero. It is
// tracked if `tag` is one.
void* AllocateLarge(size_t size, size_t alignment, bool* zeroed,
                    Tag tag = kNoTag);

// Takes back a block that is in no slab. Ends the program with one line when
// `block` was not handed out by hakmem or is free already.
FreedLarge FreeLarge(void* block);

// The tag of a block that is in no slab; kNoTag where there is no such block.
Tag LargeTag(const void* block);

// Gives a block that is in no slab and tracked another tag.
void SetLargeTag(void* block, Tag tag);

// Bytes of a block that is in no slab. Ends the program when it is no block.
size_t LargeSize(const void* block);

// Resizes a block that is in no slab without copying it: a run of the arena in
// place, a direct mapping by the page tables. Returns where it is now, or null
// when that cannot be done and the block is as it was.
void* ResizeLarge(void* block, size_t size);

}  // namespace hakmem

#endif  // HAKMEM_CORE_LARGE_H_
