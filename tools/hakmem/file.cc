#include "tools/hakmem/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace hakmem::tools {

File::File(const std::string& path)
    : descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}

File::~File() {
  if (descriptor_ >= 0) close(descriptor_);
}

size_t File::Read(void* buffer, size_t size, uint64_t offset) const {
  auto* const to = static_cast<char*>(buffer);
  size_t done = 0;
  while (done < size) {
    const ssize_t got = pread(descriptor_, to + done, size - done,
                              static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

uint64_t File::Size() const {
  struct stat status;
  if (fstat(descriptor_, &status) != 0 || status.st_size < 0) return 0;
  return static_cast<uint64_t>(status.st_size);
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, path);
  std::string text;
  size_t step = 4096;
  for (;;) {
    const size_t had = text.size();
    text.resize(had + step);
    const ssize_t got = read(descriptor, text.data() + had, step);
    const int error = errno;
    text.resize(had + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && error == EINTR) continue;
    if (got <= 0) {
      close(descriptor);
      if (got < 0) return absl::ErrnoToStatus(error, path);
      return text;
    }
    step = std::clamp<size_t>(text.size(), 4096, size_t{1} << 24);
  }
}

absl::Status WriteWholeFile(const std::string& path, absl::string_view text) {
  const int descriptor =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, path);
  absl::Status status = WriteAll(descriptor, text);
  if (close(descriptor) != 0 && status.ok()) {
    status = absl::ErrnoToStatus(errno, "cannot write");
  }
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

absl::Status WriteAll(int descriptor, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t put = write(descriptor, text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return absl::ErrnoToStatus(errno, "cannot write");
    text.remove_prefix(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

}  // namespace hakmem::tools
