#include "hakmem/core/options.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "hakmem/core/report.h"

namespace hakmem {
namespace {

constexpr std::string_view kPrefix = "HAKMEM_";

constexpr OptionInfo kOptionTable[] = {
    {"HAKMEM_ARENA_BYTES", &Options::arena_bytes, uint64_t{1} << 22,
     uint64_t{1} << 42,
     "address space to set aside; halved until the system grants it"},
    {"HAKMEM_DIRECT_MAPS", &Options::direct_maps, 0, 1,
     "1: map directly what does not fit into the arena; 0: fail with ENOMEM"},
    {"HAKMEM_CACHE_BYTES", &Options::cache_bytes, 0, uint64_t{1} << 42,
     "what thread caches and depots may hold; 0: a 64th of the memory"},
    {"HAKMEM_RETAIN_BYTES", &Options::retain_bytes, 0, uint64_t{1} << 42,
     "free memory to keep from the system, beside a 64th of what is live"},
    {"HAKMEM_SOFT_LIMIT", &Options::soft_limit, 0, uint64_t{1} << 42,
     "bytes held beyond which nothing is kept; 0: 7/8 of HAKMEM_LIMIT, if any"},
    {"HAKMEM_LIMIT", &Options::limit, 0, uint64_t{1} << 42,
     "bytes held beyond which allocation fails with ENOMEM; 0: no limit"},
    {"HAKMEM_DECAY_MS", &Options::decay_ms, 1, 3600000,
     "milliseconds after which free memory goes that nobody wanted meanwhile"},
    {"HAKMEM_BACKGROUND", &Options::background, 0, 1,
     "1: a thread returns memory also while the program does nothing"},
    {"HAKMEM_HUGE_PAGES", &Options::huge_pages, 0, 1,
     "1: ask for huge pages, where the system gives them to who asks"},
    {"HAKMEM_PURGE", &Options::purge, 0, 1,
     "1: return free memory to the system; 0: only when that is asked for"},
};

// Reads a decimal number with an optional unit; false when it is none or does
// not fit.
bool ParseBytes(std::string_view text, uint64_t* value) {
  if (text.empty()) return false;
  int shift = 0;
  switch (text.back()) {
    case 'T':
      shift += 10;
      [[fallthrough]];
    case 'G':
      shift += 10;
      [[fallthrough]];
    case 'M':
      shift += 10;
      [[fallthrough]];
    case 'K':
      shift += 10;
      text.remove_suffix(1);
      break;
    default:
      break;
  }
  if (text.empty()) return false;
  uint64_t number = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    if (__builtin_mul_overflow(number, 10, &number) ||
        __builtin_add_overflow(number, static_cast<uint64_t>(c - '0'),
                               &number)) {
      return false;
    }
  }
  if (shift != 0 && (number >> (64 - shift)) != 0) return false;
  *value = number << shift;
  return true;
}

// The environment by way of /proc, for a first call that comes so early that
// the C library has not set `environ` yet.
void ReadProcEnvironment(Options& options) {
  const int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char buffer[512];
  size_t used = 0;
  bool too_long = false;
  for (;;) {
    const ssize_t n = read(fd, buffer + used, sizeof(buffer) - used);
    if (n <= 0) break;
    used += static_cast<size_t>(n);
    size_t begin = 0;
    for (size_t i = 0; i < used; ++i) {
      if (buffer[i] != '\0') continue;
      if (!too_long) ApplyOption({buffer + begin, i - begin}, options);
      too_long = false;
      begin = i + 1;
    }
    if (begin == 0 && used == sizeof(buffer)) {
      too_long = true;  // longer than any entry of ours
      used = 0;
      continue;
    }
    used -= begin;
    for (size_t i = 0; i < used; ++i) buffer[i] = buffer[begin + i];
  }
  close(fd);
}

}  // namespace

std::span<const OptionInfo> OptionTable() { return kOptionTable; }

bool ParseOptionValue(std::string_view text, uint64_t* value) {
  return ParseBytes(text, value);
}

void ApplyOption(std::string_view entry, Options& options) {
  if (!entry.starts_with(kPrefix)) return;
  const size_t equals = entry.find('=');
  if (equals == std::string_view::npos) return;
  // Not substr(): that can throw, and there is no C++ run time here.
  std::string_view name = entry;
  name.remove_suffix(entry.size() - equals);
  std::string_view text = entry;
  text.remove_prefix(equals + 1);
  for (const OptionInfo& info : kOptionTable) {
    if (info.name != name) continue;
    uint64_t value = 0;
    if (!ParseBytes(text, &value)) {
      Warn("not a number of bytes in", entry, "the default holds");
    } else if (value < info.least || value > info.most) {
      Warn("out of range in", entry, "the default holds");
    } else {
      options.*info.member = value;
    }
    return;
  }
  Warn("no such option:", name, "ignored");
}

Options ReadOptions() {
  const int saved_errno = errno;
  Options options;
  if (environ != nullptr) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      ApplyOption(*entry, options);
    }
  } else {
    ReadProcEnvironment(options);
  }
  errno = saved_errno;
  return options;
}

}  // namespace hakmem
