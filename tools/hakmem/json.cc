#include "tools/hakmem/json.h"

#include <cstddef>
#include <cstdio>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/hakmem/utf8.h"

namespace hakmem::tools {
namespace {

// Deeper than any line of a recording, and far from the end of the stack.
constexpr int kMostNested = 64;

void AppendUtf8(uint32_t character, std::string* text) {
  const auto put = [text](uint32_t byte) {
    text->push_back(static_cast<char>(byte));
  };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xc0 | character >> 6);
    put(0x80 | (character & 0x3f));
  } else if (character < 0x10000) {
    put(0xe0 | character >> 12);
    put(0x80 | (character >> 6 & 0x3f));
    put(0x80 | (character & 0x3f));
  } else {
    put(0xf0 | character >> 18);
    put(0x80 | (character >> 12 & 0x3f));
    put(0x80 | (character >> 6 & 0x3f));
    put(0x80 | (character & 0x3f));
  }
}

class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<Json> Parse() {
    Json value;
    if (!Value(0, &value)) return Error();
    Space();
    if (at_ != text_.size()) {
      Fail("the end of the line is expected");
      return Error();
    }
    return value;
  }

 private:
  absl::Status Error() const {
    return absl::InvalidArgumentError(
        absl::StrCat("column ", at_ + 1, ": ", error_));
  }

  bool Fail(const char* error) {
    if (error_[0] == '\0') error_ = error;
    return false;
  }

  void Space() {
    while (at_ < text_.size() &&
           absl::StrContains(" \t\r\n", text_.substr(at_, 1))) {
      ++at_;
    }
  }

  bool Take(absl::string_view token) {
    if (!absl::StartsWith(text_.substr(at_), token)) return false;
    at_ += token.size();
    return true;
  }

  bool Value(int depth, Json* value) {
    if (depth == kMostNested) return Fail("values are nested too deeply");
    Space();
    if (at_ == text_.size()) return Fail("the line ends inside a value");
    switch (text_[at_]) {
      case '{':
        return Object(depth, value);
      case '[':
        return Array(depth, value);
      case '"':
        value->type = Json::Type::kString;
        return String(&value->text);
      default:
        break;
    }
    if (Take("null")) return true;
    if (Take("true") || Take("false")) {
      value->type = Json::Type::kBool;
      value->boolean = text_[at_ - 2] == 'u';
      return true;
    }
    return Number(value);
  }

  bool Number(Json* value) {
    const size_t begin = at_;
    Take("-");
    const size_t digits = at_;
    while (at_ < text_.size() && absl::ascii_isdigit(text_[at_])) ++at_;
    bool valid = at_ > digits && (text_[digits] != '0' || at_ == digits + 1);
    value->whole = digits == begin;
    if (Take(".")) {
      value->whole = false;
      const size_t fraction = at_;
      while (at_ < text_.size() && absl::ascii_isdigit(text_[at_])) ++at_;
      valid = valid && at_ > fraction;
    }
    if (Take("e") || Take("E")) {
      value->whole = false;
      if (!Take("+")) Take("-");
      const size_t exponent = at_;
      while (at_ < text_.size() && absl::ascii_isdigit(text_[at_])) ++at_;
      valid = valid && at_ > exponent;
    }
    const absl::string_view number = text_.substr(begin, at_ - begin);
    if (!valid || !absl::SimpleAtod(number, &value->number)) {
      at_ = begin;
      return Fail("no value");
    }
    value->type = Json::Type::kNumber;
    value->whole = value->whole && absl::SimpleAtoi(number, &value->integer);
    return true;
  }

  bool Hexadecimal(uint32_t* character) {
    *character = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ == text_.size() || !absl::ascii_isxdigit(text_[at_])) {
        return Fail("\\u needs four hexadecimal digits");
      }
      const char c = absl::ascii_tolower(text_[at_]);
      *character = *character << 4 |
                   static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
  }

  bool Escape(std::string* text) {
    if (at_ == text_.size()) return Fail("the line ends inside a string");
    const char c = text_[at_++];
    const size_t plain = absl::string_view("\"\\/bfnrt").find(c);
    if (plain != absl::string_view::npos) {
      text->push_back("\"\\/\b\f\n\r\t"[plain]);
      return true;
    }
    if (c != 'u') {
      --at_;
      return Fail("no such escape in a string");
    }
    uint32_t character = 0;
    if (!Hexadecimal(&character)) return false;
    if (character >= 0xd800 && character < 0xdc00) {
      uint32_t low = 0;
      if (!Take("\\u") || !Hexadecimal(&low) || low < 0xdc00 || low > 0xdfff) {
        return Fail("half of a surrogate pair");
      }
      character = 0x10000 + ((character - 0xd800) << 10) + (low - 0xdc00);
    } else if (character >= 0xdc00 && character < 0xe000) {
      return Fail("half of a surrogate pair");
    }
    AppendUtf8(character, text);
    return true;
  }

  bool String(std::string* text) {
    ++at_;
    for (;;) {
      if (at_ == text_.size()) return Fail("the line ends inside a string");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return true;
      }
      if (c == '\\') {
        ++at_;
        if (!Escape(text)) return false;
        continue;
      }
      const size_t size = CharacterBytes(text_.substr(at_));
      if (size == 0) return Fail("a string is not UTF-8");
      if (static_cast<unsigned char>(c) < 0x20) {
        return Fail("a control character in a string");
      }
      text->append(text_.data() + at_, size);
      at_ += size;
    }
  }

  bool Array(int depth, Json* value) {
    value->type = Json::Type::kArray;
    ++at_;
    Space();
    if (Take("]")) return true;
    for (;;) {
      value->items.emplace_back();
      if (!Value(depth + 1, &value->items.back())) return false;
      Space();
      if (Take("]")) return true;
      if (!Take(",")) return Fail("',' or ']' is expected");
    }
  }

  bool Object(int depth, Json* value) {
    value->type = Json::Type::kObject;
    ++at_;
    Space();
    if (Take("}")) return true;
    for (;;) {
      Space();
      if (at_ == text_.size() || text_[at_] != '"') {
        return Fail("a name in quotes is expected");
      }
      value->names.emplace_back();
      if (!String(&value->names.back())) return false;
      Space();
      if (!Take(":")) return Fail("':' is expected");
      value->items.emplace_back();
      if (!Value(depth + 1, &value->items.back())) return false;
      Space();
      if (Take("}")) return true;
      if (!Take(",")) return Fail("',' or '}' is expected");
    }
  }

  const absl::string_view text_;
  size_t at_ = 0;
  const char* error_ = "";
};

}  // namespace

const Json* Json::Find(absl::string_view name) const {
  for (size_t i = names.size(); i-- > 0;) {
    if (names[i] == name) return &items[i];
  }
  return nullptr;
}

uint64_t Json::Integer(absl::string_view name, uint64_t missing) const {
  const Json* const value = Find(name);
  return value != nullptr && value->whole ? value->integer : missing;
}

std::string Json::String(absl::string_view name) const {
  const Json* const value = Find(name);
  return value != nullptr ? value->text : "";
}

absl::StatusOr<Json> ParseJson(absl::string_view text) {
  return Parser(text).Parse();
}

std::string JsonQuote(absl::string_view text) {
  std::string quoted = "\"";
  while (!text.empty()) {
    const size_t size = CharacterBytes(text);
    const char c = text[0];
    if (size == 0) {
      quoted += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == '<' || c == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x",
                    static_cast<unsigned>(c));
      quoted += escape;
    } else {
      quoted.append(text.data(), size);
    }
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return quoted + '"';
}

}  // namespace hakmem::tools
