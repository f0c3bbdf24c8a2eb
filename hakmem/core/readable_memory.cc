#include "hakmem/core/readable_memory.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

namespace hakmem {
namespace {

// A thread's stretch of stack in one word, so that a signal finds it whole: the
// number of its first page, how many there are, and until when that holds.
constexpr int kPageBits = 36;
constexpr int kCountBits = 12;
constexpr int kTimeBits = 64 - kPageBits - kCountBits;
constexpr uintptr_t kMostPages = (uintptr_t{1} << kCountBits) - 1;

// A stack that has grown by this many pages is asked about; beyond that it is
// taken for another one.
constexpr uintptr_t kMostGrowth = 8;

constinit thread_local std::atomic<uint64_t> kept_stack
    __attribute__((tls_model("initial-exec"))){0};

uint64_t Pack(uintptr_t first, uintptr_t pages, uint64_t time) {
  return first << (64 - kPageBits) | pages << kTimeBits | time;
}

uint64_t EighthsOfASecond() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  const uint64_t eighths = static_cast<uint64_t>(now.tv_sec) * 8 +
                           static_cast<uint64_t>(now.tv_nsec) / 125000000;
  return eighths & ((uint64_t{1} << kTimeBits) - 1);
}

}  // namespace

ReadableMemory::ReadableMemory(uintptr_t stack) {
  if (stack == 0) return;
  const uintptr_t page = stack >> kPageShift;
  kept_ = kept_stack.load(std::memory_order_relaxed);
  now_ = EighthsOfASecond();
  stack_first_ = kept_ >> (64 - kPageBits);
  stack_pages_ = kept_ >> kTimeBits & kMostPages;
  const bool fresh = (kept_ & ((uint64_t{1} << kTimeBits) - 1)) == now_;
  if (fresh && page - stack_first_ < stack_pages_) return;
  if (fresh && page < stack_first_ && stack_first_ - page <= kMostGrowth &&
      stack_pages_ + kMostGrowth <= kMostPages) {
    uintptr_t first = stack_first_;
    while (first != page && Probe(first - 1)) --first;
    if (first == page) {
      stack_pages_ += stack_first_ - first;
      stack_first_ = first;
      return;
    }
  }
  stack_first_ = page;
  stack_pages_ = 1;
}

ReadableMemory::~ReadableMemory() {
  if (stack_pages_ == 0) return;
  const uint64_t word = Pack(stack_first_, stack_pages_, now_);
  if (word != kept_) kept_stack.store(word, std::memory_order_relaxed);
}

// The system looks at the set of signals before it sees that what is to be done
// with it is nonsense: EFAULT where the page cannot be read, EINVAL where it
// can. Unlike process_vm_readv() that is not a right which a program may lack.
bool ReadableMemory::Probe(uintptr_t page) {
  constexpr int kNonsense = -1;
  constexpr size_t kSignalSetBytes = 8;  // the kernel's, not the C library's
  const int saved_errno = errno;
  const bool readable =
      syscall(SYS_rt_sigprocmask, kNonsense, page << kPageShift, nullptr,
              kSignalSetBytes) != 0 &&
      errno == EINVAL;
  errno = saved_errno;
  if (!readable) return false;
  if (stack_pages_ != 0 && page == stack_first_ + stack_pages_ &&
      stack_pages_ < kMostPages) {
    ++stack_pages_;
  } else {
    known_[page % kKnown] = page + 1;
  }
  return true;
}

}  // namespace hakmem
