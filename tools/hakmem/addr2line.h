// Names for addresses of code, by addr2line(1) of binutils.

#ifndef TOOLS_HAKMEM_ADDR2LINE_H_
#define TOOLS_HAKMEM_ADDR2LINE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hakmem::tools {

struct CodeName {
  std::string function;  // empty where unknown, as is the file
  std::string file;
  uint64_t line = 0;

  bool operator==(const CodeName&) const = default;
};

// A function's name as people say it: without its parameters.
std::string WithoutParameters(absl::string_view function);

// Of the functions that were inlined at an address, innermost first, the one
// that tells people most: the first that is not part of the C++ library, or
// else the outermost.
CodeName MostTelling(const std::vector<CodeName>& inlined);

// What `addr2line -a -f -i -C` printed about `count` addresses.
std::vector<CodeName> ParseAddr2line(absl::string_view output, size_t count);

// The names for return addresses in the ELF file at `path`, in the order given;
// an address is one of the file's own. NotFound if there is no addr2line. While
// `*running` is not 0 it is the addr2line that works on it, for somebody else
// to end.
absl::StatusOr<std::vector<CodeName>> Addr2line(
    const std::string& path, const std::vector<uint64_t>& addresses,
    std::atomic<int>* running);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_ADDR2LINE_H_
