// Records a process: looks at it again and again, and writes what it sees.

#ifndef TOOLS_HAKMEM_RECORDER_H_
#define TOOLS_HAKMEM_RECORDER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/hakmem/observer.h"
#include "tools/hakmem/recording.h"
#include "tools/hakmem/symbolizer.h"

namespace hakmem::tools {

// For one thread.
class Recorder {
 public:
  // Makes the file, or empties it, and writes the header. The file is closed on
  // execve(2). `command` may be empty: the process's own then.
  static absl::StatusOr<std::unique_ptr<Recorder>> Create(
      const std::string& path, const Process& process, int64_t interval,
      std::vector<std::string> command);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // How long until the next look, in milliseconds.
  int64_t Wait() const;

  // Looks, if it is time. A process that does not run on hakmem (yet, or any
  // more) gives no snapshot and is looked at again. Errors are those of
  // Observer, and of writing the file (Aborted).
  absl::Status Look();

  // Ends the recording with the names that are still looked for, and how the
  // process ended.
  absl::Status Finish(const std::string& how);

  size_t moments() const { return moments_; }
  const std::string& path() const { return path_; }

 private:
  Recorder(const std::string& path, int descriptor, const Process& process,
           const RecordingHeader& header);

  absl::Status Attach();
  absl::Status Written(const absl::Status& status) const;
  uint64_t Time() const;

  const std::string path_;
  const int descriptor_;
  const Process process_;
  const int64_t interval_;
  const int64_t start_;  // milliseconds of CLOCK_MONOTONIC, as is next_
  int64_t next_;
  int64_t next_try_ = 1;  // milliseconds until it is tried again
  size_t moments_ = 0;
  std::optional<Observer> observer_;
  RecordingWriter writer_;
  std::unique_ptr<Symbolizer> symbolizer_;
};

// Splits "FILE" or "FILE,SECONDS".
struct RecordPlace {
  std::string path;
  int64_t interval = 1000;  // milliseconds
};
absl::StatusOr<RecordPlace> ParseRecordPlace(const std::string& text);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_RECORDER_H_
