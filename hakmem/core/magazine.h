// Magazines: arrays of pointers to free blocks, which threads take and give
// from the top, and exchange as a whole through a depot.
//
// The idea is that of Bonwick & Adams, "Magazines and Vmem: Extending the Slab
// Allocator to Many CPUs and Arbitrary Resources", USENIX 2001.

#ifndef HAKMEM_CORE_MAGAZINE_H_
#define HAKMEM_CORE_MAGAZINE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hakmem {

// A magazine's memory comes in families, 64 bytes to 4 KiB, of which two words
// are its head: so there is room for 6, 14, 30, 62, 126, 254 or 510 blocks.
inline constexpr uint32_t kMagazineFamilies = 7;

constexpr size_t MagazineBytes(uint32_t family) { return size_t{64} << family; }

constexpr uint32_t MagazineCapacity(uint32_t family) {
  return static_cast<uint32_t>(MagazineBytes(family) / sizeof(void*)) - 2;
}

// The smallest family that has room for `capacity` blocks; the largest when
// none has.
constexpr uint32_t MagazineFamilyFor(uint32_t capacity) {
  uint32_t family = 0;
  while (family + 1 < kMagazineFamilies &&
         MagazineCapacity(family) < capacity) {
    ++family;
  }
  return family;
}

// Thread safety: none of its own. A magazine belongs to one thread, or to a
// stack; what hands it over orders the accesses. Invariants:
//  1. slots[0..count) are blocks of one class that belong to nobody else. While
//     a thread cache has the magazine installed, the count is in its top.
//  2. Its memory stays mapped when it is a magazine no more (see Metadata).
struct Magazine {
  std::atomic<uint32_t> next;  // in a stack: index of the one below, or 0
  uint16_t count;
  uint8_t family;
  // Always null. The fast path reads it as the slot below the first one and so
  // finds that there is no block, without knowing where the magazine begins.
  void* floor;
  void* slots[1];  // as many as MagazineCapacity(family)

  uint32_t capacity() const { return MagazineCapacity(family); }
};

static_assert(offsetof(Magazine, slots) == 16);

// A lock-free stack of magazines (Treiber, "Systems programming: coping with
// parallelism", IBM RJ 5118, 1986). The head carries a tag that changes with
// every operation, so that a head which went and came back is not mistaken for
// one that stayed.
//
// Thread safety: every function may be called from any thread. What a thread
// did before Push() happened before what another does after the Pop() that
// returned the same magazine.
class MagazineStack {
 public:
  constexpr MagazineStack() = default;

  void Push(Magazine* magazine);
  Magazine* Pop();  // null when there is none

 private:
  std::atomic<uint64_t> head_{0};  // tag above, index below
};

// All empty magazines that no thread has.
class MagazineStore {
 public:
  constexpr MagazineStore() = default;

  // An empty magazine of the family, or null when metadata has run out. Its
  // contents are unspecified but for count (0), family and floor.
  Magazine* Get(uint32_t family);

  // Takes one that is empty; its count need not be up to date.
  void Put(Magazine* magazine);

  // Gives all of them back to the metadata, for tables of any kind.
  void Release();

 private:
  struct alignas(64) Shelf {
    MagazineStack stack;
  };
  std::array<Shelf, kMagazineFamilies> shelves_;
};

extern constinit MagazineStore magazine_store;

}  // namespace hakmem

#endif  // HAKMEM_CORE_MAGAZINE_H_
