// malloc and free as the workloads use them.

#ifndef TOOLS_WORKLOADS_BLOCK_H_
#define TOOLS_WORKLOADS_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace hakmem::tools {

// Prints that memory ran out, and ends the program with status 1.
[[noreturn]] void OutOfMemory(size_t size);

// The compiler has to assume that somebody looks at `block`. Without it, GCC
// and Clang remove a malloc whose block is only written to and freed.
inline void Keep(void* block) { asm volatile("" : : "r"(block) : "memory"); }

// A block of `size` bytes, at least 1, whose first byte was written, as a
// program would.
inline char* NewBlock(size_t size) {
  char* const block = static_cast<char*>(std::malloc(size));
  if (block == nullptr) [[unlikely]] {
    OutOfMemory(size);
  }
  block[0] = static_cast<char>(size);
  Keep(block);
  return block;
}

// Writes one byte to each page, which makes all of it resident.
inline void TouchPages(char* block, size_t size) {
  constexpr size_t kPage = 4096;
  for (size_t at = 0; at < size; at += kPage) block[at] = 1;
  block[size - 1] = 1;
  Keep(block);
}

}  // namespace hakmem::tools

#endif  // TOOLS_WORKLOADS_BLOCK_H_
