#include "hakmem/core/options.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "hakmem/core/report.h"

namespace hakmem {
namespace {

constexpr std::string_view kPrefix = "HAKMEM_";

constexpr std::string_view kHugePagesWords[] = {"0", "1", "never"};
constexpr std::string_view kMincoreWords[] = {"0", "1", "never"};
constexpr std::string_view kPurgeWords[] = {"0", "1", "later", "auto"};
constexpr std::string_view kDeepBindWords[] = {"0", "heed"};
constexpr std::string_view kSitesWords[] = {"0", "caller"};
constexpr std::string_view kLeaksWords[] = {"0", "1"};
constexpr std::string_view kStatsWords[] = {"0", "exit"};
constexpr std::string_view kProfileWords[] = {"0", "exit"};
constexpr std::string_view kFileWords[] = {"0"};

constexpr OptionInfo kOptionTable[] = {
    {"HAKMEM_ARENA_BYTES", &Options::arena_bytes, uint64_t{1} << 22,
     uint64_t{1} << 42,
     "address space to set aside; halved until the system grants it"},
    {"HAKMEM_ARENA_PARTS", &Options::arena_parts, 0, 16,
     "parts of it that threads use; 0: as many as processors, up to 16"},
    {"HAKMEM_DIRECT_MAPS", &Options::direct_maps, 0, 1,
     "1: map directly what does not fit into the arena; 0: fail with ENOMEM"},
    {"HAKMEM_CACHE_BYTES", &Options::cache_bytes, 0, uint64_t{1} << 42,
     "what thread caches and depots may hold; 0: a 64th of the memory"},
    {"HAKMEM_RETAIN_BYTES", &Options::retain_bytes, 0, uint64_t{1} << 42,
     "free memory to keep from the system, beside a 128th of what is live"},
    {"HAKMEM_SOFT_LIMIT", &Options::soft_limit, 0, uint64_t{1} << 42,
     "bytes held beyond which nothing is kept; 0: 7/8 of HAKMEM_LIMIT, if any"},
    {"HAKMEM_LIMIT", &Options::limit, 0, uint64_t{1} << 42,
     "bytes held beyond which allocation fails with ENOMEM; 0: no limit"},
    {"HAKMEM_DECAY_MS", &Options::decay_ms, 1, 3600000,
     "milliseconds after which free memory goes that nobody wanted meanwhile"},
    {"HAKMEM_BACKGROUND", &Options::background, 0, 1,
     "1: a thread returns memory also while the program does nothing"},
    {"HAKMEM_HUGE_PAGES", &Options::huge_pages, 0, 2,
     "1: ask for huge pages; never: refuse them; 0: leave that to the system",
     kHugePagesWords},
    {"HAKMEM_MINCORE", &Options::mincore, 0, 2,
     "1: may ask which pages are used; never: not; 0: if no filter is seen",
     kMincoreWords},
    {"HAKMEM_PURGE", &Options::purge, 0, 3,
     "free memory goes 1: at once; later; auto: by what it costs; 0: if asked",
     kPurgeWords},
    {"HAKMEM_DEEPBIND", &Options::deep_bind, 0, 1,
     "heed: dlopen() does as RTLD_DEEPBIND says; 0: as if that were not said",
     kDeepBindWords},
    {"HAKMEM_SITES", &Options::sites, 0, 1,
     "caller: count every block for the address that called malloc",
     kSitesWords},
    {"HAKMEM_LEAKS", &Options::leaks, 0, 2,
     "1: write the sites with live blocks to stderr at exit; or to that file",
     kLeaksWords, &Options::leaks_path},
    {"HAKMEM_STATS", &Options::stats, 0, 2,
     "exit: write statistics to stderr at exit, as JSON; or to that file",
     kStatsWords, &Options::stats_path},
    {"HAKMEM_PROFILE", &Options::profile, 0, uint64_t{1} << 30,
     "write a heap profile: at exit, or every so many seconds", kProfileWords,
     nullptr, true},
    {"HAKMEM_PROFILE_FILE", &Options::profile_file, 0, 1,
     "to which file: %p is the process, %n counts; 0: to one in its folder",
     kFileWords, &Options::profile_path},
    {"HAKMEM_PROFILE_SIGNAL", &Options::profile_signal, 0, 64,
     "write a heap profile on every signal of this number"},
    {"HAKMEM_PROFILE_THREAD", &Options::profile_thread, 0, 1,
     "1: a thread helps with profiles (docs/profiling.md); 0: none does"},
    {"HAKMEM_SAMPLE_BYTES", &Options::sample_bytes, 0, uint64_t{1} << 40,
     "allocated bytes from one sample to the next; 0: 512K, if for a profile"},
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

OptionError SetOption(const OptionInfo& option, std::string_view text,
                      Options& options) {
  uint64_t value = 0;
  if (option.words.empty()) {
    if (!ParseBytes(text, &value)) return OptionError::kNoNumber;
    if (value < option.least || value > option.most) {
      return OptionError::kOutOfRange;
    }
  } else {
    while (value < option.words.size() && option.words[value] != text) ++value;
    uint64_t number = 0;
    if (value == option.words.size() && option.numbers_too &&
        ParseBytes(text, &number)) {
      if (number < option.least || number > option.most) {
        return OptionError::kOutOfRange;
      }
      value = option.words.size() - 1 + number;
    } else if (value == option.words.size()) {
      if (option.path == nullptr || text.find('/') == std::string_view::npos ||
          text.size() >= sizeof(OptionPath::text)) {
        return OptionError::kNoWord;
      }
      char* const path = (options.*option.path).text;
      std::memcpy(path, text.data(), text.size());
      path[text.size()] = '\0';
    }
  }
  options.*option.member = value;
  return OptionError::kNone;
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
    switch (SetOption(info, text, options)) {
      case OptionError::kNone:
        break;
      case OptionError::kNoNumber:
        Warn("not a number of bytes in", entry, "the default holds");
        break;
      case OptionError::kOutOfRange:
        Warn("out of range in", entry, "the default holds");
        break;
      case OptionError::kNoWord:
        Warn("no value that this option may have in", entry,
             "the default holds");
        break;
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
