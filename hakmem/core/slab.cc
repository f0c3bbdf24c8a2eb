#include "hakmem/core/slab.h"

#include <algorithm>

#include "hakmem/core/report.h"

namespace hakmem {

size_t Slab::MetadataBytes(SizeClass size_class) {
  const size_t bytes =
      sizeof(Slab) + (WordCount(size_class) - 1) * sizeof(uint64_t);
  return (bytes + Metadata::kUnit - 1) & ~(Metadata::kUnit - 1);
}

Slab* Slab::Create(SizeClass size_class) {
  if (!arena.EnsureReady()) return nullptr;
  const size_t metadata_bytes = MetadataBytes(size_class);
  void* const memory = arena.metadata().Allocate(metadata_bytes);
  if (memory == nullptr) return nullptr;
  auto* const slab = static_cast<Slab*>(memory);
  slab->kind = Kind::kSlab;
  slab->size_class = static_cast<uint8_t>(size_class);
  if (!arena.AllocateRun(slab, SlabGranules(size_class), kGranuleSize,
                         nullptr)) {
    arena.metadata().Free(memory, metadata_bytes);
    return nullptr;
  }
  const uint32_t blocks = SlabBlocks(size_class);
  slab->blocks = static_cast<uint16_t>(blocks);
  slab->free_count = static_cast<uint16_t>(blocks);
  slab->first_word = 0;
  slab->bucket = 0;
  slab->next = nullptr;
  slab->previous = nullptr;
  const size_t words = WordCount(size_class);
  std::fill_n(slab->free_bits, words, ~uint64_t{0});
  if (blocks % 64 != 0) {
    slab->free_bits[words - 1] = (uint64_t{1} << (blocks % 64)) - 1;
  }
  return slab;
}

void Slab::Destroy(Slab* slab) {
  const SizeClass size_class = slab->size_class;
  arena.FreeRun(slab);
  arena.metadata().Free(slab, MetadataBytes(size_class));
}

uint32_t Slab::Take(void** out, uint32_t count) {
  const uint32_t taken = std::min<uint32_t>(count, free_count);
  const size_t size = ClassSize(size_class);
  char* const base = arena.AddressOf(start);
  void** slot = out + count;
  void** const end = slot - taken;
  uint32_t word = first_word;
  while (slot != end) {
    uint64_t bits = free_bits[word];
    char* const word_base = base + word * 64 * size;
    while (bits != 0 && slot != end) {
      *--slot = word_base + static_cast<size_t>(std::countr_zero(bits)) * size;
      bits &= bits - 1;
    }
    free_bits[word] = bits;
    if (bits == 0) ++word;
  }
  first_word = static_cast<uint16_t>(word);
  free_count = static_cast<uint16_t>(free_count - taken);
  return taken;
}

void Slab::Put(void* block) {
  const auto offset =
      static_cast<size_t>(static_cast<char*>(block) - arena.AddressOf(start));
  const uint32_t index = BlockIndex(size_class, offset);
  if (index >= blocks || index * ClassSize(size_class) != offset) [[unlikely]] {
    Die("free of a pointer into the middle of a block,", block);
  }
  const uint32_t word = index / 64;
  const uint64_t bit = uint64_t{1} << (index % 64);
  if ((free_bits[word] & bit) != 0) [[unlikely]] {
    Die("double free of the block", block);
  }
  free_bits[word] |= bit;
  first_word = std::min(first_word, static_cast<uint16_t>(word));
  ++free_count;
}

}  // namespace hakmem
