// A recording of a program's memory: the format, and what reads and writes it.
// docs/watching.md describes it for people who read it with programs of their
// own.
//
// A recording is lines of JSON, each complete in itself, so that what was
// written before a recording was cut off stays readable. The first line is the
// header; then come, in the order in which things happened: that the process
// runs on hakmem (once more after each execve(2), with which all sites begin
// anew), the names of sites before their first figures, names that were found
// for addresses of code, snapshots, and the end.

#ifndef TOOLS_HAKMEM_RECORDING_H_
#define TOOLS_HAKMEM_RECORDING_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/hakmem/addr2line.h"
#include "tools/hakmem/snapshot.h"

namespace hakmem::tools {

// The version of the format. Another one has lines that mean something else;
// what is only added keeps it.
inline constexpr uint64_t kRecordingVersion = 1;

struct RecordingHeader {
  std::string hakmem;  // version of the command that recorded
  int pid = 0;
  std::vector<std::string> command;
  uint64_t started = 0;   // of the recording: milliseconds since 1970
  uint64_t interval = 0;  // milliseconds between snapshots
};

// Writes a recording. Every function writes whole lines; the first error is
// returned by all that come after it. Times are milliseconds since the
// recording began.
class RecordingWriter {
 public:
  // Writes to the descriptor, which stays the caller's.
  RecordingWriter(int descriptor, const RecordingHeader& header);

  const absl::Status& status() const { return status_; }

  // That the process runs on hakmem from now on.
  absl::Status Begin(uint64_t time, const std::string& stage,
                     const std::vector<uint64_t>& age_bounds);
  // A snapshot: of its sites what has changed since the last one, and their
  // names where they are new.
  absl::Status Add(uint64_t time, const Snapshot& snapshot,
                   const std::function<SiteName(SiteNumber)>& name);
  // Names that were found since the sites were written.
  absl::Status AddNames(const std::map<SiteNumber, CodeName>& names);
  absl::Status End(uint64_t time, const std::string& how);

 private:
  absl::Status Write(absl::string_view lines);

  const int descriptor_;
  absl::Status status_;
  std::map<SiteNumber, SiteFigures> written_;
};

// A recording as read.
struct Recording {
  struct Moment {
    uint64_t time = 0;
    uint64_t rss = 0;
    HeapFigures heap;
  };
  // What a site had from a moment on, until the next point.
  struct Point {
    size_t moment = 0;  // index in `moments`
    uint64_t live_bytes = 0;
    uint64_t live_blocks = 0;
  };
  struct Site {
    SiteName name;
    std::vector<Point> points;
    SiteFigures last;
  };

  RecordingHeader header;
  std::string stage;
  std::vector<uint64_t> age_bounds;
  std::vector<Moment> moments;
  std::vector<Site> sites;
  std::string end;   // how it ended; empty where that is not written
  bool cut = false;  // the last line is incomplete, and was left out
};

// Reads a recording. InvalidArgument, with the number of the line in front, if
// it is none, is empty or is damaged; that only its last line is incomplete is
// no damage unless that is the header.
absl::StatusOr<Recording> ParseRecording(absl::string_view text);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_RECORDING_H_
