// Finds names for the sites that are addresses of code, in a thread of its own:
// a large program takes addr2line(1) seconds.

#ifndef TOOLS_HAKMEM_SYMBOLIZER_H_
#define TOOLS_HAKMEM_SYMBOLIZER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "tools/hakmem/addr2line.h"
#include "tools/hakmem/snapshot.h"

namespace hakmem::tools {

// For use by one thread.
class Symbolizer {
 public:
  Symbolizer() = default;
  // Does not wait for names that are still looked for.
  ~Symbolizer();
  Symbolizer(const Symbolizer&) = delete;
  Symbolizer& operator=(const Symbolizer&) = delete;

  // Asks for the name of the site, which lies at `address` of the ELF file at
  // `path`, unless it was asked for before.
  void Ask(SiteNumber site, const std::string& path, uint64_t address)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The names that were found since the last call. A site of which nothing is
  // known is not among them.
  std::map<SiteNumber, CodeName> Take() ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until all that was asked for has been looked for.
  void Wait() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Question {
    SiteNumber site;
    uint64_t address;
  };

  void Work() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ended_ || !questions_.empty();
  }
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return questions_.empty() && !working_;
  }

  std::set<SiteNumber> asked_;
  std::thread thread_;  // begins with the first question
  std::atomic<int> running_ = 0;

  absl::Mutex mutex_;
  std::map<std::string, std::vector<Question>> questions_
      ABSL_GUARDED_BY(mutex_);
  std::map<SiteNumber, CodeName> answers_ ABSL_GUARDED_BY(mutex_);
  bool working_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

// Gives `name` what is known of its code.
void SetCodeName(const CodeName& code, SiteName* name);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_SYMBOLIZER_H_
