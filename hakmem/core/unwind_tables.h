// The compiler's tables of where a function keeps what its caller needs back:
// .eh_frame, found by its index .eh_frame_hdr.
//
// The format is DWARF's call frame information (DWARF 4, section 6.4) as the
// Linux Standard Base and the x86-64 psABI (section 3.7) have it.
//
// Thread safety: no state. Nothing here allocates, takes a lock or trusts what
// it reads; may be called in a signal handler.

#ifndef HAKMEM_CORE_UNWIND_TABLES_H_
#define HAKMEM_CORE_UNWIND_TABLES_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/readable_memory.h"

namespace hakmem {

// DWARF's numbers of the registers of x86-64.
inline constexpr uint32_t kRbx = 3;
inline constexpr uint32_t kRbp = 6;
inline constexpr uint32_t kRsp = 7;
inline constexpr uint32_t kR12 = 12;
inline constexpr uint32_t kR15 = 15;
inline constexpr uint32_t kReturnAddress = 16;
inline constexpr uint32_t kUnwindRegisters = 17;

// The registers of one frame, as far as they are known.
struct UnwindRegisters {
  std::array<uint64_t, kUnwindRegisters> values;
  uint32_t known = 0;  // a bit a register

  bool Has(uint32_t index) const { return (known >> index & 1) != 0; }
  void Set(uint32_t index, uint64_t value) {
    values[index] = value;
    known |= 1u << index;
  }
};

// An object of this process that has tables.
struct UnwindObject {
  uintptr_t start = 0;   // of its mapping
  uintptr_t end = 0;     // one past it
  uintptr_t header = 0;  // .eh_frame_hdr
  uint32_t tag = 0;      // differs between most objects

  bool Contains(uintptr_t pc) const { return pc >= start && pc < end; }
};

// What is to be done to get from one frame to its caller's. Offsets are from
// the frame's CFA, the stack pointer before the call.
struct UnwindRow {
  enum class Kind : uint8_t {
    kSame,          // the register is as the caller left it
    kUndefined,     // lost; for the return address: there is no caller
    kAtOffset,      // saved there
    kIsOffset,      // that address itself
    kRegister,      // in another register
    kAtExpression,  // saved where an expression says
    kIsExpression,  // what an expression says
  };
  struct Rule {
    Kind kind = Kind::kSame;
    int32_t value = 0;  // offset, register, or expression from `base`
  };

  bool signal_frame = false;  // the caller was interrupted, and called nothing
  bool cfa_is_expression = false;
  uint8_t cfa_register = kRsp;
  int32_t cfa_value = 0;  // offset from the register, or expression
  uintptr_t base = 0;     // expressions begin here: with their length in bytes
  std::array<Rule, kUnwindRegisters> rules;
};

// The object that holds `pc`, by glibc's _dl_find_object(), which takes no lock
// (from 2.35 on). False, and nothing written, when none does or the C library
// has no such function.
bool FindUnwindObject(uintptr_t pc, UnwindObject* object);

// The row of the function that holds `pc`, at `pc`. False when there is none or
// the tables cannot be read.
bool FindUnwindRow(const UnwindObject& object, uintptr_t pc,
                   ReadableMemory& memory, UnwindRow* row);

// The value of the expression at `expression`, its length first, for the
// registers of the frame. `first` is what its stack begins with, unless null.
// False when it cannot be known.
bool EvaluateUnwindExpression(uintptr_t expression, uintptr_t end,
                              const UnwindRegisters& registers,
                              const uint64_t* first, ReadableMemory& memory,
                              uint64_t* value);

}  // namespace hakmem

#endif  // HAKMEM_CORE_UNWIND_TABLES_H_
