#include "tools/hakmem/recording.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "tools/hakmem/file.h"
#include "tools/hakmem/report_page.h"

namespace hakmem::tools {
namespace {

constexpr char kHostile[] = "</script><img src=x onerror=y>\"\n\x1b";

Snapshot MakeSnapshot(uint64_t live) {
  Snapshot snapshot;
  snapshot.rss = live + 100;
  snapshot.heap = {live, 2, 3, 4, 5};
  SiteFigures& site = snapshot.sites[7];
  site.live_bytes = live;
  site.live_blocks = live / 16;
  site.peak_bytes = live;
  site.allocs = 1000;
  site.alloc_bytes = 16000;
  site.sizes[16] = {1000, 1000 - live / 16};
  site.ages = {1, 2, 3};
  return snapshot;
}

SiteName MakeName(SiteNumber number) {
  SiteName name;
  name.kind = "caller";
  name.id = 0x1234 + number;
  name.label = kHostile;
  name.module = "/bin/x";
  name.offset = 0xabc;
  name.build_id = "0badcafe";
  return name;
}

// What a writer writes about two programs in one process.
std::string Record() {
  const int descriptor = memfd_create("recording", 0);
  RecordingWriter writer(descriptor, {.hakmem = "1.2.3",
                                      .pid = 12,
                                      .command = {"x", kHostile},
                                      .started = 1000,
                                      .interval = 500});
  EXPECT_TRUE(writer.Begin(1, "p0", {16, 64}).ok());
  EXPECT_TRUE(writer.Add(2, MakeSnapshot(160), MakeName).ok());
  EXPECT_TRUE(writer.AddNames({{7, {"Function", "/src/file.cc", 42}}}).ok());
  EXPECT_TRUE(writer.Add(3, MakeSnapshot(160), MakeName).ok());
  EXPECT_TRUE(writer.Add(4, MakeSnapshot(320), MakeName).ok());
  EXPECT_TRUE(writer.Begin(5, "tls_full", {16, 64}).ok());
  EXPECT_TRUE(writer.Add(6, MakeSnapshot(480), MakeName).ok());
  EXPECT_TRUE(writer.End(7, "the program exited with 0").ok());
  const absl::StatusOr<std::string> text =
      ReadWholeFile(absl::StrCat("/proc/self/fd/", descriptor));
  close(descriptor);
  return *text;
}

TEST(RecordingTest, IsReadAsItWasWritten) {
  const absl::StatusOr<Recording> recording = ParseRecording(Record());
  ASSERT_TRUE(recording.ok()) << recording.status();
  EXPECT_EQ(recording->header.hakmem, "1.2.3");
  EXPECT_EQ(recording->header.pid, 12);
  EXPECT_EQ(recording->header.command,
            (std::vector<std::string>{"x", kHostile}));
  EXPECT_EQ(recording->header.started, 1000u);
  EXPECT_EQ(recording->header.interval, 500u);
  EXPECT_EQ(recording->stage, "tls_full");
  EXPECT_EQ(recording->age_bounds, (std::vector<uint64_t>{16, 64}));
  EXPECT_EQ(recording->end, "the program exited with 0");
  EXPECT_FALSE(recording->cut);
  ASSERT_EQ(recording->moments.size(), 4u);
  EXPECT_EQ(recording->moments[2].time, 4u);
  EXPECT_EQ(recording->moments[2].rss, 420u);
  EXPECT_EQ(recording->moments[2].heap, MakeSnapshot(320).heap);

  // The first program's site and the second's are two.
  ASSERT_EQ(recording->sites.size(), 2u);
  const Recording::Site& site = recording->sites[0];
  EXPECT_EQ(site.name.kind, "caller");
  EXPECT_EQ(site.name.id, 0x1234u + 7);
  EXPECT_EQ(site.name.label, kHostile);
  EXPECT_EQ(site.name.function, "Function");
  EXPECT_EQ(site.name.file, "/src/file.cc");
  EXPECT_EQ(site.name.line, 42u);
  EXPECT_EQ(site.name.module, "/bin/x");
  EXPECT_EQ(site.name.offset, 0xabcu);
  EXPECT_EQ(site.name.build_id, "0badcafe");
  // Only changes have been written: 160, 320, and nothing after execve(2).
  ASSERT_EQ(site.points.size(), 3u);
  EXPECT_EQ(site.points[0].live_bytes, 160u);
  EXPECT_EQ(site.points[1].moment, 2u);
  EXPECT_EQ(site.points[1].live_bytes, 320u);
  EXPECT_EQ(site.points[2].moment, 3u);
  EXPECT_EQ(site.points[2].live_bytes, 0u);
  EXPECT_EQ(recording->sites[1].last, MakeSnapshot(480).sites[7]);
}

TEST(RecordingTest, CutOffAnywhereItIsReadUpToThere) {
  const std::string text = Record();
  const size_t header = text.find('\n');
  size_t moments = 0;
  for (size_t size = 0; size < text.size(); ++size) {
    const absl::StatusOr<Recording> recording =
        ParseRecording(absl::string_view(text).substr(0, size));
    if (size < header) {
      EXPECT_FALSE(recording.ok());
      EXPECT_TRUE(absl::StartsWith(recording.status().message(), "line 1: "));
      continue;
    }
    ASSERT_TRUE(recording.ok()) << size << ": " << recording.status();
    // At the end of a line, with its newline or without, nothing is missing.
    EXPECT_EQ(recording->cut, text[size - 1] != '\n' && text[size] != '\n')
        << size;
    EXPECT_GE(recording->moments.size(), moments);
    moments = recording->moments.size();
  }
  EXPECT_EQ(moments, 4u);
}

TEST(RecordingTest, SaysInWhichLineItIsDamaged) {
  const std::string text = Record();
  const auto error = [&text](const char* from, const char* to) {
    const std::string damaged = absl::StrReplaceAll(text, {{from, to}});
    EXPECT_NE(damaged, text) << from;
    return std::string(ParseRecording(damaged).status().message());
  };
  EXPECT_EQ(ParseRecording("").status().message(), "line 1: the file is empty");
  EXPECT_EQ(ParseRecording("\n").status().message(),
            "line 1: column 1: the line ends inside a value");
  EXPECT_EQ(ParseRecording("{}\n").status().message(),
            "line 1: this is no recording of hakmem's");
  EXPECT_EQ(error("\"hakmem_recording\":1", "\"hakmem_recording\":2"),
            "line 1: the recording is of version 2, and this command knows "
            "version 1");
  EXPECT_EQ(error("{\"begin\"", "[\"begin\""),
            "line 2: column 9: ',' or ']' is expected");
  EXPECT_EQ(error("{\"site\":7", "{\"site\":-7"),
            "line 3: \"site\" is no number");
  EXPECT_EQ(error("\"rss\":260", "\"rss\":\"260\""),
            "line 4: \"rss\" is no number");
  EXPECT_EQ(error("\"sites\":[[7", "\"sites\":[[8"),
            "line 4: \"sites\" makes no sense");
  EXPECT_EQ(error("{\"name\":7", "{\"name\":9"),
            "line 5: a name for a site that is not there");
  EXPECT_EQ(error("\"t\":4", "\"t\":1"), "line 7: time goes backwards");
}

TEST(RecordingTest, LinesOfALaterTimeAreLeftOut) {
  const std::string text = absl::StrReplaceAll(
      Record(), {{"{\"end\"", "{\"weather\":\"fine\"}\n{\"end\""}});
  EXPECT_TRUE(ParseRecording(text).ok());
}

TEST(RecordingTest, TellsThatItCannotBeWritten) {
  const int full = open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  RecordingWriter writer(full, {});
  EXPECT_FALSE(writer.status().ok());
  EXPECT_FALSE(writer.End(1, "").ok());
  close(full);
}

TEST(ReportPageTest, TextOfTheRecordingIsNoMarkup) {
  const absl::StatusOr<Recording> recording = ParseRecording(Record());
  ASSERT_TRUE(recording.ok());
  Recording hostile = *recording;
  hostile.header.command[0] = "</title><script>@DATA@";
  const std::string page = ReportPage(hostile);
  size_t scripts = 0;
  for (size_t at = 0; (at = page.find("<script", at)) != std::string::npos;
       ++at) {
    ++scripts;
  }
  EXPECT_EQ(scripts, 2u);
  EXPECT_EQ(page.find("<img"), std::string::npos);
  EXPECT_NE(page.find("&lt;/title&gt;"), std::string::npos);
  EXPECT_NE(page.find("\\u003c/script>\\u003cimg"), std::string::npos);
}

TEST(ReportPageTest, OfManyMomentsTheHighestStay) {
  Recording recording;
  recording.moments.resize(10 * kMostMoments);
  for (size_t i = 0; i < recording.moments.size(); ++i) {
    recording.moments[i].time = i;
    recording.moments[i].rss = 1000;
  }
  recording.moments[1234].rss = 77777;
  recording.moments.back().rss = 4321;
  const std::string data = ReportData(recording);
  const size_t begin = data.find("\"rss\":[");
  const std::string rss = data.substr(begin, data.find(']', begin) - begin);
  EXPECT_NE(rss.find(",77777,"), std::string::npos);
  EXPECT_TRUE(absl::EndsWith(rss, ",4321"));
  size_t commas = 0;
  for (const char c : rss) commas += c == ',';
  EXPECT_EQ(commas, kMostMoments - 1);
}

TEST(ReportPageTest, ManySitesAreAddedUp) {
  Recording recording;
  recording.moments.resize(1);
  recording.sites.resize(kMostSites + 50);
  for (size_t i = 0; i < recording.sites.size(); ++i) {
    Recording::Site& site = recording.sites[i];
    site.name.kind = "id";
    site.name.id = i;
    site.last.live_bytes = site.last.peak_bytes = i < 50 ? 3 : 1000 + i;
    site.points.push_back({0, site.last.live_bytes, 1});
  }
  const std::string data = ReportData(recording);
  EXPECT_NE(data.find("\"50 smaller sites\""), std::string::npos);
  EXPECT_NE(data.find("\"live\":150,"), std::string::npos);
  EXPECT_EQ(data.find("\"id 49\""), std::string::npos);
  EXPECT_NE(data.find("\"id 50\""), std::string::npos);
}

}  // namespace
}  // namespace hakmem::tools
