#include "tools/hakmem/option_name.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace hakmem::tools {
namespace {

std::string Plain(absl::string_view name) {
  const std::string lower =
      absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"-", "_"}});
  return std::string(absl::StripPrefix(lower, "hakmem_"));
}

}  // namespace

std::string OptionName(const OptionInfo& option) { return Plain(option.name); }

const OptionInfo* FindOption(absl::string_view name) {
  const std::string plain = Plain(name);
  for (const OptionInfo& option : OptionTable()) {
    if (OptionName(option) == plain) return &option;
  }
  return nullptr;
}

std::string SwitchedOn(const OptionInfo& option) {
  if (option.words.size() == 2 && !option.numbers_too)
    return std::string(option.words[1]);
  return option.words.empty() && option.least == 0 && option.most == 1 ? "1"
                                                                       : "";
}

std::string FormatValues(const OptionInfo& option) {
  if (option.words.empty()) {
    return absl::StrCat(FormatValue(option.least), " to ",
                        FormatValue(option.most));
  }
  std::vector<std::string> words(option.words.begin(), option.words.end());
  if (option.numbers_too) {
    words.push_back(absl::StrCat("a number to ", FormatValue(option.most)));
  }
  if (option.path != nullptr) words.push_back("a path");
  const std::string last = words.back();
  words.pop_back();
  return absl::StrCat(absl::StrJoin(words, ", "), " or ", last);
}

std::string FormatDefault(const OptionInfo& option) {
  const uint64_t value = Options().*option.member;
  return option.words.empty() ? FormatValue(value)
                              : std::string(option.words[value]);
}

std::string FormatValue(uint64_t value) {
  const char* unit = "";
  for (const char* const next : {"K", "M", "G", "T"}) {
    if (value == 0 || value % 1024 != 0) break;
    value /= 1024;
    unit = next;
  }
  return absl::StrCat(value, unit);
}

}  // namespace hakmem::tools
