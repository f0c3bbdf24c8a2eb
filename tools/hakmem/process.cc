#include "tools/hakmem/process.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tools/hakmem/file.h"

namespace hakmem::tools {
namespace {

// What is asked of process_vm_readv(2) at once.
constexpr size_t kReadBytes = size_t{1} << 20;

// The fields of /proc/PID/stat after the name, which may hold anything: the
// state is the first, and the time of its start the 20th. See proc(5).
constexpr size_t kState = 0;
constexpr size_t kStartTicks = 19;

struct Stat {
  char state;
  uint64_t start_ticks;
};

std::optional<Stat> ReadStat(pid_t pid) {
  const absl::StatusOr<std::string> text =
      ReadWholeFile(absl::StrCat("/proc/", pid, "/stat"));
  if (!text.ok()) return std::nullopt;
  const size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  const std::vector<absl::string_view> fields = absl::StrSplit(
      absl::string_view(*text).substr(name_end + 1), ' ', absl::SkipEmpty());
  Stat stat = {};
  if (fields.size() <= kStartTicks ||
      !absl::SimpleAtoi(fields[kStartTicks], &stat.start_ticks)) {
    return std::nullopt;
  }
  stat.state = fields[kState][0];
  return stat;
}

bool IsDead(char state) { return state == 'Z' || state == 'X'; }

// The kernel writes a newline in a path as \012, and nothing else so.
std::string UnescapePath(absl::string_view path) {
  std::string plain;
  for (size_t at = 0; at < path.size();) {
    if (absl::StartsWith(path.substr(at), "\\012")) {
      plain += '\n';
      at += 4;
    } else {
      plain += path[at++];
    }
  }
  return plain;
}

std::string UserName(uid_t uid) {
  const passwd* const entry = getpwuid(uid);
  return entry != nullptr ? entry->pw_name : absl::StrCat("number ", uid);
}

}  // namespace

bool ParseMapping(absl::string_view line, Mapping* mapping) {
  // begin-end perms offset device inode, blanks, and the path, which may
  // contain blanks itself.
  std::vector<absl::string_view> fields;
  for (int i = 0; i < 5; ++i) {
    const size_t end = line.find(' ');
    if (end == absl::string_view::npos) return false;
    fields.push_back(line.substr(0, end));
    line.remove_prefix(end + 1);
  }
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  if (line.empty() || line[0] != '/') return false;
  const std::vector<absl::string_view> range = absl::StrSplit(fields[0], '-');
  if (range.size() != 2 || !absl::SimpleHexAtoi(range[0], &mapping->begin) ||
      !absl::SimpleHexAtoi(range[1], &mapping->end) ||
      !absl::SimpleHexAtoi(fields[2], &mapping->offset) ||
      !absl::SimpleAtoi(fields[4], &mapping->inode)) {
    return false;
  }
  mapping->executable = absl::StrContains(fields[1], 'x');
  mapping->device = std::string(fields[3]);
  mapping->deleted = absl::ConsumeSuffix(&line, " (deleted)");
  mapping->path = UnescapePath(line);
  return true;
}

absl::StatusOr<Process> Process::Open(pid_t pid) {
  const std::optional<Stat> stat = ReadStat(pid);
  if (!stat.has_value()) {
    return absl::NotFoundError(absl::StrCat("there is no process ", pid));
  }
  const Process process(pid, stat->start_ticks);
  if (IsDead(stat->state)) return process.EndedError();
  return process;
}

std::string Process::Proc(absl::string_view name) const {
  return absl::StrCat("/proc/", pid_, "/", name);
}

bool Process::HasEnded() const {
  const std::optional<Stat> stat = ReadStat(pid_);
  return !stat.has_value() || stat->start_ticks != start_ticks_ ||
         IsDead(stat->state);
}

absl::Status Process::EndedError() const {
  return absl::NotFoundError(absl::StrCat("process ", pid_, " has ended"));
}

absl::Status Process::DeniedError() const {
  // The owner of its folder would be root for a process that protects itself.
  const absl::StatusOr<std::string> status = ReadWholeFile(Proc("status"));
  uid_t uid = geteuid();
  if (status.ok()) {
    for (const absl::string_view line : absl::StrSplit(*status, '\n')) {
      if (!absl::StartsWith(line, "Uid:")) continue;
      const std::vector<absl::string_view> fields =
          absl::StrSplit(line, absl::ByAnyChar("\t "), absl::SkipEmpty());
      if (fields.size() > 1) (void)absl::SimpleAtoi(fields[1], &uid);
    }
  }
  if (uid != geteuid()) {
    return absl::PermissionDeniedError(
        absl::StrCat("process ", pid_, " belongs to the user ", UserName(uid),
                     "; only that user and root may look into it"));
  }
  return absl::PermissionDeniedError(absl::StrCat(
      "the system does not let you look into process ", pid_,
      " (see ptrace_scope in ptrace(2)): try as root, or start the program "
      "with `hakmem run --record=FILE`"));
}

absl::StatusOr<std::vector<Mapping>> Process::Mappings() const {
  const absl::StatusOr<std::string> text = ReadWholeFile(Proc("maps"));
  if (HasEnded()) return EndedError();
  if (!text.ok()) return DeniedError();
  std::vector<Mapping> mappings;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    Mapping mapping;
    if (ParseMapping(line, &mapping)) mappings.push_back(std::move(mapping));
  }
  return mappings;
}

absl::Status Process::Read(uint64_t address, void* buffer, size_t size) const {
  auto* to = static_cast<char*>(buffer);
  while (size > 0) {
    const iovec local = {to, std::min(size, kReadBytes)};
    const iovec remote = {reinterpret_cast<void*>(address), local.iov_len};
    const ssize_t got = process_vm_readv(pid_, &local, 1, &remote, 1, 0);
    if (got <= 0) {
      const int error = errno;
      if (error == ESRCH || HasEnded()) return EndedError();
      if (error == EPERM) return DeniedError();
      return absl::OutOfRangeError(
          absl::StrCat("process ", pid_, " has nothing to read at 0x",
                       absl::Hex(address), ": ", std::strerror(error)));
    }
    const auto count = static_cast<size_t>(got);
    to += count;
    address += count;
    size -= count;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Process::ResidentBytes() const {
  const absl::StatusOr<std::string> text = ReadWholeFile(Proc("statm"));
  if (HasEnded()) return EndedError();
  if (!text.ok()) return text.status();
  const std::vector<absl::string_view> fields = absl::StrSplit(*text, ' ');
  uint64_t pages = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &pages)) {
    return absl::InternalError(absl::StrCat(Proc("statm"), " is odd"));
  }
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

double Process::UptimeSeconds() const {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  const double began = static_cast<double>(start_ticks_) /
                       static_cast<double>(sysconf(_SC_CLK_TCK));
  const double seconds = static_cast<double>(now.tv_sec) +
                         static_cast<double>(now.tv_nsec) * 1e-9 - began;
  return std::max(seconds, 0.0);
}

std::vector<std::string> Process::CommandLine() const {
  const absl::StatusOr<std::string> text = ReadWholeFile(Proc("cmdline"));
  if (text.ok() && !text->empty()) {
    return absl::StrSplit(absl::StripSuffix(*text, absl::string_view("\0", 1)),
                          '\0');
  }
  const absl::StatusOr<std::string> name = ReadWholeFile(Proc("comm"));
  if (!name.ok()) return {absl::StrCat("process ", pid_)};
  return {std::string(absl::StripSuffix(*name, "\n"))};
}

std::string Process::PathOutside(absl::string_view path) const {
  const std::string plain(path);
  std::string outside = absl::StrCat(Proc("root"), path);
  struct stat seen_inside;
  struct stat seen_here;
  if (stat(outside.c_str(), &seen_inside) != 0) return plain;
  // The name without the process is good after its end too.
  if (stat(plain.c_str(), &seen_here) == 0 &&
      seen_here.st_dev == seen_inside.st_dev &&
      seen_here.st_ino == seen_inside.st_ino) {
    return plain;
  }
  return outside;
}

std::string Process::FileOf(const Mapping& mapping) const {
  // Opening one of these takes more rights than reading the process does, so
  // they come second.
  if (!mapping.deleted) return PathOutside(mapping.path);
  std::string file = absl::StrCat(Proc("map_files/"), absl::Hex(mapping.begin),
                                  "-", absl::Hex(mapping.end));
  if (access(file.c_str(), R_OK) == 0) return file;
  // The program itself can be opened by whoever may read the process.
  struct stat exe;
  if (stat(Proc("exe").c_str(), &exe) == 0 && exe.st_ino == mapping.inode) {
    return Proc("exe");
  }
  return PathOutside(mapping.path);
}

}  // namespace hakmem::tools
