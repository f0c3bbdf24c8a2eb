#include "tools/hakmem/leaks.h"

#include <sys/stat.h>

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"

namespace hakmem::tools {
namespace {

constexpr char kReport[] =
    "hakmem: leak: 500 bytes in 50 blocks, /opt/no program+0x12ab\n"
    "hakmem: leak: 400 bytes in 1 blocks, /src/a.cc:12 (label, 3 blocks)\n"
    "hakmem: leak: 80 bytes in 5 blocks, /opt/no program+0x12ab\n"
    "hakmem: leak: 16 bytes in 1 blocks, site 77\n"
    "hakmem: leak: 8 bytes in 1 blocks, site 77\n"
    "hakmem: leaks: 1004 bytes in 58 blocks of 5 sites, process 12\n";

TEST(LeaksTest, ParsesWhatTheLibraryWrites) {
  const LeakReport report = ParseLeaks(kReport);
  EXPECT_TRUE(report.complete);
  ASSERT_EQ(report.leaks.size(), 5u);
  EXPECT_EQ(report.leaks[0].bytes, 500u);
  EXPECT_EQ(report.leaks[0].blocks, 50u);
  EXPECT_EQ(report.leaks[0].module, "/opt/no program");
  EXPECT_EQ(report.leaks[0].address, 0x12abu);
  EXPECT_EQ(report.leaks[1].place, "/src/a.cc:12 (label, 3 blocks)");
  EXPECT_EQ(report.leaks[1].module, "");
  EXPECT_EQ(FormatLeak(report.leaks[1]),
            "400 bytes in 1 block  /src/a.cc:12 (label, 3 blocks)");
}

TEST(LeaksTest, ReportThatIsCutOffIsIncomplete) {
  const std::string text = kReport;
  EXPECT_FALSE(ParseLeaks("").complete);
  EXPECT_FALSE(ParseLeaks(text.substr(0, text.rfind("hakmem: "))).complete);
}

TEST(LeaksTest, TheLastProgramOfAProcessCounts) {
  const LeakReport report = ParseLeaks(absl::StrCat(
      kReport, "hakmem: leak: 1 bytes in 1 blocks, site 1\n",
      "hakmem: leaks: 1 bytes in 1 blocks of 1 sites, process 12\n"));
  EXPECT_TRUE(report.complete);
  ASSERT_EQ(report.leaks.size(), 1u);
  EXPECT_TRUE(
      ParseLeaks(
          absl::StrCat(kReport,
                       "hakmem: leaks: 0 bytes in 0 blocks of 0 sites, ..."))
          .leaks.empty());
}

TEST(LeaksTest, AddsUpAndSorts) {
  LeakReport report =
      ParseLeaks(absl::StrReplaceAll(kReport, {{"16 bytes", "600 bytes"}}));
  EXPECT_EQ(NameLeaks(&report), 0u);
  ASSERT_EQ(report.leaks.size(), 3u);
  EXPECT_EQ(FormatLeak(report.leaks[0]), "608 bytes in 2 blocks  site 77");
  EXPECT_EQ(FormatLeak(report.leaks[1]),
            "580 bytes in 55 blocks  /opt/no program+0x12ab");
}

TEST(LeaksTest, LeavesOutWhatTheLibrariesKeep) {
  LeakReport report = ParseLeaks(
      "hakmem: leak: 81920 bytes in 1 blocks, /no/libstdc++.so.6+0x1\n"
      "hakmem: leak: 320 bytes in 1 blocks, /no/libstdc++.so.6+0x2\n"
      "hakmem: leak: 128 bytes in 1 blocks, /no/ld-linux-x86-64.so.2+0x2\n"
      "hakmem: leaks: x\n");
  EXPECT_EQ(NameLeaks(&report), 81920u + 128);
  ASSERT_EQ(report.leaks.size(), 1u);
  EXPECT_EQ(report.leaks[0].bytes, 320u);
}

TEST(LeakFolderTest, ReadsEveryProcessAndGoes) {
  std::string path;
  {
    absl::StatusOr<std::unique_ptr<LeakFolder>> folder = LeakFolder::Create();
    ASSERT_TRUE(folder.ok()) << folder.status();
    path = absl::StrReplaceAll((*folder)->pattern(), {{"/%p", ""}});
    std::ofstream(path + "/12") << kReport;
    std::ofstream(path + "/7")
        << "hakmem: leaks: 0 bytes in 0 blocks of 0 sites, process 7\n";
    EXPECT_EQ((*folder)->Read(7),
              "hakmem: run: the program leaked nothing\n"
              "580 bytes in 55 blocks  /opt/no program+0x12ab\n"
              "400 bytes in 1 block  /src/a.cc:12 (label, 3 blocks)\n"
              "24 bytes in 2 blocks  site 77\n"
              "hakmem: run: process 12, which it started, leaked 1004 bytes in "
              "58 blocks, at 3 sites\n");
    const std::string nothing = (*folder)->Read(9);
    EXPECT_EQ(nothing.substr(0, nothing.find('\n')),
              "hakmem: run: the program did not come to its end by exit(), so "
              "that nothing is known of its leaks");
  }
  struct stat status;
  EXPECT_NE(stat(path.c_str(), &status), 0);
}

}  // namespace
}  // namespace hakmem::tools
