// The switches of a subcommand: --name, --name=value, and names for both that
// are short. What is not one of them is an argument; everything is after "--".

#ifndef TOOLS_HAKMEM_FLAGS_H_
#define TOOLS_HAKMEM_FLAGS_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hakmem::tools {

struct Flag {
  const char* name;        // "--interval"
  const char* short_name;  // "-i", or empty; its value follows as a word
  bool takes_value;
  std::optional<std::string> value;  // set where given; "" without a value
};

// Sets the values of `flags` from `arguments`, and returns those arguments that
// are not switches. A switch that is not there, lacks its value or has one too
// many is an InvalidArgument.
absl::StatusOr<std::vector<std::string>> ParseFlags(
    std::span<char* const> arguments, std::span<Flag> flags);

// A positive number of seconds, "0.5" or "2", up to a day, in milliseconds.
absl::StatusOr<int64_t> ParseSeconds(absl::string_view text);

// A process id.
absl::StatusOr<int> ParsePid(absl::string_view text);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_FLAGS_H_
