#include "tools/hakmem/format.h"

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tools/hakmem/utf8.h"

namespace hakmem::tools {

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1000) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* const next : {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    // What would be shown as 1000 is shown as 0.98 of the next unit.
    if (unit[0] != '\0' && value < 999.5) break;
    value /= 1024;
    unit = next;
  }
  char text[32];
  const int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  std::snprintf(text, sizeof(text), "%.*f %s", digits, value, unit);
  return text;
}

std::string FormatGrowth(int64_t bytes) {
  if (bytes == 0) return FormatBytes(0);
  const uint64_t size =
      bytes < 0 ? -static_cast<uint64_t>(bytes) : static_cast<uint64_t>(bytes);
  return absl::StrCat(bytes < 0 ? "-" : "+", FormatBytes(size));
}

std::string FormatCount(uint64_t count) {
  const std::string digits = absl::StrCat(count);
  std::string grouped;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

std::string FormatDuration(uint64_t seconds) {
  const uint64_t days = seconds / 86400;
  const auto hours = static_cast<unsigned>(seconds / 3600 % 24);
  const auto minutes = static_cast<unsigned>(seconds / 60 % 60);
  const auto rest = static_cast<unsigned>(seconds % 60);
  char text[48];
  if (seconds < 3600) {
    std::snprintf(text, sizeof(text), "%u:%02u", minutes, rest);
  } else {
    std::snprintf(text, sizeof(text), "%u:%02u:%02u", hours, minutes, rest);
  }
  if (days == 0) return text;
  std::snprintf(text, sizeof(text), "%llud %u:%02u:%02u",
                static_cast<unsigned long long>(days), hours, minutes, rest);
  return text;
}

std::string SignalName(int number) {
  const char* const name = sigabbrev_np(number);
  return name != nullptr ? absl::StrCat("SIG", name)
                         : absl::StrCat("signal ", number);
}

std::string Printable(absl::string_view text) {
  std::string printable;
  while (!text.empty()) {
    const size_t size = CharacterBytes(text);
    const auto byte = static_cast<unsigned char>(text[0]);
    // U+0080 to U+009F, which some terminals obey, begin with 0xc2.
    const bool control = byte < 0x20 || byte == 0x7f ||
                         (byte == 0xc2 && size == 2 &&
                          static_cast<unsigned char>(text[1]) < 0xa0);
    if (size == 0 || control) {
      printable += '?';
    } else {
      printable.append(text.data(), size);
    }
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return printable;
}

size_t Columns(absl::string_view text) {
  size_t columns = 0;
  for (const char c : text) columns += (c & 0xc0) != 0x80;
  return columns;
}

absl::string_view FirstColumns(absl::string_view text, size_t columns) {
  size_t end = 0;
  while (end < text.size()) {
    if ((text[end] & 0xc0) != 0x80 && columns-- == 0) break;
    ++end;
  }
  return text.substr(0, end);
}

}  // namespace hakmem::tools
