// Another process, seen from outside: what /proc says about it, and its memory.
// Nothing here stops it, signals it or writes to it.

#ifndef TOOLS_HAKMEM_PROCESS_H_
#define TOOLS_HAKMEM_PROCESS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hakmem::tools {

// One line of /proc/PID/maps that names a file.
struct Mapping {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t offset = 0;  // of `begin` in the file
  bool executable = false;
  std::string device;  // with inode, tells files apart
  uint64_t inode = 0;
  std::string path;      // as the process sees it, without " (deleted)"
  bool deleted = false;  // the path names nothing or another file by now
};

// Parses one line of /proc/PID/maps. False where it names no file.
bool ParseMapping(absl::string_view line, Mapping* mapping);

// A process. Its number may be given to another one once it has ended; every
// function but Open() checks that it is the same still.
class Process {
 public:
  // NotFound if there is no such process, or if it has ended and only waits
  // for its parent.
  static absl::StatusOr<Process> Open(pid_t pid);

  pid_t pid() const { return pid_; }

  // Its mappings of files, in the order of their addresses. NotFound if it has
  // ended, PermissionDenied if the caller may not look.
  absl::StatusOr<std::vector<Mapping>> Mappings() const;

  // Copies `size` bytes at `address` of its memory. NotFound if it has ended,
  // PermissionDenied if the caller may not look, OutOfRange if there is nothing
  // at that address.
  absl::Status Read(uint64_t address, void* buffer, size_t size) const;

  // Resident memory in bytes, and how long it runs. NotFound if it has ended.
  absl::StatusOr<uint64_t> ResidentBytes() const;
  double UptimeSeconds() const;

  // Its arguments, as far as /proc tells them, or its name in place of none.
  std::vector<std::string> CommandLine() const;

  // Where the caller finds a file that the process sees at `path`, also where
  // the process has another root.
  std::string PathOutside(absl::string_view path) const;
  // A name by which the mapped file itself can be opened, deleted or not.
  std::string FileOf(const Mapping& mapping) const;

  bool HasEnded() const;
  // NotFound, with "process 12 has ended".
  absl::Status EndedError() const;

 private:
  Process(pid_t pid, uint64_t start_ticks)
      : pid_(pid), start_ticks_(start_ticks) {}

  std::string Proc(absl::string_view name) const;
  absl::Status DeniedError() const;

  pid_t pid_;
  uint64_t start_ticks_;  // when it began: tells it from its successors
};

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_PROCESS_H_
