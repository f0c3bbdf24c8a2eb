#include "hakmem/core/gzip_file.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// The sum of each byte, by the polynomial of RFC 1952.
constexpr std::array<uint32_t, 256> kSums = [] {
  std::array<uint32_t, 256> sums{};
  for (uint32_t byte = 0; byte < sums.size(); ++byte) {
    uint32_t sum = byte;
    for (int bit = 0; bit < 8; ++bit) {
      sum = (sum & 1) != 0 ? sum >> 1 ^ 0xedb88320 : sum >> 1;
    }
    sums[byte] = sum;
  }
  return sums;
}();

}  // namespace

GzipFile::~GzipFile() {
  if (fd_ >= 0) os::CloseFile(fd_);
}

int GzipFile::Open(const char* path) {
  fd_ = os::OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY,
                     0644);
  if (fd_ < 0) return errno;
  // Deflate; no name, no time; made on Unix.
  constexpr unsigned char kFileHead[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
  Write(kFileHead, sizeof(kFileHead));
  return error_;
}

void GzipFile::Put(const void* bytes, size_t size) {
  const auto* from = static_cast<const unsigned char*>(bytes);
  size_ += static_cast<uint32_t>(size);
  while (size != 0) {
    if (used_ == kBlock) Flush(false);
    const size_t part = std::min(size, kBlock - used_);
    for (size_t i = 0; i < part; ++i) {
      sum_ = sum_ >> 8 ^ kSums[(sum_ ^ from[i]) & 0xff];
    }
    std::memcpy(buffer_ + kHead + used_, from, part);
    used_ += part;
    from += part;
    size -= part;
  }
}

int GzipFile::Close() {
  Flush(true);
  const uint32_t words[] = {~sum_, size_};
  unsigned char tail[8];
  for (size_t i = 0; i < sizeof(tail); ++i) {
    tail[i] = static_cast<unsigned char>(words[i / 4] >> (8 * (i % 4)));
  }
  Write(tail, sizeof(tail));
  const int fd = fd_;
  fd_ = -1;
  if (os::CloseFile(fd) != 0 && error_ == 0 && errno != EINTR) error_ = errno;
  return error_;
}

void GzipFile::Flush(bool last) {
  const auto length = static_cast<uint16_t>(used_);
  const uint16_t check = static_cast<uint16_t>(~length);
  buffer_[0] = last ? 1 : 0;
  buffer_[1] = static_cast<char>(length & 0xff);
  buffer_[2] = static_cast<char>(length >> 8);
  buffer_[3] = static_cast<char>(check & 0xff);
  buffer_[4] = static_cast<char>(check >> 8);
  Write(buffer_, kHead + used_);
  used_ = 0;
}

void GzipFile::Write(const void* bytes, size_t size) {
  const auto* from = static_cast<const char*>(bytes);
  while (size != 0 && error_ == 0) {
    const ptrdiff_t n = os::WriteFile(fd_, from, size);
    if (n > 0) {
      from += n;
      size -= static_cast<size_t>(n);
    } else if (n == 0) {
      error_ = EIO;
    } else if (errno != EINTR) {
      error_ = errno;
    }
  }
}

}  // namespace hakmem
