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

struct Options {
  // Address space to set aside for the arena, in bytes.
  uint64_t arena_bytes = uint64_t{1} << 40;
  // 1: what does not fit into the arena is mapped directly. 0: it fails.
  uint64_t direct_maps = 1;
  // What all threads' magazines and the depots may hold together, in bytes.
  // 0 stands for the default, which scales with the machine.
  uint64_t cache_bytes = 0;
  // Free memory that may stay with the process, in bytes, beside a share of
  // what is live.
  uint64_t retain_bytes = uint64_t{1} << 20;
  // What hakmem may hold, in bytes, before it keeps nothing back; and at all.
  // 0: no such limit.
  uint64_t soft_limit = 0;
  uint64_t limit = 0;
  // Free memory that nobody wanted for this long goes at the next occasion, in
  // milliseconds.
  uint64_t decay_ms = 100;
  // 1: a thread of hakmem's own returns memory while the program does nothing.
  uint64_t background = 0;
  // 1: asks the system for huge pages.
  uint64_t huge_pages = 0;
  // 1: free memory goes back to the system. 0: only when it is asked for.
  uint64_t purge = 1;
};

// One row of the table.
struct OptionInfo {
  std::string_view name;      // of the environment variable
  uint64_t Options::*member;  // where the value goes
  uint64_t least;             // smallest value that is accepted
  uint64_t most;              // largest
  std::string_view meaning;   // one line for people
};

std::span<const OptionInfo> OptionTable();

// Reads what an option may be set to: a decimal number with an optional K, M, G
// or T (powers of 1024). Returns false when `text` is none or does not fit;
// that the option's bounds allow it is for the caller to see.
bool ParseOptionValue(std::string_view text, uint64_t* value);

// Sets the option that `entry`, "NAME=VALUE", names, or warns. Entries whose
// name does not begin with HAKMEM_ are ignored.
void ApplyOption(std::string_view entry, Options& options);

// The options of this process, from its environment. Called once, by the
// arena's set-up; neither allocates nor needs the C library to be set up.
Options ReadOptions();

}  // namespace hakmem

#endif  // HAKMEM_CORE_OPTIONS_H_
