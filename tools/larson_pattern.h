// The contents that `larson --verify` gives to a block, so that a block with
// two owners, or a neighbour that writes too far, is found.

#ifndef TOOLS_LARSON_PATTERN_H_
#define TOOLS_LARSON_PATTERN_H_

#include <cstddef>
#include <cstdint>

namespace hakmem::tools {

// Fills `size` bytes at `block` with the pattern of `stamp`. The patterns of
// two stamps differ in nearly every byte, and a pattern does not repeat within
// a block, so that a piece of it at another place is noticed too.
void WritePattern(char* block, size_t size, uint64_t stamp);

// The offset of the first byte that is not as WritePattern() left it, or `size`
// if all are.
size_t FindMismatch(const char* block, size_t size, uint64_t stamp);

// The byte that the pattern of `stamp` has at `offset`.
unsigned char PatternByte(uint64_t stamp, size_t offset);

}  // namespace hakmem::tools

#endif  // TOOLS_LARSON_PATTERN_H_
