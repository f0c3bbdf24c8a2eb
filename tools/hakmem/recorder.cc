#include "tools/hakmem/recorder.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/hakmem/clock.h"
#include "tools/hakmem/flags.h"

namespace hakmem::tools {
namespace {

// A program that begins is asked for its tables at intervals that double up to
// this, or to its own interval where that is shorter.
constexpr int64_t kLongestTry = 250;

}  // namespace

absl::StatusOr<std::unique_ptr<Recorder>> Recorder::Create(
    const std::string& path, const Process& process, int64_t interval,
    std::vector<std::string> command) {
  const int descriptor =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, path);
  RecordingHeader header;
  header.hakmem = HAKMEM_VERSION;
  header.pid = process.pid();
  header.command = command.empty() ? process.CommandLine() : std::move(command);
  header.started = static_cast<uint64_t>(WallMilliseconds());
  header.interval = static_cast<uint64_t>(interval);
  std::unique_ptr<Recorder> recorder(
      new Recorder(path, descriptor, process, header));
  const absl::Status written = recorder->Written(recorder->writer_.status());
  if (!written.ok()) return written;
  return recorder;
}

Recorder::Recorder(const std::string& path, int descriptor,
                   const Process& process, const RecordingHeader& header)
    : path_(path),
      descriptor_(descriptor),
      process_(process),
      interval_(static_cast<int64_t>(header.interval)),
      start_(MonotonicMilliseconds()),
      next_(start_),
      writer_(descriptor, header),
      symbolizer_(std::make_unique<Symbolizer>()) {}

Recorder::~Recorder() { close(descriptor_); }

int64_t Recorder::Wait() const {
  return std::max<int64_t>(next_ - MonotonicMilliseconds(), 0);
}

uint64_t Recorder::Time() const {
  return static_cast<uint64_t>(MonotonicMilliseconds() - start_);
}

absl::Status Recorder::Written(const absl::Status& status) const {
  if (status.ok()) return status;
  return absl::AbortedError(absl::StrCat(path_, ": ", status.message()));
}

absl::Status Recorder::Attach() {
  absl::StatusOr<Observer> observer = Observer::Attach(process_);
  if (!observer.ok()) return observer.status();
  observer_.emplace(*std::move(observer));
  // Another program has other sites under the same numbers.
  symbolizer_->Wait();
  const absl::Status names = writer_.AddNames(symbolizer_->Take());
  symbolizer_ = std::make_unique<Symbolizer>();
  if (!names.ok()) return Written(names);
  return Written(
      writer_.Begin(Time(), observer_->stage(), observer_->age_bounds()));
}

absl::Status Recorder::Look() {
  if (Wait() > 0) return absl::OkStatus();
  absl::Status status;
  if (!observer_.has_value()) status = Attach();
  if (status.ok()) {
    const absl::StatusOr<Snapshot> snapshot = observer_->Read();
    status = snapshot.status();
    if (status.ok()) {
      for (const auto& [number, site] : snapshot->sites) {
        const SiteName& name = observer_->Name(number);
        if (name.module.empty()) continue;
        symbolizer_->Ask(number, process_.PathOutside(name.module),
                         name.offset);
      }
      status = Written(writer_.Add(Time(), *snapshot, [this](SiteNumber site) {
        return observer_->Name(site);
      }));
      // After the sites themselves.
      if (status.ok()) {
        status = Written(writer_.AddNames(symbolizer_->Take()));
      }
      ++moments_;
    }
  }
  if (absl::IsFailedPrecondition(status) || absl::IsUnavailable(status)) {
    observer_.reset();
    next_ = MonotonicMilliseconds() + std::min(next_try_, interval_);
    next_try_ = std::min(next_try_ * 2, kLongestTry);
    return absl::OkStatus();
  }
  next_try_ = 1;
  next_ = std::max(next_ + interval_, MonotonicMilliseconds());
  return status;
}

absl::Status Recorder::Finish(const std::string& how) {
  symbolizer_->Wait();
  absl::Status status = writer_.AddNames(symbolizer_->Take());
  if (status.ok()) status = writer_.End(Time(), how);
  return Written(status);
}

absl::StatusOr<RecordPlace> ParseRecordPlace(const std::string& text) {
  RecordPlace place;
  const size_t comma = text.rfind(',');
  place.path = text.substr(0, comma);
  if (comma != std::string::npos) {
    const absl::StatusOr<int64_t> interval =
        ParseSeconds(text.substr(comma + 1));
    if (!interval.ok()) return interval.status();
    place.interval = *interval;
  }
  if (place.path.empty()) {
    return absl::InvalidArgumentError("the name of the file is missing");
  }
  return place;
}

}  // namespace hakmem::tools
