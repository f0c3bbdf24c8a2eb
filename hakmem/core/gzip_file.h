// A gzip file (RFC 1952) that is written without memory of its own.

#ifndef HAKMEM_CORE_GZIP_FILE_H_
#define HAKMEM_CORE_GZIP_FILE_H_

#include <cstddef>
#include <cstdint>

namespace hakmem {

// Writes what it is given in stored blocks (RFC 1951, section 3.2.4), by
// write(2) from the buffer that the caller lends it.
//
// Thread safety: belongs to one call. Allocates nothing and takes no lock; may
// be used in a signal handler.
class GzipFile {
 public:
  // What a stored block holds at most, with its head: as much of a buffer is
  // used.
  static constexpr size_t kBufferBytes = 5 + 65535;

  // `buffer` has room for kBufferBytes and lives as long as this.
  explicit GzipFile(char* buffer) : buffer_(buffer) {}
  ~GzipFile();
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  // Creates the file, readable by all and writable by its owner as far as the
  // umask allows, or empties it. Returns 0 or an errno value.
  int Open(const char* path);

  // Adds bytes. The first failure is kept for Close(); nothing is written
  // after it.
  void Put(const void* bytes, size_t size);

  // Ends the file. Returns 0, or the errno value of whatever failed first.
  int Close();

 private:
  static constexpr size_t kHead = 5;
  static constexpr size_t kBlock = 65535;

  void Flush(bool last);
  void Write(const void* bytes, size_t size);

  char* const buffer_;
  int fd_ = -1;
  int error_ = 0;
  size_t used_ = 0;  // of the block, behind its head
  uint32_t sum_ = 0xffffffff;
  uint32_t size_ = 0;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_GZIP_FILE_H_
