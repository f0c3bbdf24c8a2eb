#include "hakmem/core/large.h"

#include <algorithm>

#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"
#include "hakmem/core/report.h"

namespace hakmem {

constinit DirectMappings direct_mappings;

namespace {

constexpr uintptr_t kGone = 1;
constexpr size_t kFirstCapacity = os::kPageSize / 8;

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

// For those who look from outside.
void DirectMappings::ShowFigures() {
  hak_observed.direct_bytes.store(mapped_bytes(), std::memory_order_relaxed);
  hak_observed.direct_count.store(live_, std::memory_order_relaxed);
}

void* DirectMappings::Map(size_t bytes, size_t alignment, Tag tag) {
  bytes = PageUp(bytes);
  if (bytes == 0) return nullptr;
  if (!arena.Hold(bytes)) return nullptr;
  if (void* const block = os::Map(bytes, alignment)) {
    {
      MutexLock lock(mu_);
      if (MakeRoom()) {
        Insert({reinterpret_cast<uintptr_t>(block), bytes, tag});
        mapped_.fetch_add(bytes, std::memory_order_relaxed);
        ShowFigures();
        return block;
      }
    }
    os::Unmap(block, bytes);
  }
  arena.LetGo(bytes);
  return nullptr;
}

bool DirectMappings::Unmap(const void* block, FreedLarge* freed) {
  size_t bytes = 0;
  {
    MutexLock lock(mu_);
    Entry* const entry = Find(reinterpret_cast<uintptr_t>(block));
    if (entry == nullptr) return false;
    bytes = entry->bytes;
    if (freed != nullptr) *freed = {bytes, entry->tag};
    entry->address = kGone;
    --live_;
    mapped_.fetch_sub(bytes, std::memory_order_relaxed);
    ShowFigures();
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
    const Tag tag = entry->tag;
    entry->address = kGone;
    --live_;
    Insert({reinterpret_cast<uintptr_t>(resized), bytes, tag});
  }
  mapped_.fetch_add(bytes - old_bytes, std::memory_order_relaxed);
  ShowFigures();
  return resized;
}

size_t DirectMappings::SizeOf(const void* block) {
  MutexLock lock(mu_);
  const Entry* const entry = Find(reinterpret_cast<uintptr_t>(block));
  return entry == nullptr ? 0 : entry->bytes;
}

Tag DirectMappings::TagOf(const void* block) {
  MutexLock lock(mu_);
  const Entry* const entry = Find(reinterpret_cast<uintptr_t>(block));
  return entry == nullptr ? kNoTag : entry->tag;
}

void DirectMappings::SetTag(const void* block, Tag tag) {
  MutexLock lock(mu_);
  Entry* const entry = Find(reinterpret_cast<uintptr_t>(block));
  if (entry != nullptr) entry->tag = tag;
}

void DirectMappings::Sweep(uint32_t clock, uint32_t elapsed) {
  MutexLock lock(mu_);
  for (size_t i = 0; i < capacity_; ++i) {
    if (table_[i].address <= kGone) continue;
    std::atomic<Tag> tag{table_[i].tag};
    MarkIfOld(tag, clock, elapsed);
    table_[i].tag = tag.load(std::memory_order_relaxed);
  }
}

void DirectMappings::ForEachBlock(void (*fn)(void*, Tag, uint64_t),
                                  void* context) {
  MutexLock lock(mu_);
  for (size_t i = 0; i < capacity_; ++i) {
    const Entry& entry = table_[i];
    if (entry.address <= kGone || entry.tag == kNoTag) continue;
    fn(context, entry.tag, entry.bytes);
  }
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

void* AllocateLarge(size_t size, size_t alignment, bool* zeroed, Tag tag) {
  if (size > PTRDIFF_MAX || alignment > PTRDIFF_MAX - size) return nullptr;
  const uint32_t granules = GranulesFor(size);
  if (granules != 0) {
    void* const memory = arena.AllocateMetadata(Metadata::kUnit);
    static_assert(sizeof(LargeSpan) <= Metadata::kUnit);
    if (memory != nullptr) {
      auto* const span = static_cast<LargeSpan*>(memory);
      span->kind = Span::Kind::kLarge;
      span->size_class = kNoClass;
      HelgrindIgnore(&span->tag, sizeof(span->tag));
      span->tag.store(tag, std::memory_order_relaxed);
      if (arena.AllocateRun(span, granules, alignment, zeroed)) {
        return arena.AddressOf(span->start);
      }
      arena.FreeMetadata(memory, Metadata::kUnit);
    }
  }
  if (arena.options().direct_maps == 0) return nullptr;
  if (zeroed != nullptr) *zeroed = true;
  return direct_mappings.Map(size, alignment, tag);
}

FreedLarge FreeLarge(void* block) {
  FreedLarge freed = {0, kNoTag};
  if (arena.Contains(block)) {
    auto* const span = static_cast<LargeSpan*>(arena.FreeLarge(block));
    if (span == nullptr) DieOfBadPointer(block);
    freed = {span->granules * kGranuleSize,
             span->tag.load(std::memory_order_relaxed)};
    arena.FreeMetadata(span, Metadata::kUnit);
  } else if (!direct_mappings.Unmap(block, &freed)) {
    DieOfBadPointer(block);
  }
  return freed;
}

namespace {

// The span of a large block that the caller has; null for a direct mapping.
LargeSpan* LargeSpanOf(const void* block) {
  if (!arena.Contains(block)) return nullptr;
  Span* const span = arena.SpanOf(block);
  return span != nullptr && span->kind == Span::Kind::kLarge
             ? static_cast<LargeSpan*>(span)
             : nullptr;
}

}  // namespace

Tag LargeTag(const void* block) {
  const LargeSpan* const span = LargeSpanOf(block);
  return span != nullptr ? span->tag.load(std::memory_order_relaxed)
                         : direct_mappings.TagOf(block);
}

void SetLargeTag(void* block, Tag tag) {
  LargeSpan* const span = LargeSpanOf(block);
  if (span != nullptr) {
    span->tag.store(tag, std::memory_order_relaxed);
  } else {
    direct_mappings.SetTag(block, tag);
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
  LargeSpan* const span = LargeSpanOf(block);
  if (granules == 0 || span == nullptr) return nullptr;
  return arena.ResizeRun(span, granules) ? block : nullptr;
}

}  // namespace hakmem
