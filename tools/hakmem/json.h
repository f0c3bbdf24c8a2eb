// Just enough of JSON (RFC 8259) for the lines of a recording.

#ifndef TOOLS_HAKMEM_JSON_H_
#define TOOLS_HAKMEM_JSON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hakmem::tools {

// A value. Numbers are kept exactly where they are whole and not negative,
// which is all that a recording has.
class Json {
 public:
  enum class Type { kNull, kBool, kNumber, kString, kArray, kObject };

  Type type = Type::kNull;
  bool boolean = false;
  double number = 0;
  // The number, if it is one of 0 to 2^64 - 1; `whole` says whether.
  uint64_t integer = 0;
  bool whole = false;
  std::string text;
  // Of an array; of an object the values, whose names are in `names`.
  std::vector<Json> items;
  std::vector<std::string> names;

  // The last member of that name, or a null pointer, also where this is no
  // object.
  const Json* Find(absl::string_view name) const;

  // The member of that name if it is of that type, otherwise `missing`.
  uint64_t Integer(absl::string_view name, uint64_t missing = 0) const;
  std::string String(absl::string_view name) const;
};

// Parses all of `text`, or says what is wrong with it and at which column.
absl::StatusOr<Json> ParseJson(absl::string_view text);

// `text` in quotes. What is not UTF-8 becomes U+FFFD. '<' is written as an
// escape, so that the result may stand inside a <script> element.
std::string JsonQuote(absl::string_view text);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_JSON_H_
