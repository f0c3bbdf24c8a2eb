// Tables that are not what they should be, and expressions.

#include "hakmem/core/unwind_tables.h"

#include <link.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/readable_memory.h"

namespace hakmem {
namespace {

constexpr size_t kPage = 4096;

TEST(ReadableMemoryTest, KnowsWhatCanBeRead) {
  auto* const pages = static_cast<char*>(
      mmap(nullptr, 3 * kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(pages, MAP_FAILED);
  ASSERT_EQ(mprotect(pages + kPage, kPage, PROT_NONE), 0);
  const auto at = reinterpret_cast<uintptr_t>(pages);
  ReadableMemory memory;
  EXPECT_TRUE(memory.Covers(at, kPage));
  EXPECT_FALSE(memory.Covers(at, kPage + 1));
  EXPECT_FALSE(memory.Covers(at + kPage - 4, 8));
  EXPECT_FALSE(memory.Covers(at + 2 * kPage - 1, 8));
  EXPECT_TRUE(memory.Covers(at + 2 * kPage, 8));
  EXPECT_FALSE(memory.Covers(0, 8));
  EXPECT_FALSE(memory.Covers(UINTPTR_MAX - 3, 8));
  EXPECT_FALSE(memory.Covers(uintptr_t{1} << 63, 8));
  EXPECT_TRUE(memory.Covers(0, 0));
  uint64_t word = 1;
  EXPECT_TRUE(memory.Load(at + 4, &word));
  EXPECT_EQ(word, 0u);
  munmap(pages, 3 * kPage);
}

class Expression {
 public:
  Expression(std::initializer_list<uint8_t> code) : bytes_(1) {
    bytes_[0] = static_cast<uint8_t>(code.size());
    bytes_.insert(bytes_.end(), code);
    registers_.Set(kRsp, 0x1000);
    registers_.Set(kReturnAddress, 0x100c);
  }

  bool Evaluate(const uint64_t* first, uint64_t* value) {
    ReadableMemory memory;
    const auto at = reinterpret_cast<uintptr_t>(bytes_.data());
    return EvaluateUnwindExpression(at, at + bytes_.size(), registers_, first,
                                    memory, value);
  }

  uint64_t Value() {
    uint64_t value = 0;
    EXPECT_TRUE(Evaluate(nullptr, &value));
    return value;
  }

  bool Fails() {
    uint64_t value = 0;
    return !Evaluate(nullptr, &value);
  }

 private:
  std::vector<uint8_t> bytes_;
  UnwindRegisters registers_;
};

TEST(UnwindExpressionTest, ComputesWhatLinkageTablesHave) {
  // rsp + 8 + ((rip & 15) >= 11) * 8, as linkers write it.
  EXPECT_EQ(
      Expression({0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22})
          .Value(),
      0x1010u);
}

TEST(UnwindExpressionTest, HasTheOperations) {
  EXPECT_EQ(Expression({0x09, 0xfe, 0x19}).Value(), 2u);           // abs
  EXPECT_EQ(Expression({0x36, 0x32, 0x1c}).Value(), 4u);           // minus
  EXPECT_EQ(Expression({0x09, 0xf8, 0x32, 0x1b}).Value(), -4ull);  // div
  EXPECT_EQ(Expression({0x37, 0x35, 0x1d}).Value(), 2u);           // mod
  EXPECT_EQ(Expression({0x37, 0x35, 0x1e}).Value(), 35u);          // mul
  EXPECT_EQ(Expression({0x31, 0x1f, 0x20}).Value(), 0u);           // neg, not
  EXPECT_EQ(Expression({0x35, 0x33, 0x27}).Value(), 6u);           // xor
  EXPECT_EQ(Expression({0x09, 0xf0, 0x32, 0x26}).Value(), -4ull);  // shra
  EXPECT_EQ(Expression({0x38, 0x31, 0x25}).Value(), 4u);           // shr
  EXPECT_EQ(Expression({0x31, 0x32, 0x33, 0x17}).Value(), 2u);     // rot
  EXPECT_EQ(Expression({0x31, 0x32, 0x16}).Value(), 1u);           // swap
  EXPECT_EQ(Expression({0x31, 0x32, 0x14}).Value(), 1u);           // over
  EXPECT_EQ(Expression({0x31, 0x32, 0x33, 0x15, 2}).Value(), 1u);  // pick
  EXPECT_EQ(Expression({0x0a, 0x34, 0x12}).Value(), 0x1234u);      // const2u
  EXPECT_EQ(Expression({0x11, 0x7f}).Value(), ~uint64_t{0});       // consts
  EXPECT_EQ(Expression({0x10, 0x80, 0x01}).Value(), 128u);         // constu
  EXPECT_EQ(Expression({0x92, 7, 0x78}).Value(), 0xff8u);          // bregx
  EXPECT_EQ(Expression({0x31, 0x28, 1, 0, 0x06, 0x35}).Value(), 5u);  // bra
}

TEST(UnwindExpressionTest, ReadsMemoryThatIsThere) {
  const uint64_t word = 0x1122334455667788;
  const auto at = reinterpret_cast<uintptr_t>(&word);
  uint64_t value = 0;
  EXPECT_TRUE(Expression({0x06}).Evaluate(&at, &value));
  EXPECT_EQ(value, word);
  EXPECT_TRUE(Expression({0x94, 2}).Evaluate(&at, &value));
  EXPECT_EQ(value, 0x7788u);
  const uintptr_t nowhere = 64;
  EXPECT_FALSE(Expression({0x06}).Evaluate(&nowhere, &value));
}

TEST(UnwindExpressionTest, FailsWhereThereIsNoValue) {
  EXPECT_TRUE(Expression({}).Fails());
  EXPECT_TRUE(Expression({0x06}).Fails());              // nothing to take
  EXPECT_TRUE(Expression({0x31, 0x30, 0x1b}).Fails());  // by zero
  EXPECT_TRUE(Expression({0x70, 0}).Fails());           // rax is not known
  EXPECT_TRUE(Expression({0x92, 99, 0}).Fails());       // no such register
  EXPECT_TRUE(Expression({0xe0}).Fails());              // no such operation
  EXPECT_TRUE(Expression({0x0a, 1}).Fails());           // cut
  EXPECT_TRUE(Expression({0x2f, 0xfd, 0xff}).Fails());  // a loop
  EXPECT_TRUE(Expression({0x2f, 0xf0, 0xff}).Fails());  // out of it
  EXPECT_TRUE(Expression({0x31, 0x12, 0x2f, 0xfc, 0xff}).Fails());  // too deep
}

// A copy of this program's own image, so of its tables, elsewhere.
class Image {
 public:
  Image() {
    const auto pc = reinterpret_cast<uintptr_t>(&mmap_marker);
    EXPECT_TRUE(FindUnwindObject(pc, &original_));
    bytes_ = original_.end - original_.start;
    copy_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ReadableMemory memory;
    for (size_t at = 0; at < bytes_; at += kPage) {
      const uintptr_t from = original_.start + at;
      if (memory.Covers(from, kPage)) {
        for (size_t i = 0; i < kPage; i += 8) {
          const uint64_t word = memory.Word(from + i);
          std::memcpy(copy_ + at + i, &word, 8);
        }
      }
    }
  }
  ~Image() { munmap(copy_, bytes_); }

  UnwindObject object() const {
    UnwindObject object = original_;
    object.start = reinterpret_cast<uintptr_t>(copy_);
    object.end = object.start + bytes_;
    object.header = object.start + (original_.header - original_.start);
    return object;
  }

  const UnwindObject& original() const { return original_; }
  char* copy() const { return copy_; }
  size_t bytes() const { return bytes_; }

 private:
  static void mmap_marker() {}

  UnwindObject original_;
  char* copy_ = nullptr;
  size_t bytes_ = 0;
};

bool Same(const UnwindRow& a, const UnwindRow& b) {
  bool same = a.cfa_value == b.cfa_value && a.cfa_register == b.cfa_register;
  for (uint32_t i = 0; i < kUnwindRegisters; ++i) {
    same = same && a.rules[i].kind == b.rules[i].kind &&
           a.rules[i].value == b.rules[i].value;
  }
  return same;
}

TEST(UnwindTablesTest, ReadsTheSameFromACopy) {
  const Image image;
  ReadableMemory memory;
  const uintptr_t shift = image.object().start - image.original().start;
  size_t found = 0;
  for (uintptr_t pc = image.original().start; pc < image.original().end;
       pc += 61) {
    UnwindRow row;
    UnwindRow copied;
    const bool there = FindUnwindRow(image.original(), pc, memory, &row);
    ASSERT_EQ(FindUnwindRow(image.object(), pc + shift, memory, &copied),
              there);
    if (!there) continue;
    ++found;
    ASSERT_TRUE(Same(row, copied));
  }
  EXPECT_GT(found, 1000u);
}

// Whatever the tables say, an answer comes, and nothing but readable memory is
// read.
TEST(UnwindTablesTest, SurvivesBrokenTables) {
  const Image image;
  const UnwindObject object = image.object();
  std::mt19937_64 random(1);
  // The functions' entries stand before the header. What it begins with stays,
  // or all would end there.
  constexpr size_t kEntryBytes = 32 << 10;
  constexpr size_t kHeaderBytes = 12;
  const size_t header = object.header - object.start;
  ASSERT_GT(header, kEntryBytes);
  size_t found = 0;
  for (int round = 0; round < 1000; ++round) {
    for (int i = 0; i < 20; ++i) {
      const size_t at = header - kEntryBytes +
                        random() % (image.bytes() - header + kEntryBytes);
      if (at - header < kHeaderBytes) continue;
      image.copy()[at] = static_cast<char>(random());
    }
    ReadableMemory memory;
    for (int i = 0; i < 50; ++i) {
      UnwindRow row;
      if (FindUnwindRow(object, object.start + random() % header, memory,
                        &row)) {
        ++found;
      }
    }
  }
  EXPECT_GT(found, 0u);
}

}  // namespace
}  // namespace hakmem
