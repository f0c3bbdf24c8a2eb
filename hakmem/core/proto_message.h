// A message of Protocol Buffers that is being built, of bounded size.

#ifndef HAKMEM_CORE_PROTO_MESSAGE_H_
#define HAKMEM_CORE_PROTO_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace hakmem {

// The encoding is protobuf.dev's: each field is its number and wire type, and
// then a varint, or a length and so many bytes. What does not fit is left out
// and makes fits() false.
//
// Thread safety: belongs to one call.
class ProtoMessage {
 public:
  // A varint of 64 bits.
  static constexpr size_t kMostVarint = 10;

  void Clear() {
    size_ = 0;
    fits_ = true;
  }

  const char* data() const { return bytes_.data(); }
  size_t size() const { return size_; }
  bool fits() const { return fits_; }

  // A field with a number. 0 is what a reader takes for one that is not there.
  void Number(uint32_t field, uint64_t value) {
    if (value == 0) return;
    Varint(uint64_t{field} << 3);
    Varint(value);
  }

  // A field with bytes: a string, a message, or packed numbers.
  void Bytes(uint32_t field, std::string_view bytes) {
    Varint(uint64_t{field} << 3 | 2);
    Varint(bytes.size());
    if (bytes.size() > bytes_.size() - size_) {
      fits_ = false;
      return;
    }
    std::memcpy(bytes_.data() + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  void Message(uint32_t field, const ProtoMessage& message) {
    Bytes(field, {message.data(), message.size()});
  }

  // A bare number, for packed ones.
  void Varint(uint64_t value) {
    if (bytes_.size() - size_ < kMostVarint) {
      fits_ = false;
      return;
    }
    for (; value >= 0x80; value >>= 7) {
      bytes_[size_++] = static_cast<char>(value | 0x80);
    }
    bytes_[size_++] = static_cast<char>(value);
  }

 private:
  std::array<char, 8192> bytes_;
  size_t size_ = 0;
  bool fits_ = true;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_PROTO_MESSAGE_H_
