#include "hakmem/core/code_maps.h"

#include <elf.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "hakmem/core/os.h"
#include "hakmem/core/readable_memory.h"

namespace hakmem {
namespace {

// A program header more or a note longer than this is not looked at.
constexpr uint32_t kMostHeaders = 128;
constexpr uint64_t kMostNoteBytes = 64 << 10;

// Reads a structure of an object in memory; false when it is not there.
template <typename T>
bool ReadAt(uintptr_t at, ReadableMemory& memory, T* out) {
  if (!memory.Covers(at, sizeof(T))) return false;
  std::memcpy(out, reinterpret_cast<const void*>(at), sizeof(T));
  return true;
}

// Takes the build id from a segment of notes.
bool ReadNotes(uintptr_t at, uint64_t bytes, uint64_t alignment,
               ReadableMemory& memory, CodeMap* map) {
  const uint64_t step = alignment == 8 ? 8 : 4;
  const auto round = [step](uint64_t size) {
    return (size + step - 1) & ~(step - 1);
  };
  const uintptr_t end = at + std::min(bytes, kMostNoteBytes);
  while (at < end && end - at > sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    if (!ReadAt(at, memory, &note)) return false;
    const uintptr_t name = at + sizeof(note);
    const uintptr_t content = name + round(note.n_namesz);
    uint32_t owner = 0;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
        note.n_descsz <= map->build_id.size() && ReadAt(name, memory, &owner) &&
        std::memcmp(&owner, "GNU", 4) == 0 &&
        memory.Covers(content, note.n_descsz)) {
      std::memcpy(map->build_id.data(), reinterpret_cast<const void*>(content),
                  note.n_descsz);
      map->build_id_bytes = note.n_descsz;
      return true;
    }
    at = content + round(note.n_descsz);
  }
  return false;
}

// The build id of the object whose file's beginning is mapped at `head`.
void ReadBuildId(uintptr_t head, CodeMap* map) {
  ReadableMemory memory;
  Elf64_Ehdr file;
  if (!ReadAt(head, memory, &file) ||
      std::memcmp(file.e_ident, ELFMAG, SELFMAG) != 0 ||
      file.e_ident[EI_CLASS] != ELFCLASS64 ||
      file.e_phentsize != sizeof(Elf64_Phdr)) {
    return;
  }
  const uint32_t count = std::min<uint32_t>(file.e_phnum, kMostHeaders);
  const uintptr_t table = head + file.e_phoff;
  Elf64_Phdr header;
  uintptr_t bias = 0;
  bool loaded = false;
  for (uint32_t i = 0; i < count && !loaded; ++i) {
    if (!ReadAt(table + i * sizeof(header), memory, &header)) return;
    loaded = header.p_type == PT_LOAD && header.p_offset == 0;
    bias = head - header.p_vaddr;
  }
  for (uint32_t i = 0; i < count && loaded; ++i) {
    if (!ReadAt(table + i * sizeof(header), memory, &header)) return;
    if (header.p_type == PT_NOTE &&
        ReadNotes(bias + header.p_vaddr, header.p_memsz, header.p_align, memory,
                  map)) {
      return;
    }
  }
}

// What stands between the numbers and words of a line.
class Fields {
 public:
  Fields(const char* at, const char* end) : at_(at), end_(end) {}

  uint64_t Number(uint64_t base) {
    uint64_t value = 0;
    for (; at_ != end_; ++at_) {
      const char c = *at_;
      uint64_t digit = 16;
      if (c >= '0' && c <= '9') digit = static_cast<uint64_t>(c - '0');
      if (c >= 'a' && c <= 'f') digit = static_cast<uint64_t>(c - 'a' + 10);
      if (digit >= base) break;
      value = value * base + digit;
    }
    if (at_ != end_) ++at_;  // what ended it
    return value;
  }

  std::string_view Word() {
    const char* const start = at_;
    while (at_ != end_ && *at_ != ' ') ++at_;
    const std::string_view word(start, static_cast<size_t>(at_ - start));
    if (at_ != end_) ++at_;
    return word;
  }

  std::string_view Rest() {
    while (at_ != end_ && *at_ == ' ') ++at_;
    return {at_, static_cast<size_t>(end_ - at_)};
  }

 private:
  const char* at_;
  const char* end_;
};

}  // namespace

int CodeMaps::Read() {
  count_ = name_bytes_ = 0;
  head_ = 0;
  const int fd = os::OpenFile("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return errno;
  int error = 0;
  size_t used = 0;
  for (;;) {
    const ptrdiff_t n =
        os::ReadFile(fd, text_.data() + used, text_.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) error = errno;
    if (n <= 0) break;
    used += static_cast<size_t>(n);
    size_t begin = 0;
    for (size_t i = used - static_cast<size_t>(n); i < used; ++i) {
      if (text_[i] != '\n') continue;
      ReadLine(text_.data() + begin, i - begin);
      begin = i + 1;
    }
    // No line is as long as the buffer: a path has 4096 bytes at most.
    if (begin == 0 && used == text_.size()) begin = used;
    std::memmove(text_.data(), text_.data() + begin, used - begin);
    used -= begin;
  }
  os::CloseFile(fd);
  return error;
}

// START-END rwxp OFFSET DEVICE INODE PATH
void CodeMaps::ReadLine(const char* line, size_t size) {
  Fields fields(line, line + size);
  const uintptr_t start = fields.Number(16);
  const uintptr_t end = fields.Number(16);
  const std::string_view rights = fields.Word();
  const uint64_t offset = fields.Number(16);
  fields.Word();
  const uint64_t inode = fields.Number(10);
  std::string_view path = fields.Rest();
  constexpr std::string_view kVdso = "[vdso]";
  const bool is_object = inode != 0 || path == kVdso;
  if (is_object && offset == 0 && rights.size() > 2 && rights[0] == 'r') {
    head_ = start;
    head_inode_ = inode;
  }
  if (rights.size() < 3 || rights[2] != 'x' || count_ == kMostMaps) return;
  constexpr std::string_view kDeleted = " (deleted)";
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  if (path.size() > kNameBytes - name_bytes_) return;
  CodeMap& map = maps_[count_++];
  map.start = start;
  map.end = end;
  map.file_offset = offset;
  map.name = static_cast<uint32_t>(name_bytes_);
  map.name_size = static_cast<uint32_t>(path.size());
  map.build_id_bytes = 0;
  std::memcpy(names_.data() + name_bytes_, path.data(), path.size());
  name_bytes_ += path.size();
  if (is_object && head_ != 0 && head_inode_ == inode) ReadBuildId(head_, &map);
}

size_t CodeMaps::Find(uintptr_t address) const {
  size_t low = 0;
  size_t high = count_;
  while (low != high) {
    const size_t middle = low + (high - low) / 2;
    (maps_[middle].end <= address ? low : high) =
        maps_[middle].end <= address ? middle + 1 : middle;
  }
  return low != count_ && maps_[low].start <= address ? low : count_;
}

}  // namespace hakmem
