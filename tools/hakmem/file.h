// Files, read and written as whole or in part.

#ifndef TOOLS_HAKMEM_FILE_H_
#define TOOLS_HAKMEM_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hakmem::tools {

// A file that is open for reading, or was not there to open.
class File {
 public:
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool ok() const { return descriptor_ >= 0; }

  // Reads up to `size` bytes at `offset`, and returns how many it got.
  size_t Read(void* buffer, size_t size, uint64_t offset) const;

  // The size in bytes; 0 for what has none.
  uint64_t Size() const;

 private:
  const int descriptor_;
};

// All of the file, also of one in /proc, which says it is empty. The error has
// the path in front.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

// Makes the file, or empties it, and writes `text`. The error has the path in
// front.
absl::Status WriteWholeFile(const std::string& path, absl::string_view text);

// Writes all of `text` to a descriptor.
absl::Status WriteAll(int descriptor, absl::string_view text);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_FILE_H_
