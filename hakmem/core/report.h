// What hakmem says to people: single lines on stderr, built on the stack and
// written with one write(2). Nothing here allocates, takes a lock or uses
// stdio, so it may be called from anywhere, signal handlers included.

#ifndef HAKMEM_CORE_REPORT_H_
#define HAKMEM_CORE_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hakmem {

// How text is built, by a class that derives from TextBuilder<Self> and takes
// one character by Put(char).
template <typename Self>
class TextBuilder {
 public:
  Self& Text(std::string_view text) {
    for (const char c : text) self().Put(c);
    return self();
  }

  // Decimal.
  Self& Number(uint64_t number) {
    char digits[20];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    while (count > 0) self().Put(digits[--count]);
    return self();
  }

  // 0x and hexadecimal.
  Self& Hex(uint64_t number) {
    Text("0x");
    int shift = 60;
    while (shift > 0 && (number >> shift) == 0) shift -= 4;
    for (; shift >= 0; shift -= 4) {
      self().Put("0123456789abcdef"[(number >> shift) & 15]);
    }
    return self();
  }

 private:
  Self& self() { return static_cast<Self&>(*this); }
};

// A TextBuilder that keeps the text, of which what does not fit is cut.
template <typename Self>
class TextBuffer : public TextBuilder<Self> {
 protected:
  friend TextBuilder<Self>;
  void Put(char c) {
    if (size_ < sizeof(text_) - 1) text_[size_++] = c;
  }

  size_t size_ = 0;
  char text_[512];
};

// Builds one line of text that begins with "hakmem: ". What does not fit into
// 512 bytes is cut. Not for sharing between threads.
class Line : public TextBuffer<Line> {
 public:
  Line() { Text("hakmem: "); }
  Line& Address(const void* address) {
    return Hex(reinterpret_cast<uintptr_t>(address));
  }

  // Appends a newline and writes the line to stderr; errno is kept.
  void Write();
};

// Writes all of it, unless the file takes no more: then nobody is left to tell.
// Keeps errno.
void WriteText(int fd, const char* text, size_t size);

// Writes "hakmem: WHAT at ADDRESS" and ends the program with abort(). For heap
// errors of the program and for broken invariants of our own.
[[noreturn]] void Die(std::string_view what, const void* address);

// Writes "hakmem: warning: ..." for a condition that the program survives.
void Warn(std::string_view what, std::string_view subject,
          std::string_view consequence);

}  // namespace hakmem

#endif  // HAKMEM_CORE_REPORT_H_
