// Figures as people read them.

#ifndef TOOLS_HAKMEM_FORMAT_H_
#define TOOLS_HAKMEM_FORMAT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace hakmem::tools {

// "0 B", "999 B", "1.5 KiB", "12.3 MiB", "512 GiB": three digits or four.
std::string FormatBytes(uint64_t bytes);

// As above, with a sign in front unless it is 0: "+1.5 KiB", "-3 B".
std::string FormatGrowth(int64_t bytes);

// "1,234,567".
std::string FormatCount(uint64_t count);

// "0:07", "12:34", "3:00:00", "2d 3:00:00".
std::string FormatDuration(uint64_t seconds);

// "SIGTERM", or "signal 40" for one without a name.
std::string SignalName(int number);

// What a terminal shows as one line: every control character, and every byte
// that is not part of valid UTF-8, is replaced by '?'.
std::string Printable(absl::string_view text);

// How many columns `text`, which is printable, takes, and its first `columns`
// of them. Every character counts as one column.
size_t Columns(absl::string_view text);
absl::string_view FirstColumns(absl::string_view text, size_t columns);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_FORMAT_H_
