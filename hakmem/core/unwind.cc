#include "hakmem/core/unwind.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "hakmem/core/readable_memory.h"
#include "hakmem/core/unwind_cache.h"
#include "hakmem/core/unwind_tables.h"

namespace hakmem {
namespace {

constinit UnwindCache cache;

// Beyond this a frame pointer of code without tables is not one.
constexpr uint64_t kMaxFrameBytes = uint64_t{1} << 20;

// Signals that interrupted the handlers of others; more is a loop.
constexpr uint32_t kMaxSignalFrames = 8;

// Of the frames that are passed before the first that is written.
constexpr size_t kMaxSteps = 4096;

// What is still known of a frame when all that it called has come back.
constexpr uint32_t kPreserved = [] {
  uint32_t bits = 0;
  for (const uint8_t index : CompactRow::kSaved) bits |= 1u << index;
  return bits;
}();

// The row in two words, if it has the usual shape.
std::optional<CompactRow> Compact(const UnwindRow& row) {
  using Kind = UnwindRow::Kind;
  if (row.signal_frame || row.cfa_is_expression) return std::nullopt;
  CompactRow compact = {
      static_cast<uint32_t>(row.cfa_value) | uint64_t{row.cfa_register}
                                                 << CompactRow::kRegisterShift,
      0};
  const UnwindRow::Rule& back = row.rules[kReturnAddress];
  if (back.kind == Kind::kUndefined) {
    compact.shape |= CompactRow::kOutermost;
    return compact;
  }
  if (back.kind != Kind::kAtOffset || back.value != -8) return std::nullopt;
  uint64_t depth = 1;
  for (uint32_t i = 0; i < kReturnAddress; ++i) {
    const UnwindRow::Rule& rule = row.rules[i];
    const auto* const place =
        std::find(CompactRow::kSaved.begin(), CompactRow::kSaved.end(), i);
    if (place == CompactRow::kSaved.end()) {
      if (rule.kind != Kind::kUndefined) return std::nullopt;
    } else if (rule.kind != Kind::kSame) {
      if (rule.kind != Kind::kAtOffset || rule.value >= 0 ||
          rule.value % 8 != 0 || rule.value < -8 * 255) {
        return std::nullopt;
      }
      const auto words = static_cast<uint64_t>(-rule.value / 8);
      compact.saved |= words << (8 * (place - CompactRow::kSaved.begin()));
      depth = std::max(depth, words);
    }
  }
  compact.shape |= depth << CompactRow::kDepthShift;
  return compact;
}

// One frame after the other, from the innermost. Each step finds the object of
// the address that it arrives at, so that the next one has it.
class StackWalk {
 public:
  explicit StackWalk(const UnwindRegisters& registers)
      : registers_(registers), memory_(registers.values[kRsp]) {
    in_object_ = FindUnwindObject(address(), &object_);
  }

  // Goes to the caller; false when there is none that could be found.
  bool Step() {
    if (!in_object_) return StepByFramePointer();
    CompactRow compact;
    if (cache.Find(address(), object_.tag, &compact)) return Apply(compact);
    UnwindRow row;
    if (!FindUnwindRow(object_, address(), memory_, &row)) {
      return StepByFramePointer();
    }
    if (const std::optional<CompactRow> made = Compact(row)) {
      cache.Put(address(), object_.tag, *made);
      return Apply(*made);
    }
    return Apply(row);
  }

  // Where the frame is to be looked up. A call may be a function's last
  // instruction, and what follows it another function's.
  uintptr_t address() const { return interrupted_ ? pc() : pc() - 1; }

  uintptr_t pc() const { return registers_.values[kReturnAddress]; }

 private:
  using Kind = UnwindRow::Kind;

  bool Apply(const CompactRow& row) {
    if (row.outermost() || !registers_.Has(row.cfa_register())) return false;
    const uint64_t cfa = registers_.values[row.cfa_register()] +
                         static_cast<uint64_t>(int64_t{row.cfa_offset()});
    if (cfa <= sp()) return false;
    const uint64_t bytes = 8 * uint64_t{row.depth()};
    if (!memory_.Covers(cfa - bytes, bytes)) return false;
    const uint64_t back = memory_.Word(cfa - 8);
#pragma GCC unroll 6
    for (size_t i = 0; i < CompactRow::kSaved.size(); ++i) {
      const uint64_t words = row.saved >> (8 * i) & 0xff;
      if (words == 0) continue;
      registers_.Set(CompactRow::kSaved[i], memory_.Word(cfa - 8 * words));
    }
    registers_.known &= kPreserved;
    return Enter(cfa, back, false);
  }

  bool Apply(const UnwindRow& row) {
    uint64_t cfa = 0;
    if (row.cfa_is_expression) {
      if (!Evaluate(row, row.cfa_value, nullptr, &cfa)) return false;
    } else {
      if (!registers_.Has(row.cfa_register)) return false;
      cfa = registers_.values[row.cfa_register] +
            static_cast<uint64_t>(int64_t{row.cfa_value});
    }
    // A handler may run on a stack of its own, above or below.
    if (row.signal_frame) {
      if (++signal_frames_ > kMaxSignalFrames) return false;
    } else if (cfa <= sp()) {
      return false;
    }
    UnwindRegisters caller;
    for (uint32_t i = 0; i < kUnwindRegisters; ++i) {
      uint64_t value = 0;
      if (Recover(row, i, cfa, &value)) caller.Set(i, value);
    }
    if (!caller.Has(kReturnAddress)) return false;
    if (!caller.Has(kRsp)) caller.Set(kRsp, cfa);
    registers_ = caller;
    return Enter(caller.values[kRsp], caller.values[kReturnAddress],
                 row.signal_frame);
  }

  // What the register held in the caller; false when that is lost.
  bool Recover(const UnwindRow& row, uint32_t index, uint64_t cfa,
               uint64_t* value) {
    const UnwindRow::Rule& rule = row.rules[index];
    uint64_t place = cfa + static_cast<uint64_t>(int64_t{rule.value});
    switch (rule.kind) {
      case Kind::kUndefined:
        return false;
      case Kind::kSame:
        *value = registers_.values[index];
        return registers_.Has(index);
      case Kind::kRegister:
        *value = registers_.values[static_cast<uint32_t>(rule.value)];
        return registers_.Has(static_cast<uint32_t>(rule.value));
      case Kind::kAtOffset:
        return memory_.Load(place, value);
      case Kind::kIsOffset:
        *value = place;
        return true;
      case Kind::kAtExpression:
        return Evaluate(row, rule.value, &cfa, &place) &&
               memory_.Load(place, value);
      case Kind::kIsExpression:
        return Evaluate(row, rule.value, &cfa, value);
    }
    return false;
  }

  bool Evaluate(const UnwindRow& row, int32_t expression, const uint64_t* first,
                uint64_t* value) {
    const uintptr_t at = row.base + static_cast<uintptr_t>(int64_t{expression});
    return EvaluateUnwindExpression(at, object_.end, registers_, first, memory_,
                                    value);
  }

  // rbp points to the caller's rbp, above which the return address stands.
  bool StepByFramePointer() {
    if (!registers_.Has(kRbp)) return false;
    const uint64_t frame = registers_.values[kRbp];
    if (frame % 8 != 0 || frame < sp() || frame - sp() > kMaxFrameBytes) {
      return false;
    }
    uint64_t saved = 0;
    uint64_t back = 0;
    if (!memory_.Load(frame, &saved) || !memory_.Load(frame + 8, &back)) {
      return false;
    }
    registers_.known = 0;
    registers_.Set(kRbp, saved);
    return Enter(frame + 16, back, false);
  }

  // False when there cannot be code at `back`.
  bool Enter(uint64_t sp, uint64_t back, bool interrupted) {
    registers_.Set(kRsp, sp);
    registers_.Set(kReturnAddress, back);
    interrupted_ = interrupted;
    if (back == 0 || sp % 8 != 0) return false;
    in_object_ =
        object_.Contains(address()) || FindUnwindObject(address(), &object_);
    return in_object_ || memory_.Covers(address(), 1);
  }

  uint64_t sp() const { return registers_.values[kRsp]; }

  UnwindRegisters registers_;
  bool interrupted_ = true;  // the innermost address is no return address
  bool in_object_ = false;
  uint32_t signal_frames_ = 0;
  UnwindObject object_;  // of address(), if in_object_
  ReadableMemory memory_;
};

}  // namespace

[[gnu::noinline]] size_t CaptureStack(uintptr_t* frames, size_t most,
                                      uintptr_t caller) {
  UnwindRegisters own;
  uint64_t* const values = own.values.data();
  // All at one place, whose row says where this function's caller is.
  asm volatile(
      "movq %%rbx, 24(%0)\n\t"
      "movq %%rbp, 48(%0)\n\t"
      "movq %%rsp, 56(%0)\n\t"
      "movq %%r12, 96(%0)\n\t"
      "movq %%r13, 104(%0)\n\t"
      "movq %%r14, 112(%0)\n\t"
      "movq %%r15, 120(%0)\n\t"
      "leaq 0(%%rip), %%rax\n\t"
      "movq %%rax, 128(%0)"
      :
      : "r"(values)
      : "rax", "memory");
  static_assert(sizeof(own.values) == 136);
  own.known = kPreserved | 1u << kRsp | 1u << kReturnAddress;
  StackWalk walk(own);
  size_t count = 0;
  bool found = caller == 0;
  for (size_t steps = 0; steps < kMaxSteps && walk.Step(); ++steps) {
    if (!found && walk.pc() == caller) {
      found = true;
      count = 0;
    }
    if (count < most) frames[count++] = walk.address();
    if (count == most && found) break;
  }
  return count;
}

}  // namespace hakmem
