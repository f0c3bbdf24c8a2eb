// An ELF file: where a symbol of it is, and which build it comes from. A file
// that is damaged, or no ELF file at all, has no symbols.

#ifndef TOOLS_HAKMEM_ELF_FILE_H_
#define TOOLS_HAKMEM_ELF_FILE_H_

#include <elf.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tools/hakmem/file.h"

namespace hakmem::tools {

class ElfFile {
 public:
  explicit ElfFile(const std::string& path);

  // The address of the defined symbol `name`, as the file has it: from the
  // dynamic symbols, or else from those that strip(1) removes.
  std::optional<uint64_t> FindSymbol(absl::string_view name) const;

  // What is to be added to an address of the file in a process where the byte
  // at `offset` of the file lies at `address`.
  std::optional<uint64_t> Bias(uint64_t offset, uint64_t address) const;

  // In hexadecimal; empty where there is none.
  std::string BuildId() const;

 private:
  // The content of a section or segment, empty where that is not in the file.
  std::string Content(uint64_t offset, uint64_t size) const;
  std::optional<uint64_t> FindIn(const Elf64_Shdr& symbols,
                                 absl::string_view name) const;

  const File file_;
  const uint64_t size_;
  std::vector<Elf64_Phdr> segments_;
  std::vector<Elf64_Shdr> sections_;
};

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_ELF_FILE_H_
