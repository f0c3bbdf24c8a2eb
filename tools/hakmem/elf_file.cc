#include "tools/hakmem/elf_file.h"

#include <cstddef>
#include <cstring>

#include "absl/strings/escaping.h"

namespace hakmem::tools {
namespace {

// Reads an array of `count` from a file of `file_size` bytes.
template <typename T>
std::vector<T> ReadArray(const File& file, uint64_t file_size, uint64_t offset,
                         size_t count) {
  std::vector<T> array;
  if (offset > file_size || count > (file_size - offset) / sizeof(T)) {
    return array;
  }
  array.resize(count);
  if (file.Read(array.data(), count * sizeof(T), offset) != count * sizeof(T)) {
    array.clear();
  }
  return array;
}

size_t Aligned4(size_t size) { return (size + 3) & ~size_t{3}; }

}  // namespace

ElfFile::ElfFile(const std::string& path)
    : file_(path), size_(file_.ok() ? file_.Size() : 0) {
  const std::vector<Elf64_Ehdr> headers =
      ReadArray<Elf64_Ehdr>(file_, size_, 0, 1);
  if (headers.empty()) return;
  const Elf64_Ehdr& header = headers[0];
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return;
  }
  if (header.e_phentsize == sizeof(Elf64_Phdr)) {
    segments_ =
        ReadArray<Elf64_Phdr>(file_, size_, header.e_phoff, header.e_phnum);
  }
  if (header.e_shentsize == sizeof(Elf64_Shdr)) {
    sections_ =
        ReadArray<Elf64_Shdr>(file_, size_, header.e_shoff, header.e_shnum);
  }
}

std::string ElfFile::Content(uint64_t offset, uint64_t size) const {
  std::string content;
  if (offset > size_ || size > size_ - offset) return content;
  content.resize(size);
  if (file_.Read(content.data(), size, offset) != size) content.clear();
  return content;
}

std::optional<uint64_t> ElfFile::FindIn(const Elf64_Shdr& symbols,
                                        absl::string_view name) const {
  if (symbols.sh_link >= sections_.size() ||
      symbols.sh_entsize != sizeof(Elf64_Sym)) {
    return std::nullopt;
  }
  const Elf64_Shdr& strings = sections_[symbols.sh_link];
  const std::string names = Content(strings.sh_offset, strings.sh_size);
  for (const Elf64_Sym& symbol :
       ReadArray<Elf64_Sym>(file_, size_, symbols.sh_offset,
                            symbols.sh_size / sizeof(Elf64_Sym))) {
    if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= names.size()) {
      continue;
    }
    const absl::string_view rest =
        absl::string_view(names).substr(symbol.st_name);
    if (rest.substr(0, rest.find('\0')) == name) return symbol.st_value;
  }
  return std::nullopt;
}

std::optional<uint64_t> ElfFile::FindSymbol(absl::string_view name) const {
  for (const uint32_t type : {SHT_DYNSYM, SHT_SYMTAB}) {
    for (const Elf64_Shdr& section : sections_) {
      if (section.sh_type != type) continue;
      const std::optional<uint64_t> found = FindIn(section, name);
      if (found.has_value()) return found;
    }
  }
  return std::nullopt;
}

std::optional<uint64_t> ElfFile::Bias(uint64_t offset, uint64_t address) const {
  // Mappings begin at a page, so that a segment's first one begins before it.
  constexpr uint64_t kPage = 4096;
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_LOAD) continue;
    const uint64_t begin = segment.p_offset & ~(kPage - 1);
    if (offset < begin || offset >= segment.p_offset + segment.p_filesz) {
      continue;
    }
    return address - (segment.p_vaddr + (offset - segment.p_offset));
  }
  return std::nullopt;
}

std::string ElfFile::BuildId() const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_NOTE) continue;
    const std::string notes = Content(segment.p_offset, segment.p_filesz);
    for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= notes.size();) {
      Elf64_Nhdr note;
      std::memcpy(&note, notes.data() + at, sizeof(note));
      const size_t name = at + sizeof(note);
      const size_t description = name + Aligned4(note.n_namesz);
      at = description + Aligned4(note.n_descsz);
      if (at > notes.size()) break;
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof("GNU") &&
          std::memcmp(notes.data() + name, "GNU", sizeof("GNU")) == 0) {
        return absl::BytesToHexString(
            absl::string_view(notes).substr(description, note.n_descsz));
      }
    }
  }
  return "";
}

}  // namespace hakmem::tools
