#include "hakmem/core/unwind_tables.h"

#include <dlfcn.h>

#include <array>
#include <cstdint>

#include "hakmem/core/table_cursor.h"

#pragma weak _dl_find_object

namespace hakmem {
namespace {

// .eh_frame_hdr: a version, three encodings, a pointer, a count and a table of
// pairs, sorted, of where a function begins and where its entry stands.
constexpr uint8_t kHeaderVersion = 1;
constexpr uint8_t kSortedEncoding = 0x3b;  // from the header, 4 bytes, signed
constexpr size_t kPairBytes = 8;
constexpr uint8_t kOmitted = 0xff;

// A function may keep as many states at once; compilers keep one.
constexpr size_t kMaxStates = 4;

// What one function's entry (FDE) and the one that it shares with others (CIE)
// say.
struct Entry {
  uint64_t code_alignment = 1;
  int64_t data_alignment = 1;
  uint8_t pointer_encoding = 0;
  bool sized = false;  // with augmentation data
  bool signal_frame = false;
  uintptr_t start = 0;  // of the function
  uintptr_t size = 0;
  uintptr_t common = 0;  // instructions of the CIE
  uintptr_t common_end = 0;
  uintptr_t own = 0;  // of the FDE
  uintptr_t own_end = 0;
};

// A cursor over the rest of the record that begins at `at` (its length comes
// first), behind the length.
TableCursor OpenRecord(const UnwindObject& object, uintptr_t at,
                       ReadableMemory& memory) {
  TableCursor cursor(at, object.end, memory);
  if (!object.Contains(at)) cursor.Fail();
  uint64_t length = cursor.Fixed<uint32_t>();
  if (length == 0xffffffff) length = cursor.Fixed<uint64_t>();
  const uintptr_t start = cursor.at();
  if (length == 0 || length > cursor.end() - start) cursor.Fail();
  TableCursor record(start, start + (cursor.ok() ? length : 0), memory);
  if (!cursor.ok()) record.Fail();
  return record;
}

bool ReadCommon(const UnwindObject& object, uintptr_t at,
                ReadableMemory& memory, Entry* entry) {
  TableCursor cursor = OpenRecord(object, at, memory);
  if (cursor.Fixed<uint32_t>() != 0 || !cursor.ok()) return false;
  const auto version = cursor.Fixed<uint8_t>();
  if (version != 1 && version != 3 && version != 4) return false;
  std::array<char, 8> augmentation{};
  size_t letters = 0;
  for (char c; (c = static_cast<char>(cursor.Fixed<uint8_t>())) != '\0';) {
    if (letters == augmentation.size()) return false;
    augmentation[letters++] = c;
  }
  if (version == 4) cursor.Skip(2);  // sizes of an address and a segment
  entry->code_alignment = cursor.Unsigned();
  entry->data_alignment = cursor.Signed();
  const uint64_t return_address =
      version == 1 ? cursor.Fixed<uint8_t>() : cursor.Unsigned();
  if (!cursor.ok() || return_address != kReturnAddress) return false;
  if (letters != 0) {
    // Without the 'z' nobody can tell where the instructions begin.
    if (augmentation[0] != 'z') return false;
    entry->sized = true;
    const uint64_t bytes = cursor.Unsigned();
    const uintptr_t data = cursor.at();
    cursor.Skip(bytes);
    TableCursor letter(data, cursor.at(), memory);
    if (!cursor.ok()) return false;
    for (size_t i = 1; i < letters; ++i) {
      switch (augmentation[i]) {
        case 'R':
          entry->pointer_encoding = letter.Fixed<uint8_t>();
          break;
        case 'L':
          letter.Fixed<uint8_t>();
          break;
        case 'P': {
          const auto encoding = letter.Fixed<uint8_t>();
          letter.Pointer(encoding & 0x7f, 0);
          break;
        }
        case 'S':
          entry->signal_frame = true;
          break;
        default:
          return false;
      }
    }
    if (!letter.ok()) return false;
  }
  entry->common = cursor.at();
  entry->common_end = cursor.end();
  return true;
}

bool ReadEntry(const UnwindObject& object, uintptr_t at, ReadableMemory& memory,
               Entry* entry) {
  TableCursor cursor = OpenRecord(object, at, memory);
  const uintptr_t here = cursor.at();
  const auto back = cursor.Fixed<uint32_t>();
  if (!cursor.ok() || back == 0) return false;
  if (!ReadCommon(object, here - back, memory, entry)) return false;
  entry->start = cursor.Pointer(entry->pointer_encoding, object.header);
  entry->size = cursor.Pointer(entry->pointer_encoding & 0x0f, 0);
  if (entry->sized) cursor.Skip(cursor.Unsigned());
  entry->own = cursor.at();
  entry->own_end = cursor.end();
  return cursor.ok();
}

// The entry of the last function that begins at or before `pc`, or 0.
uintptr_t FindEntry(const UnwindObject& object, uintptr_t pc,
                    ReadableMemory& memory) {
  TableCursor header(object.header, object.end, memory);
  if (header.Fixed<uint8_t>() != kHeaderVersion) return 0;
  const auto pointer_encoding = header.Fixed<uint8_t>();
  const auto count_encoding = header.Fixed<uint8_t>();
  if (header.Fixed<uint8_t>() != kSortedEncoding) return 0;
  if (pointer_encoding != kOmitted) {
    header.Pointer(pointer_encoding & 0x7f, object.header);
  }
  if (count_encoding == kOmitted) return 0;
  const uintptr_t count = header.Pointer(count_encoding, object.header);
  const uintptr_t table = header.at();
  if (!header.ok() || count == 0 || count > (object.end - table) / kPairBytes) {
    return 0;
  }
  // 4 bytes each, from the header.
  const auto read = [&](uintptr_t at, uintptr_t* address) {
    TableCursor cursor(at, object.end, memory);
    *address = cursor.Pointer(kSortedEncoding, object.header);
    return cursor.ok();
  };
  uintptr_t low = 0;
  uintptr_t high = count;  // the entry is in [low, high)
  while (high - low > 1) {
    const uintptr_t middle = low + (high - low) / 2;
    uintptr_t start = 0;
    if (!read(table + middle * kPairBytes, &start)) return 0;
    (start <= pc ? low : high) = middle;
  }
  uintptr_t entry = 0;
  return read(table + low * kPairBytes + kPairBytes / 2, &entry) ? entry : 0;
}

// Executes the instructions that lead to the row of one place in a function.
class RowProgram {
 public:
  RowProgram(const Entry& entry, const UnwindObject& object, uintptr_t pc,
             ReadableMemory& memory, UnwindRow* row)
      : entry_(entry), object_(object), pc_(pc), memory_(memory), row_(*row) {}

  bool Run() {
    row_ = UnwindRow();
    row_.base = entry_.common;
    row_.signal_frame = entry_.signal_frame;
    // A call changes these, and a table that says nothing of them means that.
    for (uint32_t i = 0; i < kUnwindRegisters; ++i) {
      const bool saved = i == kRbx || i == kRbp || (i >= kR12 && i <= kR15);
      if (!saved) row_.rules[i].kind = UnwindRow::Kind::kUndefined;
    }
    at_ = pc_;  // the CIE's instructions are for all places
    if (!Execute(entry_.common, entry_.common_end)) return false;
    initial_ = row_;
    at_ = entry_.start;
    return Execute(entry_.own, entry_.own_end);
  }

 private:
  using Kind = UnwindRow::Kind;

  bool Execute(uintptr_t begin, uintptr_t end) {
    TableCursor cursor(begin, end, memory_);
    while (!cursor.AtEnd()) {
      const auto code = cursor.Fixed<uint8_t>();
      if (!Step(code, cursor) || !cursor.ok()) return false;
      if (at_ > pc_) return true;  // the row before this place is the one
    }
    return cursor.ok();
  }

  bool Step(uint8_t code, TableCursor& cursor) {
    const uint8_t operand = code & 0x3f;
    switch (code & 0xc0) {
      case 0x40:
        return Advance(operand);
      case 0x80:
        return Set(operand, Kind::kAtOffset, Scaled(cursor.Unsigned()));
      case 0xc0:
        return Restore(operand);
      default:
        break;
    }
    switch (operand) {
      case 0x00:  // nop
        return true;
      case 0x01:  // set_loc
        at_ = cursor.Pointer(entry_.pointer_encoding, object_.header);
        return true;
      case 0x02:  // advance_loc1, 2 and 4
        return Advance(cursor.Fixed<uint8_t>());
      case 0x03:
        return Advance(cursor.Fixed<uint16_t>());
      case 0x04:
        return Advance(cursor.Fixed<uint32_t>());
      case 0x05: {  // offset_extended
        const uint64_t index = cursor.Unsigned();
        return Set(index, Kind::kAtOffset, Scaled(cursor.Unsigned()));
      }
      case 0x06:  // restore_extended
        return Restore(cursor.Unsigned());
      case 0x07:  // undefined
        return Set(cursor.Unsigned(), Kind::kUndefined, 0);
      case 0x08:  // same_value
        return Set(cursor.Unsigned(), Kind::kSame, 0);
      case 0x09: {  // register
        const uint64_t index = cursor.Unsigned();
        const uint64_t other = cursor.Unsigned();
        return other < kUnwindRegisters &&
               Set(index, Kind::kRegister, static_cast<int64_t>(other));
      }
      case 0x0a:  // remember_state
        if (states_ == kMaxStates) return false;
        kept_[states_++] = row_;
        return true;
      case 0x0b:  // restore_state
        if (states_ == 0) return false;
        row_ = kept_[--states_];
        return true;
      case 0x0c: {  // def_cfa
        const uint64_t index = cursor.Unsigned();
        return CfaRegister(index) &&
               CfaOffset(static_cast<int64_t>(cursor.Unsigned()));
      }
      case 0x0d:  // def_cfa_register
        return CfaRegister(cursor.Unsigned());
      case 0x0e:  // def_cfa_offset
        return CfaOffset(static_cast<int64_t>(cursor.Unsigned()));
      case 0x0f:  // def_cfa_expression
        row_.cfa_is_expression = true;
        return Narrow(Expression(cursor), &row_.cfa_value);
      case 0x10: {  // expression
        const uint64_t index = cursor.Unsigned();
        return Set(index, Kind::kAtExpression, Expression(cursor));
      }
      case 0x11: {  // offset_extended_sf
        const uint64_t index = cursor.Unsigned();
        return Set(index, Kind::kAtOffset, Scaled(cursor.Signed()));
      }
      case 0x12: {  // def_cfa_sf
        const uint64_t index = cursor.Unsigned();
        return CfaRegister(index) && CfaOffset(Scaled(cursor.Signed()));
      }
      case 0x13:  // def_cfa_offset_sf
        return CfaOffset(Scaled(cursor.Signed()));
      case 0x14: {  // val_offset
        const uint64_t index = cursor.Unsigned();
        return Set(index, Kind::kIsOffset, Scaled(cursor.Unsigned()));
      }
      case 0x15: {  // val_offset_sf
        const uint64_t index = cursor.Unsigned();
        return Set(index, Kind::kIsOffset, Scaled(cursor.Signed()));
      }
      case 0x16: {  // val_expression
        const uint64_t index = cursor.Unsigned();
        return Set(index, Kind::kIsExpression, Expression(cursor));
      }
      case 0x2e:  // GNU_args_size: for who lands here, not for who passes by
        cursor.Unsigned();
        return true;
      case 0x2f: {  // GNU_negative_offset_extended
        const uint64_t index = cursor.Unsigned();
        return Set(index, Kind::kAtOffset, -Scaled(cursor.Unsigned()));
      }
      default:
        return false;
    }
  }

  bool Advance(uint64_t delta) {
    at_ += delta * entry_.code_alignment;
    return true;
  }

  int64_t Scaled(uint64_t factor) const {
    return static_cast<int64_t>(factor *
                                static_cast<uint64_t>(entry_.data_alignment));
  }
  int64_t Scaled(int64_t factor) const {
    return Scaled(static_cast<uint64_t>(factor));
  }

  // Where the expression begins, from the row's base; skips it.
  int64_t Expression(TableCursor& cursor) const {
    const uintptr_t start = cursor.at();
    cursor.Skip(cursor.Unsigned());
    return static_cast<int64_t>(start - row_.base);
  }

  static bool Narrow(int64_t value, int32_t* out) {
    *out = static_cast<int32_t>(value);
    return *out == value;
  }

  // Registers beyond ours, such as those of vectors, are none that lead on.
  bool Set(uint64_t index, Kind kind, int64_t value) {
    if (index >= kUnwindRegisters) return true;
    row_.rules[index].kind = kind;
    return Narrow(value, &row_.rules[index].value);
  }

  bool Restore(uint64_t index) {
    if (index < kUnwindRegisters) row_.rules[index] = initial_.rules[index];
    return true;
  }

  bool CfaRegister(uint64_t index) {
    row_.cfa_is_expression = false;
    row_.cfa_register = static_cast<uint8_t>(index);
    return index < kReturnAddress;
  }

  bool CfaOffset(int64_t offset) {
    row_.cfa_is_expression = false;
    return Narrow(offset, &row_.cfa_value);
  }

  const Entry& entry_;
  const UnwindObject& object_;
  const uintptr_t pc_;
  ReadableMemory& memory_;
  UnwindRow& row_;
  uintptr_t at_ = 0;
  UnwindRow initial_;
  size_t states_ = 0;
  std::array<UnwindRow, kMaxStates> kept_;
};

}  // namespace

bool FindUnwindObject(uintptr_t pc, UnwindObject* object) {
  if (&_dl_find_object == nullptr) return false;
  struct dl_find_object found;
  if (_dl_find_object(reinterpret_cast<void*>(pc), &found) != 0 ||
      found.dlfo_eh_frame == nullptr) {
    return false;
  }
  UnwindObject answer;
  answer.start = reinterpret_cast<uintptr_t>(found.dlfo_map_start);
  answer.end = reinterpret_cast<uintptr_t>(found.dlfo_map_end);
  answer.header = reinterpret_cast<uintptr_t>(found.dlfo_eh_frame);
  const uint64_t mix = (answer.start ^ answer.header << 20 ^
                        reinterpret_cast<uintptr_t>(found.dlfo_link_map)) *
                       0x9E3779B97F4A7C15u;
  answer.tag = static_cast<uint32_t>(mix >> 32);
  if (!answer.Contains(pc) || !answer.Contains(answer.header)) return false;
  *object = answer;
  return true;
}

bool FindUnwindRow(const UnwindObject& object, uintptr_t pc,
                   ReadableMemory& memory, UnwindRow* row) {
  const uintptr_t at = FindEntry(object, pc, memory);
  Entry entry;
  if (at == 0 || !ReadEntry(object, at, memory, &entry)) return false;
  if (pc - entry.start >= entry.size) return false;
  return RowProgram(entry, object, pc, memory, row).Run();
}

}  // namespace hakmem
