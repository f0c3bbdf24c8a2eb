#include "hakmem/core/options.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

// What applying `entry` to `options` writes to stderr.
std::string Apply(const std::string& entry, Options& options) {
  testing::internal::CaptureStderr();
  ApplyOption(entry, options);
  return testing::internal::GetCapturedStderr();
}

// The value that HAKMEM_RETAIN_BYTES=`text` gives, which must bring no warning.
uint64_t Parse(const std::string& text) {
  Options options;
  EXPECT_EQ(Apply("HAKMEM_RETAIN_BYTES=" + text, options), "") << text;
  return options.retain_bytes;
}

TEST(OptionsTest, NumbersAndTheirUnits) {
  EXPECT_EQ(Parse("0"), 0u);
  EXPECT_EQ(Parse("1"), 1u);
  EXPECT_EQ(Parse("0012"), 12u);
  EXPECT_EQ(Parse("3K"), uint64_t{3} << 10);
  EXPECT_EQ(Parse("5M"), uint64_t{5} << 20);
  EXPECT_EQ(Parse("7G"), uint64_t{7} << 30);
  EXPECT_EQ(Parse("2T"), uint64_t{2} << 40);
  EXPECT_EQ(Parse("4398046511104"), uint64_t{1} << 42);
}

TEST(OptionsTest, EveryOptionOfTheTableCanBeSetAndHasItsText) {
  for (const OptionInfo& info : OptionTable()) {
    for (size_t word = 0; word < info.words.size(); ++word) {
      Options options;
      EXPECT_EQ(
          Apply(std::string(info.name) + "=" + std::string(info.words[word]),
                options),
          "");
      EXPECT_EQ(options.*info.member, word) << info.name;
    }
    if (info.path != nullptr) {
      Options options;
      EXPECT_EQ(Apply(std::string(info.name) + "=/a/file%p", options), "");
      EXPECT_EQ(options.*info.member, info.words.size());
      EXPECT_STREQ((options.*info.path).text, "/a/file%p");
    }
    if (info.words.empty())
      for (const uint64_t value : {info.least, info.most}) {
        Options options;
        EXPECT_EQ(Apply(std::string(info.name) + "=" + std::to_string(value),
                        options),
                  "");
        EXPECT_EQ(options.*info.member, value) << info.name;
      }
    EXPECT_TRUE(info.name.starts_with("HAKMEM_"));
    EXPECT_FALSE(info.meaning.empty());
    const uint64_t by_default = Options().*info.member;
    EXPECT_GE(by_default, info.least);
    EXPECT_LE(by_default, info.most);
  }
}

TEST(OptionsTest, AValueThatIsNoNumberWarnsAndTheDefaultHolds) {
  for (const std::string text :
       {"", "K", "x", "-1", "+1", "1k", "1KB", "1 ", " 1", "0x10", "1.5M",
        // Two over 2^64, by digit, by addition and by unit.
        "18446744073709551616", "18446744073709551620", "99999999999999999999",
        "18014398509481984K", "16777216T"}) {
    const std::string entry = "HAKMEM_RETAIN_BYTES=" + text;
    Options options;
    EXPECT_EQ(Apply(entry, options),
              "hakmem: warning: not a number of bytes in " + entry +
                  ": the default holds\n");
    EXPECT_EQ(options.retain_bytes, Options().retain_bytes);
  }
}

TEST(OptionsTest, AValueOutOfRangeWarnsAndTheDefaultHolds) {
  for (const std::string entry :
       {"HAKMEM_ARENA_BYTES=1M", "HAKMEM_ARENA_BYTES=5T",
        "HAKMEM_DIRECT_MAPS=2", "HAKMEM_RETAIN_BYTES=18446744073709551615"}) {
    Options options;
    EXPECT_EQ(Apply(entry, options), "hakmem: warning: out of range in " +
                                         entry + ": the default holds\n");
    EXPECT_EQ(options.arena_bytes, Options().arena_bytes);
    EXPECT_EQ(options.direct_maps, Options().direct_maps);
    EXPECT_EQ(options.retain_bytes, Options().retain_bytes);
  }
}

TEST(OptionsTest, ANumberMayStandBesideWords) {
  Options options;
  EXPECT_EQ(Apply("HAKMEM_PROFILE=exit", options), "");
  EXPECT_EQ(options.profile, kProfileAtExit);
  EXPECT_EQ(Apply("HAKMEM_PROFILE=30", options), "");
  EXPECT_EQ(options.profile, kProfileAtExit + 30);
  EXPECT_EQ(Apply("HAKMEM_PROFILE=0", options), "");
  EXPECT_EQ(options.profile, kProfileNever);
  EXPECT_NE(Apply("HAKMEM_PROFILE=2T", options), "");
  EXPECT_NE(Apply("HAKMEM_PROFILE=never", options), "");
  EXPECT_EQ(options.profile, kProfileNever);
}

TEST(OptionsTest, WhatIsNoneOfTheWordsWarnsAndTheDefaultHolds) {
  const std::string too_long = "HAKMEM_LEAKS=/" + std::string(255, 'x');
  for (const std::string& entry :
       {std::string("HAKMEM_SITES=2"), std::string("HAKMEM_SITES="),
        std::string("HAKMEM_SITES=Caller"), std::string("HAKMEM_SITES=/a"),
        std::string("HAKMEM_LEAKS=file"), std::string("HAKMEM_STATS=1"),
        too_long}) {
    Options options;
    EXPECT_EQ(Apply(entry, options),
              "hakmem: warning: no value that this option may have in " +
                  entry + ": the default holds\n");
    EXPECT_EQ(options.sites, 0u);
    EXPECT_EQ(options.leaks, kReportNone);
    EXPECT_EQ(options.stats, kReportNone);
  }
  // The longest that there may be.
  Options options;
  EXPECT_EQ(Apply("HAKMEM_LEAKS=/" + std::string(254, 'x'), options), "");
  EXPECT_EQ(options.leaks, kReportToFile);
  EXPECT_EQ(std::string(options.leaks_path.text).size(), 255u);
}

TEST(OptionsTest, AnUnknownNameOfOursWarns) {
  Options options;
  EXPECT_EQ(Apply("HAKMEM_NO_SUCH=1", options),
            "hakmem: warning: no such option: HAKMEM_NO_SUCH: ignored\n");
  // A part of a name is no name.
  EXPECT_NE(Apply("HAKMEM_RETAIN=1", options), "");
  EXPECT_NE(Apply("HAKMEM_RETAIN_BYTES2=1", options), "");
  EXPECT_EQ(options.retain_bytes, Options().retain_bytes);
}

TEST(OptionsTest, NamesOfOthersAreNoneOfOurBusiness) {
  Options options;
  for (const std::string entry :
       {"PATH=/bin", "hakmem_retain_bytes=1", "XHAKMEM_RETAIN_BYTES=1",
        "HAKMEM", "HAKMEM_RETAIN_BYTES", "", "="}) {
    EXPECT_EQ(Apply(entry, options), "") << entry;
  }
  EXPECT_EQ(options.retain_bytes, Options().retain_bytes);
}

TEST(OptionsTest, AreReadFromTheEnvironment) {
  ASSERT_EQ(unsetenv("HAKMEM_CACHE_BYTES"), 0);
  ASSERT_EQ(setenv("HAKMEM_RETAIN_BYTES", "77K", 1), 0);
  const Options options = ReadOptions();
  ASSERT_EQ(unsetenv("HAKMEM_RETAIN_BYTES"), 0);
  EXPECT_EQ(options.retain_bytes, uint64_t{77} << 10);
  EXPECT_EQ(options.cache_bytes, Options().cache_bytes);
}

// Reads the options as a call does that comes before the C library is ready:
// 0 when they are those that the test below set.
[[noreturn]] void ReadEarly() {
  char** const saved = environ;
  environ = nullptr;
  const Options options = ReadOptions();
  environ = saved;
  _exit(options.retain_bytes == 4321 && options.cache_bytes == 8765 ? 0 : 1);
}

TEST(OptionsDeathTest, AreReadFromProcWhenTheLibraryHasNoneYet) {
  // This style runs the statement in a program started anew, whose
  // /proc/self/environ holds what is set here, entries among it that are
  // longer than the reader's buffer, by one and by much, and just as long.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  ASSERT_EQ(setenv("A_LONG_ONE", std::string(5000, 'x').c_str(), 1), 0);
  ASSERT_EQ(setenv("HAKMEM_RETAIN_BYTES", "4321", 1), 0);
  for (int i = 0; i < 24; ++i) {
    const std::string name = "B" + std::to_string(i);
    ASSERT_EQ(setenv(name.c_str(), std::string(495 + i, 'y').c_str(), 1), 0);
  }
  // Within a longer entry, and no entry of its own.
  ASSERT_EQ(setenv("C", (std::string(510, 'z') + "HAKMEM_X=1").c_str(), 1), 0);
  ASSERT_EQ(setenv("HAKMEM_CACHE_BYTES", "8765", 1), 0);
  EXPECT_EXIT(ReadEarly(), testing::ExitedWithCode(0), "^$");
}

}  // namespace
}  // namespace hakmem
