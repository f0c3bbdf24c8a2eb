#include "tools/hakmem/format.h"

#include <csignal>
#include <limits>

#include "gtest/gtest.h"

namespace hakmem::tools {
namespace {

TEST(FormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "0.98 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.50 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{12} << 20), "12.0 MiB");
  EXPECT_EQ(FormatBytes((uint64_t{1} << 20) - 1), "1.00 MiB");
  EXPECT_EQ(FormatBytes(uint64_t{512} << 30), "512 GiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<uint64_t>::max()), "16.0 EiB");
  // No figure is wider than its column.
  for (uint64_t bytes = 1; bytes < uint64_t{1} << 62; bytes += bytes / 3 + 1) {
    EXPECT_LE(FormatBytes(bytes).size(), 8u) << bytes;
  }
}

TEST(FormatTest, Growth) {
  EXPECT_EQ(FormatGrowth(0), "0 B");
  EXPECT_EQ(FormatGrowth(2048), "+2.00 KiB");
  EXPECT_EQ(FormatGrowth(-3), "-3 B");
  EXPECT_EQ(FormatGrowth(std::numeric_limits<int64_t>::min()), "-8.00 EiB");
}

TEST(FormatTest, Count) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
}

TEST(FormatTest, Duration) {
  EXPECT_EQ(FormatDuration(7), "0:07");
  EXPECT_EQ(FormatDuration(3599), "59:59");
  EXPECT_EQ(FormatDuration(3600), "1:00:00");
  EXPECT_EQ(FormatDuration(86400 * 2 + 61), "2d 0:01:01");
}

TEST(FormatTest, Signal) {
  EXPECT_EQ(SignalName(SIGTERM), "SIGTERM");
  EXPECT_EQ(SignalName(40), "signal 40");
}

TEST(FormatTest, PrintableReplacesWhatATerminalWouldObey) {
  EXPECT_EQ(Printable("plain é €"), "plain é €");
  EXPECT_EQ(Printable("a\x1b[2Jb\n\x7f"), "a?[2Jb??");
  EXPECT_EQ(Printable("\xc2\x9b"), "?");  // U+009B, as ESC [ in one
  EXPECT_EQ(Printable("\xc3"), "?");
  EXPECT_EQ(Printable("\xc0\x80\xed\xa0\x80"), "?????");
  EXPECT_EQ(Printable("\xf4\x90\x80\x80"), "????");
}

TEST(FormatTest, ColumnsAreCharacters) {
  EXPECT_EQ(Columns("aé€"), 3u);
  EXPECT_EQ(FirstColumns("aé€b", 2), "aé");
  EXPECT_EQ(FirstColumns("aé", 5), "aé");
  EXPECT_EQ(FirstColumns("aé", 0), "");
}

}  // namespace
}  // namespace hakmem::tools
