#include "hakmem/shim/fuzz/block_model.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "hakmem/shim/hakmem.h"

namespace hakmem::fuzz {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kWord = sizeof(uint64_t);

uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 31)) * 0x9e3779b97f4a7c15;
  return value ^ (value >> 29);
}

// Calls fn(offset, bytes) for each piece of a block of `size` bytes that is
// filled and looked at; a piece is a word or the odd bytes at the end.
template <typename Fn>
void ForEachPiece(size_t size, Fn fn) {
  size_t offset = 0;
  while (offset < size) {
    fn(offset, std::min(kWord, size - offset));
    const bool inside =
        size > Block::kWhole && offset >= kPage && offset + 2 * kPage < size;
    offset += inside ? kPage : kWord;
  }
}

}  // namespace

void Fail(const char* what, const void* address, size_t size) {
  std::fprintf(stderr, "heap_fuzz: %s: block %p of %zu bytes\n", what, address,
               size);
  std::abort();
}

void LiveBlocks::Add(const void* address, size_t size) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  const std::lock_guard lock(mu_);
  const auto next = ranges_.lower_bound(begin);
  if (next != ranges_.end() && next->first < begin + size) {
    Fail("overlaps the block behind it", address, size);
  }
  if (next != ranges_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second > begin) {
      Fail("overlaps the block before it", address, size);
    }
  }
  ranges_.emplace_hint(next, begin, size);
}

void LiveBlocks::Remove(const void* address) {
  const std::lock_guard lock(mu_);
  if (ranges_.erase(reinterpret_cast<uintptr_t>(address)) != 1) {
    Fail("is not live", address, 0);
  }
}

void Block::Adopt(void* block, size_t asked, size_t alignment,
                  uint64_t new_seed) {
  address = static_cast<unsigned char*>(block);
  size = asked;
  seed = new_seed;
  usable = hak_usable_size(block);
  if (usable < size) Fail("is smaller than asked for", block, size);
  if (reinterpret_cast<uintptr_t>(block) % alignment != 0) {
    Fail("is not aligned", block, size);
  }
}

void Block::Fill() {
  ForEachPiece(usable, [this](size_t offset, size_t bytes) {
    const uint64_t word = Mix(seed + offset);
    std::memcpy(address + offset, &word, bytes);
  });
}

void Block::Check(size_t bytes) const {
  ForEachPiece(usable, [this, bytes](size_t offset, size_t piece) {
    if (offset + piece > bytes) return;
    const uint64_t word = Mix(seed + offset);
    if (std::memcmp(address + offset, &word, piece) != 0) {
      Fail("was written to by somebody else", address, size);
    }
  });
}

void Block::CheckZero() const {
  for (size_t offset = 0; offset < size; ++offset) {
    if (address[offset] != 0) Fail("from calloc is not zero", address, size);
  }
}

}  // namespace hakmem::fuzz
