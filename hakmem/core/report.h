// What hakmem says to people: single lines on stderr, built on the stack and
// written with one write(2). Nothing here allocates, takes a lock or uses
// stdio, so it may be called from anywhere, signal handlers included.

#ifndef HAKMEM_CORE_REPORT_H_
#define HAKMEM_CORE_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hakmem {

// Builds one line of text that begins with "hakmem: ". What does not fit into
// 512 bytes is cut. Not for sharing between threads.
class Line {
 public:
  Line();
  Line& Text(std::string_view text);
  Line& Number(uint64_t number);       // decimal
  Line& Address(const void* address);  // 0x and hexadecimal

  // Appends a newline and writes the line to stderr; errno is kept.
  void Write();

 private:
  void Put(char c) {
    if (size_ < sizeof(text_) - 1) text_[size_++] = c;
  }

  size_t size_ = 0;
  char text_[512];
};

// Writes "hakmem: WHAT at ADDRESS" and ends the program with abort(). For heap
// errors of the program and for broken invariants of our own.
[[noreturn]] void Die(std::string_view what, const void* address);

// Writes "hakmem: warning: ..." for a condition that the program survives.
void Warn(std::string_view what, std::string_view subject,
          std::string_view consequence);

}  // namespace hakmem

#endif  // HAKMEM_CORE_REPORT_H_
