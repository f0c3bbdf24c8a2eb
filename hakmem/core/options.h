// The options a user sets through HAKMEM_* environment variables.
//
// They all stand in one table, kOptionTable in options.cc: parsing, its
// warnings and the page of options in the documentation come from it. The
// environment is read once, before the first block is handed out; an unknown
// HAKMEM_ name or a value that does not parse gets one warning line on stderr
// and the default holds.

#ifndef HAKMEM_CORE_OPTIONS_H_
#define HAKMEM_CORE_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace hakmem {

// What HAKMEM_SITES may be.
inline constexpr uint64_t kSitesByCaller = 1;

// Where a report at exit goes, of HAKMEM_LEAKS and HAKMEM_STATS.
inline constexpr uint64_t kReportNone = 0;
inline constexpr uint64_t kReportToStderr = 1;
inline constexpr uint64_t kReportToFile = 2;

// What HAKMEM_HUGE_PAGES may be: as the system has it, asked for, refused.
inline constexpr uint64_t kHugePagesAsSet = 0;
inline constexpr uint64_t kHugePagesAsked = 1;
inline constexpr uint64_t kHugePagesNever = 2;

// What HAKMEM_MINCORE may be. The first holds for what hakmem does of its own
// accord: who asks for figures has them.
inline constexpr uint64_t kMincoreIfUnfiltered = 0;
inline constexpr uint64_t kMincoreAlways = 1;
inline constexpr uint64_t kMincoreNever = 2;

// What HAKMEM_PURGE may be: free memory goes when that is asked for, as soon as
// it is more than may stay, when nobody wanted it for ten HAKMEM_DECAY_MS, or
// at once where the system takes little time for it and later where it takes
// much.
inline constexpr uint64_t kPurgeAsked = 0;
inline constexpr uint64_t kPurgeAtOnce = 1;
inline constexpr uint64_t kPurgeLater = 2;
inline constexpr uint64_t kPurgeByCost = 3;

// What HAKMEM_DEEPBIND may be: whether libhakmem.so lets dlopen() open
// libraries with RTLD_DEEPBIND.
inline constexpr uint64_t kDeepBindIgnored = 0;
inline constexpr uint64_t kDeepBindHeeded = 1;

// What HAKMEM_PROFILE may be, beside a number of seconds.
inline constexpr uint64_t kProfileNever = 0;
inline constexpr uint64_t kProfileAtExit = 1;

// The path of a file, with an end.
struct OptionPath {
  char text[256] = {};
};

struct Options {
  // Address space to set aside for the arena, in bytes.
  uint64_t arena_bytes = uint64_t{1} << 40;
  // Parts with a lock of their own that the arena is divided into, at most. 0
  // stands for as many as there are processors.
  uint64_t arena_parts = 0;
  // 1: what does not fit into the arena is mapped directly. 0: it fails.
  uint64_t direct_maps = 1;
  // What all threads' magazines and the depots may hold together, in bytes.
  // 0 stands for the default, which scales with the memory that there is.
  uint64_t cache_bytes = 0;
  // Free memory that may stay with the process, in bytes, beside a share of
  // what is live.
  uint64_t retain_bytes = uint64_t{1} << 20;
  // What hakmem may hold, in bytes, before it keeps nothing back; and at all.
  // 0: no such limit.
  uint64_t soft_limit = 0;
  uint64_t limit = 0;
  // Free memory that nobody wanted for this long, or ten times that where it
  // goes later, goes at the next occasion, in milliseconds.
  uint64_t decay_ms = 100;
  // 1: a thread of hakmem's own returns memory while the program does nothing.
  uint64_t background = 0;
  // Whether the system is asked for huge pages, or to give none.
  uint64_t huge_pages = kHugePagesAsSet;
  // Whether mincore() may be called, which not every sandbox allows.
  uint64_t mincore = kMincoreIfUnfiltered;
  // When free memory goes back to the system.
  uint64_t purge = kPurgeByCost;
  // Whether dlopen() heeds RTLD_DEEPBIND.
  uint64_t deep_bind = kDeepBindIgnored;
  // kSitesByCaller: every plain allocation belongs to its caller's site.
  uint64_t sites = 0;
  // Whether sites with live blocks are written at exit, and statistics.
  uint64_t leaks = kReportNone;
  uint64_t stats = kReportNone;
  OptionPath leaks_path;
  OptionPath stats_path;
  // When profiles are written: kProfileNever, kProfileAtExit, or above that the
  // seconds between two plus 1; and on which signal, or 0.
  uint64_t profile = kProfileNever;
  uint64_t profile_signal = 0;
  // 1: a thread of hakmem's own writes those that are due, and tells the others
  // when to count.
  uint64_t profile_thread = 1;
  // Whether their file is named, and how.
  uint64_t profile_file = 0;
  OptionPath profile_path;
  // Mean distance of samples in bytes; 0 for the default.
  uint64_t sample_bytes = 0;
};

// One row of the table.
struct OptionInfo {
  std::string_view name;      // of the environment variable
  uint64_t Options::*member;  // where the value goes
  uint64_t least;             // smallest value that is accepted
  uint64_t most;              // largest
  std::string_view meaning;   // one line for people
  // What may be said in place of a number: the words for 0 and up; if there are
  // any, nothing else may. The value after them is that of a path, if `path` is
  // one: whatever has a slash in it.
  std::span<const std::string_view> words = {};
  OptionPath Options::*path = nullptr;
  // Whether a number above 0 may be said beside the words, for as many more
  // than the last of them as it is; `most` bounds it.
  bool numbers_too = false;
};

std::span<const OptionInfo> OptionTable();

enum class OptionError {
  kNone,
  kNoNumber,    // where there has to be one
  kOutOfRange,  // a number that least and most do not allow
  kNoWord       // none of the words that there are, and no path that fits
};

// Sets the option to what `text` says, in `options`, or returns why not: a
// decimal number with an optional K, M, G or T (powers of 1024) or, where the
// option has words, one of those or a path of up to 255 bytes.
OptionError SetOption(const OptionInfo& option, std::string_view text,
                      Options& options);

// Sets the option that `entry`, "NAME=VALUE", names, or warns. Entries whose
// name does not begin with HAKMEM_ are ignored.
void ApplyOption(std::string_view entry, Options& options);

// The options of this process, from its environment. Called once, by the
// arena's set-up; neither allocates nor needs the C library to be set up.
Options ReadOptions();

}  // namespace hakmem

#endif  // HAKMEM_CORE_OPTIONS_H_
