#include "hakmem/core/locked_pool.h"

#include "hakmem/core/report.h"

namespace hakmem {
namespace {

constexpr uint8_t kUnlisted = 0xff;

void Link(Slab*& head, Slab* slab) {
  slab->previous = nullptr;
  slab->next = head;
  if (head != nullptr) head->previous = slab;
  head = slab;
}

void Unlink(Slab*& head, Slab* slab) {
  if (slab->previous != nullptr) {
    slab->previous->next = slab->next;
  } else {
    head = slab->next;
  }
  if (slab->next != nullptr) slab->next->previous = slab->previous;
}

}  // namespace

bool LockedPool::Activate(ClassState& state, SizeClass size_class) {
  // The old one has no free block left: it is in no list until one comes back.
  if (state.active != nullptr) state.active->bucket = kUnlisted;
  for (Slab*& head : state.lists) {
    if (head == nullptr) continue;
    state.active = head;
    Unlink(head, state.active);
    return true;
  }
  state.active = Slab::Create(size_class);
  return state.active != nullptr;
}

void LockedPool::File(ClassState& state, Slab* slab) {
  if (slab->free_count == slab->blocks) {
    if (slab->bucket != kUnlisted) Unlink(state.lists[slab->bucket], slab);
    Slab::Destroy(slab);
    return;
  }
  const auto bucket =
      static_cast<uint8_t>(slab->free_count * kBuckets / slab->blocks);
  if (bucket == slab->bucket) return;
  if (slab->bucket != kUnlisted) Unlink(state.lists[slab->bucket], slab);
  slab->bucket = bucket;
  Link(state.lists[bucket], slab);
}

void* LockedPool::Allocate(SizeClass size_class) {
  MutexLock lock(mu_);
  ClassState& state = StateOf(size_class);
  if (state.active == nullptr || state.active->free_count == 0) {
    if (!Activate(state, size_class)) return nullptr;
  }
  return state.active->TakeOne();
}

uint32_t LockedPool::AllocateBatch(SizeClass size_class, void** out,
                                   uint32_t count) {
  MutexLock lock(mu_);
  ClassState& state = StateOf(size_class);
  uint32_t left = count;
  while (left != 0) {
    if (state.active == nullptr || state.active->free_count == 0) {
      if (!Activate(state, size_class)) break;
    }
    left -= state.active->Take(out, left);
  }
  // Blocks were written from the end: close the gap that memory left.
  if (left != 0) {
    for (uint32_t i = left; i < count; ++i) out[i - left] = out[i];
  }
  return count - left;
}

void LockedPool::FreeLocked(SizeClass size_class, void* block) {
  auto* const slab = static_cast<Slab*>(arena.SpanOf(block));
  if (slab == nullptr || slab->size_class != size_class) [[unlikely]] {
    // Its slab went away after the class map was read: it had no live block.
    Die("double free of the block", block);
  }
  slab->Put(block);
  ClassState& state = StateOf(size_class);
  if (slab != state.active) File(state, slab);
}

void LockedPool::Free(SizeClass size_class, void* block) {
  MutexLock lock(mu_);
  FreeLocked(size_class, block);
}

void LockedPool::FreeBatch(SizeClass size_class, void* const* blocks,
                           uint32_t count) {
  MutexLock lock(mu_);
  for (uint32_t i = 0; i < count; ++i) FreeLocked(size_class, blocks[i]);
}

size_t LockedPool::ReleaseEmptySlabs() {
  MutexLock lock(mu_);
  size_t released = 0;
  for (SizeClass i = 0; i < geometry_.classes(); ++i) {
    ClassState& state = classes_[i];
    Slab* const slab = state.active;
    if (slab == nullptr || slab->free_count != slab->blocks) continue;
    state.active = nullptr;
    released += slab->granules * kGranuleSize;
    Slab::Destroy(slab);
  }
  return released;
}

}  // namespace hakmem
