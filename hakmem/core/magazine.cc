#include "hakmem/core/magazine.h"

#include "hakmem/core/arena.h"
#include "hakmem/core/mutex.h"

namespace hakmem {

constinit MagazineStore magazine_store;

namespace {

constexpr uint64_t kIndexMask = 0xffffffffu;
constexpr uint64_t kTagStep = kIndexMask + 1;

Magazine* FromIndex(uint64_t head) {
  const auto index = static_cast<uint32_t>(head & kIndexMask);
  if (index == 0) return nullptr;
  return static_cast<Magazine*>(arena.metadata().FromIndex(index));
}

}  // namespace

void MagazineStack::Push(Magazine* magazine) {
  const uint32_t index = arena.metadata().IndexOf(magazine);
  HelgrindRelease(magazine);
  uint64_t head = head_.load(std::memory_order_relaxed);
  uint64_t next_head;
  do {
    magazine->next.store(static_cast<uint32_t>(head & kIndexMask),
                         std::memory_order_relaxed);
    next_head = ((head & ~kIndexMask) + kTagStep) | index;
  } while (!head_.compare_exchange_weak(
      head, next_head, std::memory_order_release, std::memory_order_relaxed));
}

Magazine* MagazineStack::Pop() {
  uint64_t head = head_.load(std::memory_order_acquire);
  Magazine* magazine;
  uint64_t next_head;
  do {
    magazine = FromIndex(head);
    if (magazine == nullptr) return nullptr;
    // Another thread may have taken this magazine already and given it a new
    // neighbour: then the tag has changed and what is read here is not used.
    next_head = ((head & ~kIndexMask) + kTagStep) |
                magazine->next.load(std::memory_order_relaxed);
  } while (!head_.compare_exchange_weak(
      head, next_head, std::memory_order_acquire, std::memory_order_acquire));
  HelgrindAcquire(magazine);
  return magazine;
}

Magazine* MagazineStore::Get(uint32_t family) {
  Magazine* magazine = shelves_[family].stack.Pop();
  if (magazine == nullptr) {
    if (!arena.EnsureReady()) return nullptr;
    magazine = static_cast<Magazine*>(
        arena.metadata().Allocate(MagazineBytes(family)));
    if (magazine == nullptr) return nullptr;
    HelgrindIgnore(&magazine->next, sizeof(magazine->next));
    HelgrindIgnore(&shelves_[family], sizeof(Shelf));
    magazine->family = static_cast<uint8_t>(family);
    magazine->floor = nullptr;
  }
  magazine->count = 0;
  return magazine;
}

void MagazineStore::Put(Magazine* magazine) {
  shelves_[magazine->family].stack.Push(magazine);
}

}  // namespace hakmem
