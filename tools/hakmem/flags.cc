#include "tools/hakmem/flags.h"

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/hakmem/suggest.h"

namespace hakmem::tools {
namespace {

// Shorter than this a reader would keep a processor busy; longer is a mistake.
constexpr double kLeastSeconds = 0.01;
constexpr double kMostSeconds = 86400;

absl::Status NoSuchFlag(absl::string_view argument,
                        std::span<const Flag> flags) {
  std::vector<absl::string_view> names;
  for (const Flag& flag : flags) names.push_back(flag.name);
  return absl::InvalidArgumentError(absl::StrCat(
      "there is no option '", argument, "'", DidYouMean(argument, "", names)));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseFlags(
    std::span<char* const> arguments, std::span<Flag> flags) {
  std::vector<std::string> rest;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const absl::string_view argument = arguments[i];
    if (argument == "--") {
      rest.insert(rest.end(), arguments.begin() + static_cast<ptrdiff_t>(i) + 1,
                  arguments.end());
      break;
    }
    if (argument.size() < 2 || argument[0] != '-') {
      rest.emplace_back(argument);
      continue;
    }
    // "--name=value", "-nvalue" or "-n value".
    const bool is_short = argument[1] != '-';
    const size_t name_end = is_short ? 2 : argument.find('=');
    const absl::string_view name = argument.substr(0, name_end);
    std::optional<absl::string_view> value;
    if (is_short && argument.size() > 2) value = argument.substr(2);
    if (!is_short && name_end != absl::string_view::npos) {
      value = argument.substr(name_end + 1);
    }
    Flag* found = nullptr;
    for (Flag& flag : flags) {
      if (name == flag.name || name == flag.short_name) found = &flag;
    }
    if (found == nullptr) return NoSuchFlag(name, flags);
    if (!found->takes_value) {
      if (value.has_value()) {
        return absl::InvalidArgumentError(
            absl::StrCat(found->name, " takes no value"));
      }
      found->value = "";
    } else if (value.has_value()) {
      found->value = std::string(*value);
    } else if (is_short && i + 1 < arguments.size()) {
      found->value = arguments[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat(name, " needs a value"));
    }
  }
  return rest;
}

absl::StatusOr<int64_t> ParseSeconds(absl::string_view text) {
  double seconds = 0;
  if (!absl::SimpleAtod(text, &seconds) || !std::isfinite(seconds)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a number of seconds"));
  }
  if (seconds < kLeastSeconds || seconds > kMostSeconds) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' seconds is out of range, which is ",
                     kLeastSeconds, " to ", kMostSeconds));
  }
  return std::llround(seconds * 1000);
}

absl::StatusOr<int> ParsePid(absl::string_view text) {
  int pid = 0;
  if (!absl::SimpleAtoi(text, &pid) || pid <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not the number of a process"));
  }
  return pid;
}

}  // namespace hakmem::tools
