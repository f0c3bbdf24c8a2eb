#include "hakmem/shim/profile_output.h"

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "hakmem/core/core.h"
#include "hakmem/shim/export.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/output_path.h"

extern "C" int __cxa_atexit(void (*function)(void*), void* argument,
                            void* library);

namespace hakmem {
namespace {

constexpr uint64_t kDefaultInterval = 512 << 10;
constexpr std::string_view kDefaultPattern = "hakmem-%p-%n.pb.gz";

// How many files this process has begun, and when the next one is due, in
// milliseconds; 0 for never.
constinit std::atomic<uint64_t> files{0};
constinit std::atomic<int64_t> due{0};

// The last error that a line was written about.
constinit std::atomic<int> reported{0};

OutputPath PathOf(uint64_t number) {
  const std::string_view pattern = arena.options().profile_path.text;
  return OutputPath(pattern.empty() ? kDefaultPattern : pattern, number);
}

void Report(const char* path, int error) {
  if (reported.exchange(error, std::memory_order_relaxed) == error) return;
  const char* const meaning = strerrordesc_np(error);
  Warn("cannot write the profile", path,
       meaning != nullptr ? meaning : "unknown error");
}

// Writes the next file.
void WriteNext() {
  const OutputPath path =
      PathOf(files.fetch_add(1, std::memory_order_relaxed) + 1);
  const int error = hak_profile_write(path.text());
  if (error == EBUSY) return;  // somebody's is under way, with the same in it
  if (error != 0) Report(path.text(), error);
}

// Whether a file of that name could be written, as far as that can be seen
// without making one. Returns 0 or an errno value.
int TryPath(const char* path) {
  const ErrnoKeeper keeper;
  if (access(path, W_OK) == 0) return 0;
  if (errno != ENOENT) return errno;
  const std::string_view text = path;
  const size_t slash = text.rfind('/');
  if (slash == std::string_view::npos) {
    return access(".", W_OK | X_OK) == 0 ? 0 : errno;
  }
  char folder[512];
  const size_t size = slash == 0 ? 1 : slash;
  std::memcpy(folder, path, size);
  folder[size] = '\0';
  return access(folder, W_OK | X_OK) == 0 ? 0 : errno;
}

// Writes the profile of the end, and sees to it that no other is under way
// then, which would end with the process. Does not wait for ever: a handler on
// this thread may have interrupted it.
void AtExit(void*) {
  constexpr int64_t kPatience = 2000;
  const int64_t end = os::CoarseMilliseconds() + kPatience;
  if (arena.options().profile == kProfileAtExit) {
    const OutputPath path =
        PathOf(files.fetch_add(1, std::memory_order_relaxed) + 1);
    int error = 0;
    while ((error = hak_profile_write(path.text())) == EBUSY &&
           os::CoarseMilliseconds() < end) {
      sched_yield();
    }
    if (error != 0) Report(path.text(), error);
  }
  while (!StopProfiles() && os::CoarseMilliseconds() < end) sched_yield();
}

void OnSignal(int) {
  const ErrnoKeeper keeper;
  WriteNext();
}

}  // namespace

uint64_t SampleInterval(const Options& options) {
  if (options.sample_bytes != 0) return options.sample_bytes;
  return options.profile != kProfileNever || options.profile_signal != 0
             ? kDefaultInterval
             : 0;
}

int64_t ProfileMilliseconds(const Options& options) {
  return options.profile > kProfileAtExit
             ? static_cast<int64_t>(options.profile - kProfileAtExit) * 1000
             : 0;
}

void PrepareProfiles() {
  arena.EnsureOptions();
  const Options& options = arena.options();
  if (SampleInterval(options) == 0) return;
  if (options.sites == kSitesByCaller) {
    Warn("no samples are taken with", "HAKMEM_SITES=caller",
         "profiles will be empty");
  }
  if (options.profile != kProfileNever || options.profile_signal != 0) {
    const OutputPath first = PathOf(1);
    const int error = TryPath(first.text());
    if (error != 0) Report(first.text(), error);
  }
  // Of no library: so it comes after the destructors of all of them.
  if ((options.profile != kProfileNever || options.profile_signal != 0) &&
      __cxa_atexit(&AtExit, nullptr, nullptr) != 0) {
    Warn("cannot arrange for a profile", "at exit",
         "there will be none, or one that is cut short");
  }
  if (options.profile > kProfileAtExit) {
    due.store(os::CoarseMilliseconds() + ProfileMilliseconds(options),
              std::memory_order_relaxed);
  }
  if (options.profile_signal != 0) {
    const ErrnoKeeper keeper;
    struct sigaction action = {};
    action.sa_handler = &OnSignal;
    // On the thread's own stack for handlers, where it has one.
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    if (sigaction(static_cast<int>(options.profile_signal), &action, nullptr) !=
        0) {
      Warn("no handler can be set for the signal of", "HAKMEM_PROFILE_SIGNAL",
           "it has no effect");
    }
  }
}

void WriteProfileIfDue() {
  int64_t when = due.load(std::memory_order_relaxed);
  if (when == 0) return;
  const int64_t now = os::CoarseMilliseconds();
  if (now < when) return;
  const int64_t next = now + ProfileMilliseconds(arena.options());
  if (due.compare_exchange_strong(when, next, std::memory_order_relaxed)) {
    WriteNext();
  }
}

int64_t MillisecondsToProfile() {
  const int64_t when = due.load(std::memory_order_relaxed);
  if (when == 0) return -1;
  return std::max<int64_t>(0, when - os::CoarseMilliseconds());
}

}  // namespace hakmem

extern "C" HAKMEM_EXPORT int hak_profile_write(const char* path) {
  if (path == nullptr) return EINVAL;
  const uint64_t interval =
      hakmem::arena.EnsureReady()
          ? hakmem::SampleInterval(hakmem::arena.options())
          : 0;
  if (interval == 0) return ENODATA;
  return hakmem::WriteProfile(path, hak_observed, interval);
}
