#include "tools/hakmem/snapshot.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tools/hakmem/format.h"

namespace hakmem::tools {
namespace {

// A name up to this length is not made shorter.
constexpr size_t kLongFunction = 60;

absl::string_view Basename(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == absl::string_view::npos ? path : path.substr(slash + 1);
}

// The last two parts of a path: enough to know a file by.
absl::string_view ShortPath(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos || slash == 0) return path;
  const size_t before = path.rfind('/', slash - 1);
  return before == absl::string_view::npos ? path : path.substr(before + 1);
}

std::string Place(const SiteName& name) {
  if (name.file.empty()) return "";
  if (name.line == 0) return std::string(ShortPath(name.file));
  return absl::StrCat(ShortPath(name.file), ":", name.line);
}

std::string Title(const SiteName& name) {
  const std::string place = Place(name);
  const std::string what =
      name.label.empty() ? ShortFunction(name.function) : name.label;
  if (!what.empty() && !place.empty()) {
    return absl::StrCat(place, " (", what, ")");
  }
  if (!what.empty()) return what;
  if (!place.empty()) return place;
  if (!name.module.empty()) {
    return absl::StrCat(Basename(name.module), "+0x", absl::Hex(name.offset));
  }
  if (name.kind == "other") return "other";
  if (name.kind == "id" && name.id < 1000000) {
    return absl::StrCat("id ", name.id);
  }
  return absl::StrCat(name.kind, " 0x", absl::Hex(name.id));
}

}  // namespace

std::string ShortFunction(const std::string& function) {
  if (function.size() <= kLongFunction) return function;
  constexpr absl::string_view kOperator = "operator";
  std::string name;
  size_t inside = 0;  // how many '<' are open
  for (size_t i = 0; i < function.size(); ++i) {
    const char c = function[i];
    if (c == '>' && inside > 0) --inside;
    if (inside > 0) {
      inside += c == '<';
      continue;
    }
    const char next = i + 1 < function.size() ? function[i + 1] : '\0';
    // Only templates have their return type in front.
    if (c == ' ' && next != '<') {
      name.clear();
      continue;
    }
    name += c;
    if (absl::EndsWith(name, kOperator)) {
      // What follows is a name and no bracket: "operator<<", "operator new".
      if (next == ' ') name += function[++i];
      while (i + 1 < function.size() &&
             absl::StrContains("<>-=!", function.substr(i + 1, 1))) {
        name += function[++i];
      }
    } else if (c == '<') {
      ++inside;
    }
  }
  return name;
}

std::string SiteTitle(const SiteName& name) {
  // Its figures are of the blocks that were picked, not of all.
  const char* const prefix = name.kind == "stack" ? "sampled: " : "";
  return Printable(absl::StrCat(prefix, Title(name)));
}

}  // namespace hakmem::tools
