// Reads the numbers of DWARF's tables one after the other.

#ifndef HAKMEM_CORE_TABLE_CURSOR_H_
#define HAKMEM_CORE_TABLE_CURSOR_H_

#include <cstddef>
#include <cstdint>

#include "hakmem/core/readable_memory.h"

namespace hakmem {

// A place in a table, and the table's end. Reading past that, or what cannot be
// read, gives zeros and makes ok() false for ever.
//
// Thread safety: belongs to one call.
class TableCursor {
 public:
  TableCursor(uintptr_t at, uintptr_t end, ReadableMemory& memory)
      : at_(at), end_(end), memory_(&memory) {}

  bool ok() const { return ok_; }
  bool AtEnd() const { return !ok_ || at_ >= end_; }
  uintptr_t at() const { return at_; }
  uintptr_t end() const { return end_; }

  void Skip(uint64_t bytes) {
    if (bytes > end_ - at_) {
      Fail();
    } else {
      at_ += bytes;
    }
  }

  // The next N bytes, the lowest first.
  template <typename T>
  T Fixed() {
    if (at_ > end_ || end_ - at_ < sizeof(T) ||
        !memory_->Covers(at_, sizeof(T))) {
      Fail();
      return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      value |= uint64_t{memory_->Byte(at_ + i)} << (8 * i);
    }
    at_ += sizeof(T);
    return static_cast<T>(value);
  }

  // Seven bits a byte, the lowest first (LEB128). What does not fit into 64
  // bits is dropped.
  uint64_t Unsigned() {
    int shift = 0;
    return Leb(&shift);
  }
  int64_t Signed() {
    int shift = 0;
    const uint64_t value = Leb(&shift);
    if (shift < 64 && shift > 0 && (value >> (shift - 1) & 1) != 0) {
      return static_cast<int64_t>(value | ~uint64_t{0} << shift);
    }
    return static_cast<int64_t>(value);
  }

  // An address as the DW_EH_PE_* byte `encoding` says; `data` is what such
  // relative to data are relative to. Never through a pointer.
  uintptr_t Pointer(uint8_t encoding, uintptr_t data) {
    const uintptr_t here = at_;
    uint64_t value = 0;
    switch (encoding & 0x0f) {
      case 0x00:
      case 0x04:
      case 0x0c:
        value = Fixed<uint64_t>();
        break;
      case 0x01:
        value = Unsigned();
        break;
      case 0x02:
        value = Fixed<uint16_t>();
        break;
      case 0x03:
        value = Fixed<uint32_t>();
        break;
      case 0x09:
        value = static_cast<uint64_t>(Signed());
        break;
      case 0x0a:
        value = static_cast<uint64_t>(int64_t{Fixed<int16_t>()});
        break;
      case 0x0b:
        value = static_cast<uint64_t>(int64_t{Fixed<int32_t>()});
        break;
      default:
        Fail();
        return 0;
    }
    switch (encoding & 0x70) {
      case 0x00:
        return value;
      case 0x10:
        return here + value;
      case 0x30:
        return data + value;
      default:
        Fail();
        return 0;
    }
  }

  void Fail() {
    ok_ = false;
    at_ = end_;
  }

 private:
  uint64_t Leb(int* shift) {
    uint64_t value = 0;
    uint8_t byte = 0x80;
    while ((byte & 0x80) != 0 && ok_) {
      byte = Fixed<uint8_t>();
      if (*shift < 64) value |= uint64_t{byte & 0x7fu} << *shift;
      *shift += 7;
    }
    return value;
  }

  uintptr_t at_;
  uintptr_t end_;
  ReadableMemory* memory_;
  bool ok_ = true;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_TABLE_CURSOR_H_
