// The name of a file that hakmem writes, from a pattern that the user gave.

#ifndef HAKMEM_SHIM_OUTPUT_PATH_H_
#define HAKMEM_SHIM_OUTPUT_PATH_H_

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "hakmem/core/report.h"

namespace hakmem {

// The pattern with each %p replaced by the process's number and, unless
// `number` is 0, each %n by that. What does not fit into 511 bytes is cut. Not
// for sharing between threads.
class OutputPath : public TextBuffer<OutputPath> {
 public:
  explicit OutputPath(std::string_view pattern, uint64_t number = 0) {
    for (size_t i = 0; i < pattern.size(); ++i) {
      const char next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
      if (pattern[i] == '%' && next == 'p') {
        Number(static_cast<uint64_t>(getpid()));
        ++i;
      } else if (pattern[i] == '%' && next == 'n' && number != 0) {
        Number(number);
        ++i;
      } else {
        Put(pattern[i]);
      }
    }
    text_[size_] = '\0';
  }

  const char* text() const { return text_; }
};

}  // namespace hakmem

#endif  // HAKMEM_SHIM_OUTPUT_PATH_H_
