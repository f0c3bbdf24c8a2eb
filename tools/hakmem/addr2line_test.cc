#include "tools/hakmem/addr2line.h"

#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tools/hakmem/elf_file.h"
#include "tools/hakmem/process.h"

namespace hakmem::tools {
namespace {

TEST(Addr2lineTest, CutsParameters) {
  EXPECT_EQ(WithoutParameters("main"), "main");
  EXPECT_EQ(WithoutParameters("f(int, char*)"), "f");
  EXPECT_EQ(WithoutParameters("A::f(void (*)(int)) const"), "A::f");
  EXPECT_EQ(WithoutParameters("f(int) [clone .isra.0]"), "f");
  EXPECT_EQ(WithoutParameters("A::operator()(int)"), "A::operator()");
  EXPECT_EQ(WithoutParameters("(anonymous namespace)::f(int)"),
            "(anonymous namespace)::f");
  EXPECT_EQ(WithoutParameters("f()::{lambda(int)#1}::operator()(int) const"),
            "f()::{lambda(int)#1}::operator()");
  EXPECT_EQ(WithoutParameters("__GI___strdup"), "__strdup");
  EXPECT_EQ(WithoutParameters(")"), ")");
}

TEST(Addr2lineTest, PrefersTheProgramToTheLibrary) {
  const CodeName library = {"push", "/usr/include/c++/12/bits/vector.tcc", 1};
  const CodeName allocator = {"std::allocator::allocate", "", 0};
  const CodeName inner = {"Inner", "/src/a.cc", 2};
  const CodeName outer = {"Outer", "/src/b.cc", 3};
  EXPECT_EQ(MostTelling({allocator, library, inner, outer}), inner);
  EXPECT_EQ(MostTelling({allocator, library}), library);
  EXPECT_EQ(MostTelling({}), CodeName());
}

TEST(Addr2lineTest, ParsesWhatItPrints) {
  const std::vector<CodeName> names = ParseAddr2line(
      "0x0000000000001000\n"
      "std::vector<int>::push_back(int)\n/usr/include/c++/12/vector:7\n"
      "Fill(int)\n/src/a b.cc:12 (discriminator 3)\n"
      "main\n/src/a.cc:20\n"
      "0x0000000000002000\n??\n??:0\n"
      "0x0000000000003000\nstripped_debug\n??:?\n",
      4);
  ASSERT_EQ(names.size(), 4u);
  EXPECT_EQ(names[0], (CodeName{"Fill", "/src/a b.cc", 12}));
  EXPECT_EQ(names[1], CodeName());
  EXPECT_EQ(names[2], (CodeName{"stripped_debug", "", 0}));
  EXPECT_EQ(names[3], CodeName());
}

extern "C" __attribute__((noinline)) uint64_t hakmem_test_return_address() {
  return reinterpret_cast<uint64_t>(__builtin_return_address(0));
}

// In this program: its symbols, where it is mapped, and the line of a call.
TEST(Addr2lineTest, FindsTheLineOfACall) {
  const uint64_t address = hakmem_test_return_address();
  constexpr uint64_t kLine = __LINE__ - 1;
  const absl::StatusOr<Process> self = Process::Open(getpid());
  ASSERT_TRUE(self.ok());
  const absl::StatusOr<std::vector<Mapping>> mappings = self->Mappings();
  ASSERT_TRUE(mappings.ok());
  bool found = false;
  for (const Mapping& mapping : *mappings) {
    if (address < mapping.begin || address >= mapping.end) continue;
    found = true;
    const ElfFile file(self->FileOf(mapping));
    const std::optional<uint64_t> bias =
        file.Bias(mapping.offset, mapping.begin);
    ASSERT_TRUE(bias.has_value());
    EXPECT_EQ(*file.FindSymbol("hakmem_test_return_address") + *bias,
              reinterpret_cast<uint64_t>(&hakmem_test_return_address));
    EXPECT_FALSE(file.FindSymbol("hakmem_test_no_such_symbol").has_value());
    const absl::StatusOr<std::vector<CodeName>> names =
        Addr2line(mapping.path, {address - *bias}, nullptr);
    ASSERT_TRUE(names.ok()) << names.status();
    EXPECT_EQ((*names)[0].line, kLine);
    EXPECT_TRUE(absl::EndsWith((*names)[0].file, "addr2line_test.cc"));
  }
  EXPECT_TRUE(found);
}

TEST(ElfFileTest, WhatIsDamagedHasNoSymbols) {
  for (const char* const path : {"/nowhere", "/dev/null", "/etc/passwd"}) {
    const ElfFile file(path);
    EXPECT_FALSE(file.FindSymbol("main").has_value());
    EXPECT_FALSE(file.Bias(0, 0).has_value());
    EXPECT_EQ(file.BuildId(), "");
  }
}

TEST(ProcessTest, ParsesMappings) {
  Mapping mapping;
  ASSERT_TRUE(ParseMapping(
      "7f00-8f00 r-xp 00001000 fe:01 1234567          /opt/a b\\012c (deleted)",
      &mapping));
  EXPECT_EQ(mapping.begin, 0x7f00u);
  EXPECT_EQ(mapping.end, 0x8f00u);
  EXPECT_EQ(mapping.offset, 0x1000u);
  EXPECT_TRUE(mapping.executable);
  EXPECT_EQ(mapping.device, "fe:01");
  EXPECT_EQ(mapping.inode, 1234567u);
  EXPECT_EQ(mapping.path, "/opt/a b\nc");
  EXPECT_TRUE(mapping.deleted);
  for (const char* const line :
       {"", "7f00", "7f00-8f00 rw-p 00000000 00:00 0 ",
        "7f00-8f00 rw-p 00000000 00:00 0    [heap]",
        "7f00 rw-p 00000000 00:00 0   /x", "7f00-8f00 rw-p x 00:00 0   /x"}) {
    EXPECT_FALSE(ParseMapping(line, &mapping)) << line;
  }
}

TEST(ProcessTest, SaysThatThereIsNone) {
  EXPECT_EQ(Process::Open(999999999).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ProcessTest, ReadsMemory) {
  const absl::StatusOr<Process> self = Process::Open(getpid());
  ASSERT_TRUE(self.ok());
  const std::string text(3000000, 'x');
  std::string read(text.size(), '\0');
  EXPECT_TRUE(self->Read(reinterpret_cast<uint64_t>(text.data()), read.data(),
                         read.size())
                  .ok());
  EXPECT_EQ(read, text);
  EXPECT_EQ(self->Read(8, read.data(), 8).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_GT(*self->ResidentBytes(), uint64_t{1} << 20);
}

}  // namespace
}  // namespace hakmem::tools
