#include "hakmem/core/large.h"

#include <algorithm>

#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"
#include "hakmem/core/report.h"

namespace hakmem {

constinit DirectMappings direct_mappings;

namespace {

constexpr uintptr_t kGone = 1;
constexpr size_t kFirstCapacity = os::kPageSize / 16;

// Mappings start at pages, so the low bits say nothing.
size_t Hash(uintptr_t address) {
  return static_cast<size_t>((address >> 12) * 0x9E3779B97F4A7C15u >> 20);
}

// Whole pages for `bytes` bytes, one at least; 0 when they cannot be counted.
size_t PageUp(size_t bytes) {
  return (std::max<size_t>(bytes, 1) + os::kPageSize - 1) &
         ~(os::kPageSize - 1);
}

// Granules for `size` bytes, or 0 when that is more than any arena holds.
uint32_t GranulesFor(size_t size) {
  constexpr size_t kMost = size_t{1} << 31;
  const size_t granules =
      (size >> kGranuleShift) + ((size & (kGranuleSize - 1)) != 0 ? 1 : 0);
  return granules < kMost ? static_cast<uint32_t>(std::max<size_t>(granules, 1))
                          : 0;
}

// Ends the program for a pointer that is no block: says which kind of error it
// is as far as the maps can tell.
[[noreturn]] void DieOfBadPointer(const void* block) {
  if (!arena.Contains(block)) {
    Die("not a block of this heap: foreign or freed pointer", block);
  }
  if (reinterpret_cast<uintptr_t>(block) % 8 != 0) {
    Die("misaligned pointer, no block begins", block);
  }
  const Span* const span = arena.SpanOf(block);
  if (span != nullptr) {
    Die("pointer into the middle of a large block,", block);
  }
  Die("double free of a large block, or a pointer that never was one,", block);
}

}  // namespace

DirectMappings::Entry* DirectMappings::Find(uintptr_t address) {
  // Not an address, but what entries hold that have none.
  if (capacity_ == 0 || address <= kGone) return nullptr;
  for (size_t i = Hash(address);; ++i) {
    Entry& entry = table_[i & (capacity_ - 1)];
    if (entry.address == address) return &entry;
    if (entry.address == 0) return nullptr;
  }
}

void DirectMappings::Insert(Entry entry) {
  for (size_t i = Hash(entry.address);; ++i) {
    Entry& slot = table_[i & (capacity_ - 1)];
    if (slot.address > kGone) continue;
    if (slot.address == 0) ++filled_;
    slot = entry;
    ++live_;
    return;
  }
}

// Keeps a quarter of the table empty, so that searches end soon; entries that
// are gone go at each rebuilding.
bool DirectMappings::MakeRoom() {
  if (capacity_ != 0 && (filled_ + 1) * 4 <= capacity_ * 3) return true;
  const size_t new_capacity =
      capacity_ == 0 ? kFirstCapacity
                     : (live_ * 2 >= capacity_ ? capacity_ * 2 : capacity_);
  void* const memory = os::Map(new_capacity * sizeof(Entry), os::kPageSize);
  if (memory == nullptr) return false;
  Entry* const old_table = table_;
  const size_t old_capacity = capacity_;
  table_ = static_cast<Entry*>(memory);
  capacity_ = new_capacity;
  filled_ = live_ = 0;
  for (size_t i = 0; i < old_capacity; ++i) {
    if (old_table[i].address > kGone) Insert(old_table[i]);
  }
  if (old_table != nullptr) {
    os::Unmap(old_table, old_capacity * sizeof(Entry));
  }
  return true;
}

void* DirectMappings::Map(size_t bytes, size_t alignment) {
  bytes = PageUp(bytes);
  if (bytes == 0) return nullptr;
  if (!arena.Hold(bytes)) return nullptr;
  if (void* const block = os::Map(bytes, alignment)) {
    {
      MutexLock lock(mu_);
      if (MakeRoom()) {
        Insert({reinterpret_cast<uintptr_t>(block), bytes});
        mapped_.fetch_add(bytes, std::memory_order_relaxed);
        return block;
      }
    }
    os::Unmap(block, bytes);
  }
  arena.LetGo(bytes);
  return nullptr;
}

bool DirectMappings::Unmap(const void* block) {
  size_t bytes = 0;
  {
    MutexLock lock(mu_);
    Entry* const entry = Find(reinterpret_cast<uintptr_t>(block));
    if (entry == nullptr) return false;
    bytes = entry->bytes;
    entry->address = kGone;
    --live_;
    mapped_.fetch_sub(bytes, std::memory_order_relaxed);
  }
  os::Unmap(const_cast<void*>(block), bytes);
  arena.LetGo(bytes);
  return true;
}

void* DirectMappings::Resize(void* block, size_t bytes) {
  bytes = PageUp(bytes);
  if (bytes == 0) return nullptr;
  // The program's own block, so its size stays what it is meanwhile.
  const size_t old_bytes = SizeOf(block);
  if (old_bytes == 0) return nullptr;
  if (bytes == old_bytes) return block;
  if (bytes > old_bytes && !arena.Hold(bytes - old_bytes)) return nullptr;
  void* const resized = Move(block, bytes);
  const size_t now = resized == nullptr ? old_bytes : bytes;
  const size_t held = std::max(bytes, old_bytes);
  if (held > now) arena.LetGo(held - now);
  return resized;
}

// All under the lock: the address that a move leaves may be another thread's
// next mapping, and must not be in the table twice.
void* DirectMappings::Move(void* block, size_t bytes) {
  MutexLock lock(mu_);
  // A move needs an entry more for as long as the old one is known as gone.
  if (!MakeRoom()) return nullptr;
  Entry* const entry = Find(reinterpret_cast<uintptr_t>(block));
  if (entry == nullptr) return nullptr;
  const size_t old_bytes = entry->bytes;
  void* const resized = os::Remap(block, old_bytes, bytes);
  if (resized == nullptr) return nullptr;
  if (resized == block) {
    entry->bytes = bytes;
  } else {
    entry->address = kGone;
    --live_;
    Insert({reinterpret_cast<uintptr_t>(resized), bytes});
  }
  mapped_.fetch_add(bytes - old_bytes, std::memory_order_relaxed);
  return resized;
}

size_t DirectMappings::SizeOf(const void* block) {
  MutexLock lock(mu_);
  const Entry* const entry = Find(reinterpret_cast<uintptr_t>(block));
  return entry == nullptr ? 0 : entry->bytes;
}

DirectMappings::Residency DirectMappings::GetResidency() {
  MutexLock lock(mu_);
  Residency residency = {};
  if (capacity_ == 0) return residency;
  residency.table = os::ResidentBytes(table_, capacity_ * sizeof(Entry));
  for (size_t i = 0; i < capacity_; ++i) {
    if (table_[i].address <= kGone) continue;
    residency.blocks += os::ResidentBytes(
        reinterpret_cast<void*>(table_[i].address), table_[i].bytes);
  }
  return residency;
}

void* AllocateLarge(size_t size, size_t alignment, bool* zeroed) {
  if (size > PTRDIFF_MAX || alignment > PTRDIFF_MAX - size) return nullptr;
  const uint32_t granules = GranulesFor(size);
  if (granules != 0 && arena.EnsureReady()) {
    void* const memory = arena.metadata().Allocate(Metadata::kUnit);
    static_assert(sizeof(Span) <= Metadata::kUnit);
    if (memory != nullptr) {
      auto* const span = static_cast<Span*>(memory);
      span->kind = Span::Kind::kLarge;
      span->size_class = kNoClass;
      if (arena.AllocateRun(span, granules, alignment, zeroed)) {
        return arena.AddressOf(span->start);
      }
      arena.metadata().Free(memory, Metadata::kUnit);
    }
  }
  if (arena.options().direct_maps == 0) return nullptr;
  if (zeroed != nullptr) *zeroed = true;
  return direct_mappings.Map(size, alignment);
}

void FreeLarge(void* block) {
  if (arena.Contains(block)) {
    Span* const span = arena.FreeLarge(block);
    if (span == nullptr) DieOfBadPointer(block);
    arena.metadata().Free(span, Metadata::kUnit);
  } else if (!direct_mappings.Unmap(block)) {
    DieOfBadPointer(block);
  }
}

size_t LargeSize(const void* block) {
  if (arena.Contains(block)) {
    const Span* const span = arena.SpanOf(block);
    if (span == nullptr || span->kind != Span::Kind::kLarge ||
        arena.AddressOf(span->start) != block) {
      DieOfBadPointer(block);
    }
    return span->granules * kGranuleSize;
  }
  const size_t size = direct_mappings.SizeOf(block);
  if (size == 0) DieOfBadPointer(block);
  return size;
}

void* ResizeLarge(void* block, size_t size) {
  LargeSize(block);  // ends the program when it is no block
  if (!arena.Contains(block)) return direct_mappings.Resize(block, size);
  const uint32_t granules = GranulesFor(size);
  return granules != 0 && arena.ResizeRun(arena.SpanOf(block), granules)
             ? block
             : nullptr;
}

}  // namespace hakmem
