// What hakmem writes about sites and the heap: JSON, and lines at exit. All of
// it by single writes from a buffer on the stack: no stdio, and no memory of
// the heap that it is about.

#ifndef HAKMEM_SHIM_SITE_REPORT_H_
#define HAKMEM_SHIM_SITE_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "hakmem/core/report.h"

namespace hakmem {

// Takes text, and writes it to a file or into a buffer. Not for sharing between
// threads.
class TextSink : public TextBuilder<TextSink> {
 public:
  // To a file descriptor.
  explicit TextSink(int fd) : fd_(fd) {}
  // Into a buffer: what does not fit is counted only.
  TextSink(char* out, size_t room) : out_(out), room_(room) {}
  ~TextSink() { Flush(); }
  TextSink(const TextSink&) = delete;
  TextSink& operator=(const TextSink&) = delete;

  // As a string of JSON.
  TextSink& Quoted(std::string_view text);

  // Bytes of all the text that came.
  size_t size() const { return size_; }

 private:
  friend TextBuilder<TextSink>;
  void Put(char c);
  void Flush();

  int fd_ = -1;
  char* out_ = nullptr;
  size_t room_ = 0;
  size_t size_ = 0;
  size_t waiting_ = 0;
  char buffer_[1024];
};

// The statistics of the heap and of all sites, as a JSON object and a newline.
// False, and nothing written, when memory has run out.
bool WriteJson(TextSink& sink);

// The sites that have live blocks, those with most bytes first: a line for
// each, and one with the sums.
void WriteLeaks(TextSink& sink);

// Has exit() write what HAKMEM_LEAKS and HAKMEM_STATS ask for, if they do.
// Once, early: what is asked for first is done last.
void ReportAtExit();

}  // namespace hakmem

#endif  // HAKMEM_SHIM_SITE_REPORT_H_
