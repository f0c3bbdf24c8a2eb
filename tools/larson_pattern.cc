#include "tools/larson_pattern.h"

#include <cstring>

#include "tools/common/random.h"

namespace hakmem::tools {
namespace {

// The pattern is words of base + index * step. One addition a word: with larger
// blocks, verification then stays bound by memory and not by arithmetic.
constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;

uint64_t Base(uint64_t stamp) { return Random::Mix(stamp + kStep); }

}  // namespace

void WritePattern(char* block, size_t size, uint64_t stamp) {
  uint64_t word = Base(stamp);
  size_t at = 0;
  for (; at + sizeof(word) <= size; at += sizeof(word), word += kStep) {
    std::memcpy(block + at, &word, sizeof(word));
  }
  std::memcpy(block + at, &word, size - at);
}

size_t FindMismatch(const char* block, size_t size, uint64_t stamp) {
  uint64_t word = Base(stamp);
  size_t at = 0;
  for (; at + sizeof(word) <= size; at += sizeof(word), word += kStep) {
    if (std::memcmp(block + at, &word, sizeof(word)) != 0) break;
  }
  // In the word that differs, or in the bytes behind the last whole one.
  while (at < size &&
         static_cast<unsigned char>(block[at]) == PatternByte(stamp, at)) {
    ++at;
  }
  return at;
}

unsigned char PatternByte(uint64_t stamp, size_t offset) {
  const uint64_t word = Base(stamp) + kStep * (offset / sizeof(word));
  unsigned char bytes[sizeof(word)];
  std::memcpy(bytes, &word, sizeof(word));
  return bytes[offset % sizeof(word)];
}

}  // namespace hakmem::tools
