#include "hakmem/shim/profile_thread.h"

#include <cstdint>

#include "hakmem/core/core.h"
#include "hakmem/shim/profile_output.h"
#include "hakmem/shim/stage.h"

namespace hakmem::heap {
namespace {

// In milliseconds: how long a window is for a thread whose bins serve all that
// it allocates.
constexpr int64_t kWindow = 4;

void Run(OwnThread& self) {
  while (self.IsToRun()) {
    WriteProfileIfDue();
    if (ThreadCache::EndWindows() != 0) {
      self.Nap(kWindow);
    } else {
      self.Sleep(MillisecondsToProfile(), &ThreadCache::HasOpenWindows);
    }
  }
}

constinit OwnThread thread(&Run);

}  // namespace

void StartProfileThread() {
  // A library without locks is for one thread.
  if constexpr (HAKMEM_STAGE == HAKMEM_STAGE_UNLOCKED) return;
  const Options& options = arena.options();
  const bool samples =
      SampleInterval(options) != 0 && options.sites != kSitesByCaller;
  const bool divides = samples && options.sample_bytes == 0;
  const bool writes = ProfileMilliseconds(options) != 0;
  if (options.profile_thread == 0 || !(divides || writes)) return;
  if (!arena.EnsureReady() || thread.Start() != 0) return;
  if (divides) ThreadCache::SetWindowThread(&thread);
}

void RestartProfileThreadInChild() {
  if (thread.RestartInChild() != 0) ThreadCache::SetWindowThread(nullptr);
  // A window of the parent's: to be told its end, it has to be opened here.
  thread_cache.EndWindow();
}

}  // namespace hakmem::heap
