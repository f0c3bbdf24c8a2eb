// The code that this process has mapped, and which files it is from.

#ifndef HAKMEM_CORE_CODE_MAPS_H_
#define HAKMEM_CORE_CODE_MAPS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hakmem {

struct CodeMap {
  uintptr_t start;
  uintptr_t end;
  uint64_t file_offset;
  uint32_t name;            // where the path begins in CodeMaps::names()
  uint32_t name_size;       // 0 for code that is in no file
  uint32_t build_id_bytes;  // 0 when there is none
  std::array<unsigned char, 32> build_id;
};

// Thread safety: belongs to one call. Large: not for a stack. Allocates nothing
// and takes no lock; may be used in a signal handler.
class CodeMaps {
 public:
  // Reads /proc/self/maps and the build ids from the files' headers in memory.
  // Of more mappings than there is room for, those with the highest addresses
  // are left out. Returns 0 or an errno value.
  int Read();

  std::span<const CodeMap> maps() const { return {maps_.data(), count_}; }
  const char* names() const { return names_.data(); }

  // The index of the mapping that holds `address`, or maps().size().
  size_t Find(uintptr_t address) const;

 private:
  static constexpr size_t kMostMaps = 4096;
  static constexpr size_t kNameBytes = size_t{512} << 10;
  static constexpr size_t kLineBytes = 8192;

  void ReadLine(const char* line, size_t size);

  size_t count_ = 0;
  size_t name_bytes_ = 0;
  // The mapping of a file's beginning that was read last.
  uintptr_t head_ = 0;
  uint64_t head_inode_ = 0;
  std::array<CodeMap, kMostMaps> maps_;
  std::array<char, kNameBytes> names_;
  std::array<char, kLineBytes> text_;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_CODE_MAPS_H_
