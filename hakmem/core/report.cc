#include "hakmem/core/report.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace hakmem {

Line::Line() { Text("hakmem: "); }

Line& Line::Text(std::string_view text) {
  for (const char c : text) Put(c);
  return *this;
}

Line& Line::Number(uint64_t number) {
  char digits[20];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  while (count > 0) Put(digits[--count]);
  return *this;
}

Line& Line::Address(const void* address) {
  const auto value = reinterpret_cast<uintptr_t>(address);
  Text("0x");
  int shift = 60;
  while (shift > 0 && (value >> shift) == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) Put("0123456789abcdef"[(value >> shift) & 15]);
  return *this;
}

void Line::Write() {
  const int saved_errno = errno;
  text_[size_++] = '\n';
  size_t written = 0;
  while (written < size_) {
    const ssize_t n = write(STDERR_FILENO, text_ + written, size_ - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // stderr is closed: nobody is left to tell
    written += static_cast<size_t>(n);
  }
  size_ = 0;
  errno = saved_errno;
}

void Die(std::string_view what, const void* address) {
  Line line;
  line.Text(what).Text(" at ").Address(address);
  line.Write();
  abort();
}

void Warn(std::string_view what, std::string_view subject,
          std::string_view consequence) {
  Line line;
  line.Text("warning: ").Text(what).Text(" ").Text(subject);
  line.Text(": ").Text(consequence);
  line.Write();
}

}  // namespace hakmem
