// DWARF's expressions (DWARF 4, section 2.5), as far as they can stand in call
// frame information: entries of the procedure linkage table, signal
// trampolines, functions that align their stack, and hand-written code have
// them.

#include <array>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/table_cursor.h"
#include "hakmem/core/unwind_tables.h"

namespace hakmem {
namespace {

// More than any compiler writes; a jump back could go on for ever.
constexpr uint32_t kMaxSteps = 256;
constexpr size_t kMaxDepth = 16;

class Evaluation {
 public:
  Evaluation(TableCursor cursor, uintptr_t begin,
             const UnwindRegisters& registers, ReadableMemory& memory)
      : cursor_(cursor),
        begin_(begin),
        registers_(registers),
        memory_(memory) {}

  void Push(uint64_t value) {
    if (depth_ == kMaxDepth) {
      ok_ = false;
    } else {
      stack_[depth_++] = value;
    }
  }

  bool Run(uint64_t* value) {
    for (uint32_t steps = 0; !cursor_.AtEnd(); ++steps) {
      if (steps == kMaxSteps) return false;
      Step(cursor_.Fixed<uint8_t>());
      if (!ok_ || !cursor_.ok()) return false;
    }
    if (!cursor_.ok() || depth_ == 0) return false;
    *value = stack_[depth_ - 1];
    return true;
  }

 private:
  uint64_t Pop() {
    if (depth_ == 0) {
      ok_ = false;
      return 0;
    }
    return stack_[--depth_];
  }

  void PushRegister(uint64_t index, int64_t offset) {
    if (index >= kUnwindRegisters ||
        !registers_.Has(static_cast<uint32_t>(index))) {
      ok_ = false;
      return;
    }
    Push(registers_.values[index] + static_cast<uint64_t>(offset));
  }

  void Dereference(size_t bytes) {
    const uint64_t address = Pop();
    if (!ok_ || bytes == 0 || bytes > 8 || !memory_.Covers(address, bytes)) {
      ok_ = false;
      return;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) {
      value |= uint64_t{memory_.Byte(address + i)} << (8 * i);
    }
    Push(value);
  }

  // A copy of the entry that many below the top.
  void Pick(size_t below) {
    if (below >= depth_) {
      ok_ = false;
    } else {
      Push(stack_[depth_ - 1 - below]);
    }
  }

  void Jump(int16_t bytes) {
    const uintptr_t to = cursor_.at() + static_cast<uintptr_t>(int64_t{bytes});
    if (to < begin_ || to > cursor_.end()) {
      ok_ = false;
    } else {
      cursor_ = TableCursor(to, cursor_.end(), memory_);
    }
  }

  template <typename Fn>
  void Unary(Fn fn) {
    const uint64_t value = Pop();
    Push(fn(value));
  }

  template <typename Fn>
  void Binary(Fn fn) {
    const uint64_t right = Pop();
    const uint64_t left = Pop();
    Push(fn(left, right));
  }

  void Step(uint8_t code);
  void StepArithmetic(uint8_t code);

  TableCursor cursor_;
  const uintptr_t begin_;
  const UnwindRegisters& registers_;
  ReadableMemory& memory_;
  bool ok_ = true;
  size_t depth_ = 0;
  std::array<uint64_t, kMaxDepth> stack_;
};

void Evaluation::Step(uint8_t code) {
  const auto sign = [](int64_t value) { return static_cast<uint64_t>(value); };
  if (code >= 0x30 && code <= 0x4f) return Push(code - 0x30u);  // lit0…31
  if (code >= 0x70 && code <= 0x8f) {                           // breg0…31
    return PushRegister(code - 0x70u, cursor_.Signed());
  }
  switch (code) {
    case 0x03:  // addr
      return Push(cursor_.Fixed<uint64_t>());
    case 0x06:  // deref
      return Dereference(8);
    case 0x08:  // const1u, 1s, 2u, 2s, 4u, 4s, 8u, 8s, constu, consts
      return Push(cursor_.Fixed<uint8_t>());
    case 0x09:
      return Push(sign(cursor_.Fixed<int8_t>()));
    case 0x0a:
      return Push(cursor_.Fixed<uint16_t>());
    case 0x0b:
      return Push(sign(cursor_.Fixed<int16_t>()));
    case 0x0c:
      return Push(cursor_.Fixed<uint32_t>());
    case 0x0d:
      return Push(sign(cursor_.Fixed<int32_t>()));
    case 0x0e:
    case 0x0f:
      return Push(cursor_.Fixed<uint64_t>());
    case 0x10:
      return Push(cursor_.Unsigned());
    case 0x11:
      return Push(sign(cursor_.Signed()));
    case 0x12:  // dup
      return Pick(0);
    case 0x13:  // drop
      Pop();
      return;
    case 0x14:  // over
      return Pick(1);
    case 0x15:  // pick
      return Pick(cursor_.Fixed<uint8_t>());
    case 0x16: {  // swap
      const uint64_t top = Pop();
      const uint64_t second = Pop();
      Push(top);
      return Push(second);
    }
    case 0x17: {  // rot: the first becomes the third
      const uint64_t top = Pop();
      const uint64_t second = Pop();
      const uint64_t third = Pop();
      Push(top);
      Push(third);
      return Push(second);
    }
    case 0x23:  // plus_uconst
      return Push(Pop() + cursor_.Unsigned());
    case 0x28: {  // bra
      const auto bytes = cursor_.Fixed<int16_t>();
      if (Pop() != 0) Jump(bytes);
      return;
    }
    case 0x2f:  // skip
      return Jump(cursor_.Fixed<int16_t>());
    case 0x92: {  // bregx
      const uint64_t index = cursor_.Unsigned();
      return PushRegister(index, cursor_.Signed());
    }
    case 0x94:  // deref_size
      return Dereference(cursor_.Fixed<uint8_t>());
    case 0x96:  // nop
      return;
    default:
      return StepArithmetic(code);
  }
}

void Evaluation::StepArithmetic(uint8_t code) {
  using U = uint64_t;
  using S = int64_t;
  switch (code) {
    case 0x19:  // abs
      return Unary([](U a) { return static_cast<S>(a) < 0 ? 0 - a : a; });
    case 0x1a:  // and
      return Binary([](U a, U b) { return a & b; });
    case 0x1b:  // div, signed
      return Binary([this](U a, U b) -> U {
        if (b == 0 || (b == ~U{0} && a == U{1} << 63)) {
          ok_ = false;
          return 0;
        }
        return static_cast<U>(static_cast<S>(a) / static_cast<S>(b));
      });
    case 0x1c:  // minus
      return Binary([](U a, U b) { return a - b; });
    case 0x1d:  // mod
      return Binary([this](U a, U b) -> U {
        if (b == 0) {
          ok_ = false;
          return 0;
        }
        return a % b;
      });
    case 0x1e:  // mul
      return Binary([](U a, U b) { return a * b; });
    case 0x1f:  // neg
      return Unary([](U a) { return 0 - a; });
    case 0x20:  // not
      return Unary([](U a) { return ~a; });
    case 0x21:  // or
      return Binary([](U a, U b) { return a | b; });
    case 0x22:  // plus
      return Binary([](U a, U b) { return a + b; });
    case 0x24:  // shl
      return Binary([](U a, U b) { return b < 64 ? a << b : 0; });
    case 0x25:  // shr
      return Binary([](U a, U b) { return b < 64 ? a >> b : 0; });
    case 0x26:  // shra
      return Binary([](U a, U b) {
        return static_cast<U>(static_cast<S>(a) >> (b < 63 ? b : 63));
      });
    case 0x27:  // xor
      return Binary([](U a, U b) { return a ^ b; });
    case 0x29:  // eq, ge, gt, le, lt, ne; signed
      return Binary([](U a, U b) { return U{a == b}; });
    case 0x2a:
      return Binary(
          [](U a, U b) { return U{static_cast<S>(a) >= static_cast<S>(b)}; });
    case 0x2b:
      return Binary(
          [](U a, U b) { return U{static_cast<S>(a) > static_cast<S>(b)}; });
    case 0x2c:
      return Binary(
          [](U a, U b) { return U{static_cast<S>(a) <= static_cast<S>(b)}; });
    case 0x2d:
      return Binary(
          [](U a, U b) { return U{static_cast<S>(a) < static_cast<S>(b)}; });
    case 0x2e:
      return Binary([](U a, U b) { return U{a != b}; });
    default:
      ok_ = false;
  }
}

}  // namespace

bool EvaluateUnwindExpression(uintptr_t expression, uintptr_t end,
                              const UnwindRegisters& registers,
                              const uint64_t* first, ReadableMemory& memory,
                              uint64_t* value) {
  TableCursor head(expression, end, memory);
  const uint64_t length = head.Unsigned();
  if (!head.ok() || length > end - head.at()) return false;
  const TableCursor body(head.at(), head.at() + length, memory);
  Evaluation evaluation(body, head.at(), registers, memory);
  if (first != nullptr) evaluation.Push(*first);
  return evaluation.Run(value);
}

}  // namespace hakmem
