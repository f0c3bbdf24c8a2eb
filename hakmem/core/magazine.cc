#include "hakmem/core/magazine.h"

#include "absl/base/attributes.h"
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
  return static_cast<Magazine*>(arena.PieceAt(index));
}

// The link of a magazine that another thread may have taken since, and even
// have given back to the metadata, where it became something else: then the
// value is of no use, and the head's tag says so. That read races with whatever
// the memory is by then, which is why TSan is not to look.
ABSL_ATTRIBUTE_NO_SANITIZE_THREAD uint32_t ReadLink(const Magazine* magazine) {
  return *reinterpret_cast<const volatile uint32_t*>(&magazine->next);
}

}  // namespace

void MagazineStack::Push(Magazine* magazine) {
  const uint32_t index = arena.IndexOf(magazine);
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
    next_head = ((head & ~kIndexMask) + kTagStep) | ReadLink(magazine);
  } while (!head_.compare_exchange_weak(
      head, next_head, std::memory_order_acquire, std::memory_order_acquire));
  HelgrindAcquire(magazine);
  return magazine;
}

Magazine* MagazineStore::Get(uint32_t family) {
  Magazine* magazine = shelves_[family].stack.Pop();
  if (magazine == nullptr) {
    magazine =
        static_cast<Magazine*>(arena.AllocateMetadata(MagazineBytes(family)));
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

void MagazineStore::Release() {
  for (uint32_t family = 0; family < kMagazineFamilies; ++family) {
    while (Magazine* const magazine = shelves_[family].stack.Pop()) {
      arena.FreeMetadata(magazine, MagazineBytes(family));
    }
  }
}

}  // namespace hakmem
