// hakmem report: shows a recording as a page.

#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tools/hakmem/command.h"
#include "tools/hakmem/file.h"
#include "tools/hakmem/flags.h"
#include "tools/hakmem/recording.h"
#include "tools/hakmem/report_page.h"

namespace hakmem::tools {
namespace {

int Fail(int exit_status, absl::string_view message) {
  std::fprintf(stderr, "hakmem: report: %s\n", std::string(message).c_str());
  return exit_status;
}

// "server.html" for "server.rec".
std::string PageOf(absl::string_view file) {
  const size_t slash = file.rfind('/');
  const size_t name = slash == absl::string_view::npos ? 0 : slash + 1;
  const size_t dot = file.rfind('.');
  if (dot != absl::string_view::npos && dot > name) file = file.substr(0, dot);
  return absl::StrCat(file, ".html");
}

int Report(std::span<char* const> arguments) {
  Flag flags[] = {{"--output", "-o", true, {}}};
  const absl::StatusOr<std::vector<std::string>> rest =
      ParseFlags(arguments, flags);
  if (!rest.ok()) return Fail(kExitUsage, rest.status().message());
  if (rest->size() != 1) {
    return Fail(kExitUsage, "takes one recording; see `hakmem help report`");
  }
  const std::string& file = (*rest)[0];
  const std::string output = flags[0].value.value_or(PageOf(file));
  if (output == file) {
    return Fail(kExitUsage, absl::StrCat(file, " would be overwritten"));
  }
  const absl::StatusOr<std::string> text = ReadWholeFile(file);
  if (!text.ok()) return Fail(kExitFailed, text.status().message());
  const absl::StatusOr<Recording> recording = ParseRecording(*text);
  if (!recording.ok()) {
    return Fail(kExitFailed,
                absl::StrCat(file, ": ", recording.status().message()));
  }
  if (recording->moments.empty()) {
    return Fail(kExitFailed,
                absl::StrCat(file, ": there is no snapshot in it"));
  }
  if (recording->cut) {
    std::fprintf(stderr,
                 "hakmem: report: %s was cut off; the page has what is there\n",
                 file.c_str());
  }
  const std::string page = ReportPage(*recording);
  if (output == "-") {
    std::fwrite(page.data(), 1, page.size(), stdout);
    return 0;
  }
  const absl::Status written = WriteWholeFile(output, page);
  if (!written.ok()) return Fail(kExitFailed, written.message());
  std::printf("%s\n", output.c_str());
  return 0;
}

}  // namespace

const Command kReportCommand = {
    "report", "[-o page.html] file", "show a recording as a page of HTML",
    "Makes one page of a recording (`hakmem run --record=FILE`, `hakmem "
    "record`):\n"
    "memory over time, which sites hold it, and which of them only grow. The\n"
    "page needs nothing but a browser. Its name is printed; without -o it is\n"
    "that of the recording, ending in .html.\n"
    "\n"
    "--output=PAGE, -o   where to; - is standard output\n"
    "\n"
    "    hakmem run --sites=caller --record=server.rec -- server\n"
    "    hakmem report server.rec\n",
    Report};

}  // namespace hakmem::tools
