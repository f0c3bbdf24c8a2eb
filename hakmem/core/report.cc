#include "hakmem/core/report.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace hakmem {

void WriteText(int fd, const char* text, size_t size) {
  const int saved_errno = errno;
  while (size != 0) {
    const ssize_t n = write(fd, text, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text += n;
    size -= static_cast<size_t>(n);
  }
  errno = saved_errno;
}

void Line::Write() {
  text_[size_++] = '\n';
  WriteText(STDERR_FILENO, text_, size_);
  size_ = 0;
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
