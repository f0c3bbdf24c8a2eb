// What must be true of the blocks that a heap hands out, checked from outside.
//
// A Block knows what was asked for and fills the memory by a pattern of its
// own; LiveBlocks knows where all of them lie and finds two that share a byte.
// Either ends the program with a line on stderr when something is not as it
// should be, which is how a fuzzer learns of it.

#ifndef HAKMEM_SHIM_FUZZ_BLOCK_MODEL_H_
#define HAKMEM_SHIM_FUZZ_BLOCK_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace hakmem::fuzz {

// Ends the program: `what` is wrong with the block at `address`.
[[noreturn]] void Fail(const char* what, const void* address, size_t size);

// The ranges of all live blocks. Thread-safe.
class LiveBlocks {
 public:
  // Once a block has been handed out: it may not overlap any other.
  void Add(const void* address, size_t size);
  // Before it goes back.
  void Remove(const void* address);

 private:
  std::mutex mu_;
  std::map<uintptr_t, size_t> ranges_;
};

// One block of the program that is run. Not thread-safe.
struct Block {
  unsigned char* address = nullptr;
  size_t size = 0;  // as asked for
  size_t usable = 0;
  uint64_t seed = 0;  // of the pattern

  // Takes over a block that a call for `size` bytes returned: checks where it
  // lies and how much of it may be used. It is not filled yet.
  void Adopt(void* block, size_t size, size_t alignment, uint64_t seed);

  // Fills all that may be used, or checks that the first `bytes` are as they
  // were filled. Of blocks above kWhole both ends and a word a page are.
  void Fill();
  void Check(size_t bytes) const;
  void CheckZero() const;

  static constexpr size_t kWhole = 16384;
};

}  // namespace hakmem::fuzz

#endif  // HAKMEM_SHIM_FUZZ_BLOCK_MODEL_H_
