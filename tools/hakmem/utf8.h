// Text whose encoding nobody vouches for: labels of a program, names of files.

#ifndef TOOLS_HAKMEM_UTF8_H_
#define TOOLS_HAKMEM_UTF8_H_

#include <cstddef>

#include "absl/strings/string_view.h"

namespace hakmem::tools {

// The length in bytes of the character that `text`, which is not empty, begins
// with, or 0 if it begins with something that is not UTF-8 (RFC 3629: no
// overlong form, no surrogate, nothing above U+10FFFF).
size_t CharacterBytes(absl::string_view text);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_UTF8_H_
