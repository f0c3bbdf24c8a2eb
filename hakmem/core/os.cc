#include "hakmem/core/os.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/helgrind.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "hakmem/core/cgroup.h"

namespace hakmem::os {
namespace {

constinit std::atomic<bool> mincore_forbidden{false};

void* MapAligned(size_t bytes, size_t alignment, int protection) {
  const ErrnoKeeper keeper;
  // One page more than alignment asks for is never needed: mappings start at
  // pages.
  const size_t slack = alignment > kPageSize ? alignment - kPageSize : 0;
  if (bytes > SIZE_MAX - slack) return nullptr;
  void* const raw = mmap(nullptr, bytes + slack, protection,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  if (slack == 0) return raw;
  const auto begin = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t start = (begin + alignment - 1) & ~(alignment - 1);
  const size_t before = start - begin;
  const size_t after = slack - before;
  if (before != 0) Unmap(raw, before);
  if (after != 0) Unmap(reinterpret_cast<void*>(start + bytes), after);
  return reinterpret_cast<void*>(start);
}

int64_t Nanoseconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

}  // namespace

void* Reserve(size_t bytes, size_t alignment) {
  return MapAligned(bytes, alignment, PROT_NONE);
}

bool Commit(void* start, size_t bytes) {
  const ErrnoKeeper keeper;
  if (mprotect(start, bytes, PROT_READ | PROT_WRITE) != 0) return false;
  // Helgrind watches what is mapped accessible, and goes on to ignore what
  // becomes accessible later unless it is told. Nothing outside of Valgrind.
  VALGRIND_HG_CLEAN_MEMORY(start, bytes);
  return true;
}

bool AllowReading(void* start, size_t bytes) {
  const ErrnoKeeper keeper;
  return mprotect(start, bytes, PROT_READ) == 0;
}

bool Purge(void* start, size_t bytes) {
  const ErrnoKeeper keeper;
  return madvise(start, bytes, MADV_DONTNEED) == 0;
}

void Populate(void* start, size_t bytes) {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, glibc 2.35
  const ErrnoKeeper keeper;
  madvise(start, bytes, kPopulateWrite);
}

int64_t PurgeNanoseconds() {
  constexpr int kTries = 4;
  void* const page = Map(kPageSize, kPageSize);
  if (page == nullptr) return 0;
  int64_t least = INT64_MAX;
  for (int i = 0; i < kTries && least != 0; ++i) {
    *static_cast<volatile char*>(page) = 1;
    const int64_t before = Nanoseconds();
    least =
        Purge(page, kPageSize) ? std::min(least, Nanoseconds() - before) : 0;
  }
  Unmap(page, kPageSize);
  return least;
}

void AskForHugePages(void* start, size_t bytes) {
  const ErrnoKeeper keeper;
  madvise(start, bytes, MADV_HUGEPAGE);
}

void RefuseHugePages(void* start, size_t bytes) {
  const ErrnoKeeper keeper;
  madvise(start, bytes, MADV_NOHUGEPAGE);
}

bool GivesHugePages(bool asked) {
  const ErrnoKeeper keeper;
  const int fd = OpenFile("/sys/kernel/mm/transparent_hugepage/enabled",
                          O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return false;
  // "always [madvise] never": the word in brackets holds.
  char text[64];
  const ptrdiff_t size = ReadFile(fd, text, sizeof(text));
  CloseFile(fd);
  const char* const end = text + std::max<ptrdiff_t>(size, 0);
  const char* const word = std::find(static_cast<const char*>(text), end, '[');
  const auto is = [word, end](const char* name) {
    const size_t length = std::strlen(name);
    return static_cast<size_t>(end - word) >= length &&
           std::memcmp(word, name, length) == 0;
  };
  if (!is("[always]") && !(asked && is("[madvise]"))) return false;
  // prctl(2): 0; 1 for a process that gets none; and since Linux 6.18 3 for one
  // that gets none unless it asks.
  constexpr long kOnlyWhoAsks = 3;
  const long disabled = syscall(SYS_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
  return disabled <= 0 || (asked && disabled == kOnlyWhoAsks);
}

void* Map(size_t bytes, size_t alignment) {
  return MapAligned(bytes, alignment, PROT_READ | PROT_WRITE);
}

void Unmap(void* start, size_t bytes) {
  const ErrnoKeeper keeper;
  if (munmap(start, bytes) != 0) madvise(start, bytes, MADV_DONTNEED);
}

void* Remap(void* start, size_t bytes, size_t new_bytes) {
  const ErrnoKeeper keeper;
  void* const moved = mremap(start, bytes, new_bytes, MREMAP_MAYMOVE);
  return moved == MAP_FAILED ? nullptr : moved;
}

bool IsFiltered() {
  const ErrnoKeeper keeper;
  const long mode = syscall(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0);
  // Where there is no such thing, the call is invalid.
  return mode > 0 || (mode < 0 && errno != EINVAL);
}

void ForbidMincore() {
  mincore_forbidden.store(true, std::memory_order_relaxed);
}

void Residency(const void* start, size_t bytes, unsigned char* pages) {
  const ErrnoKeeper keeper;
  const size_t count = bytes / kPageSize;
  if (mincore_forbidden.load(std::memory_order_relaxed) ||
      mincore(const_cast<void*>(start), bytes, pages) != 0) {
    std::fill_n(pages, count, 1);
    return;
  }
  // The other bits of these bytes are reserved.
  for (size_t i = 0; i < count; ++i) pages[i] &= 1;
}

size_t ResidentBytes(const void* start, size_t bytes) {
  unsigned char pages[kMostResidencyPages];
  size_t resident = 0;
  for (size_t at = 0; at < bytes; at += sizeof(pages) * kPageSize) {
    const size_t step = std::min(sizeof(pages) * kPageSize, bytes - at);
    Residency(static_cast<const char*>(start) + at, step, pages);
    resident +=
        static_cast<size_t>(std::count(pages, pages + step / kPageSize, 1));
  }
  return resident * kPageSize;
}

int OpenFile(const char* path, int flags, int mode) {
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

ptrdiff_t ReadFile(int fd, void* bytes, size_t size) {
  return syscall(SYS_read, fd, bytes, size);
}

ptrdiff_t WriteFile(int fd, const void* bytes, size_t size) {
  return syscall(SYS_write, fd, bytes, size);
}

int CloseFile(int fd) { return static_cast<int>(syscall(SYS_close, fd)); }

int64_t CoarseMilliseconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

size_t UsableMemory(const CgroupLimits& limits) {
  const ErrnoKeeper keeper;
  struct sysinfo info;
  const size_t all = sysinfo(&info) == 0
                         ? static_cast<size_t>(info.totalram) * info.mem_unit
                         : size_t{1} << 30;
  return std::min(all, limits.memory_bytes);
}

uint32_t UsableProcessors(const CgroupLimits& limits) {
  const ErrnoKeeper keeper;
  // The system call: the C library's function is one for a fixed number of
  // processors.
  std::array<uint64_t, 128> mask = {};
  const long bytes =  // NOLINT(google-runtime-int)
      syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask.data());
  if (bytes <= 0) return 1;
  int count = 0;
  for (size_t i = 0; i * sizeof(uint64_t) < static_cast<size_t>(bytes); ++i) {
    count += std::popcount(mask[i]);
  }
  return std::min(static_cast<uint32_t>(std::max(count, 1)), limits.processors);
}

size_t AddressSpaceLimit() {
  const ErrnoKeeper keeper;
  struct rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return SIZE_MAX;
  }
  return limit.rlim_cur;
}

}  // namespace hakmem::os
