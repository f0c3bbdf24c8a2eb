#include "tools/hakmem/symbolizer.h"

#include <signal.h>

#include <utility>

#include "absl/status/statusor.h"

namespace hakmem::tools {

Symbolizer::~Symbolizer() {
  if (!thread_.joinable()) return;
  {
    const absl::MutexLock lock(&mutex_);
    ended_ = true;
    questions_.clear();
    // Until it is 0 the process is there, if only to be waited for.
    const int running = running_;
    if (running != 0) kill(running, SIGKILL);
  }
  thread_.join();
}

void Symbolizer::Ask(SiteNumber site, const std::string& path,
                     uint64_t address) {
  if (!asked_.insert(site).second) return;
  {
    const absl::MutexLock lock(&mutex_);
    questions_[path].push_back({site, address});
  }
  if (thread_.joinable()) return;
  // Signals are the asking thread's business.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread(&Symbolizer::Work, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

std::map<SiteNumber, CodeName> Symbolizer::Take() {
  const absl::MutexLock lock(&mutex_);
  return std::exchange(answers_, {});
}

void Symbolizer::Wait() {
  const absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &Symbolizer::IsIdle));
}

void Symbolizer::Work() {
  for (;;) {
    std::string path;
    std::vector<Question> questions;
    {
      const absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Symbolizer::HasWork));
      if (ended_) return;
      path = questions_.begin()->first;
      questions = std::move(questions_.begin()->second);
      questions_.erase(questions_.begin());
      working_ = true;
    }
    std::vector<uint64_t> addresses;
    for (const Question& question : questions) {
      addresses.push_back(question.address);
    }
    const absl::StatusOr<std::vector<CodeName>> names =
        Addr2line(path, addresses, &running_);
    const absl::MutexLock lock(&mutex_);
    working_ = false;
    if (!names.ok()) continue;
    for (size_t i = 0; i < questions.size(); ++i) {
      if ((*names)[i] != CodeName()) {
        answers_[questions[i].site] = (*names)[i];
      }
    }
  }
}

void SetCodeName(const CodeName& code, SiteName* name) {
  name->function = code.function;
  name->file = code.file;
  name->line = code.line;
}

}  // namespace hakmem::tools
