// The system calls that hakmem makes for memory. Sizes in bytes, addresses and
// sizes multiples of the page size. Safe from any thread; none allocates. Each
// keeps errno, since a failure here need not be one of the call that the
// program made.

#ifndef HAKMEM_CORE_OS_H_
#define HAKMEM_CORE_OS_H_

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace hakmem {

struct CgroupLimits;

// The program's errno, kept over a call that promises not to touch it.
class ErrnoKeeper {
 public:
  ErrnoKeeper() : saved_(errno) {}
  ~ErrnoKeeper() { errno = saved_; }
  ErrnoKeeper(const ErrnoKeeper&) = delete;
  ErrnoKeeper& operator=(const ErrnoKeeper&) = delete;

 private:
  const int saved_;
};

namespace os {

inline constexpr size_t kPageSize = 4096;

// Sets address space aside without making it accessible. The start is a
// multiple of `alignment`, a power of two. Null on failure.
void* Reserve(size_t bytes, size_t alignment);

// Makes a part of a reservation readable and writable; its pages read as zero.
[[nodiscard]] bool Commit(void* start, size_t bytes);

// Makes a part of a reservation readable, all zeros: nothing that is counted as
// memory, neither of this process nor against a limit, until it is committed.
[[nodiscard]] bool AllowReading(void* start, size_t bytes);

// Gives the pages back to the system; they stay accessible and read as zero.
// False when the system refused and the contents are still there.
[[nodiscard]] bool Purge(void* start, size_t bytes);

// Has the system back all of these pages now, which takes less time than one by
// one as they are used. Before Linux 5.14, and where memory is short, it may
// not: then they come as they are used.
void Populate(void* start, size_t bytes);

// How long Purge() takes for a page that was used, in nanoseconds: the least of
// a few times, with a page of its own. 0 where that cannot be found out.
int64_t PurgeNanoseconds();

// Asks for huge pages there, where the system gives them to who asks; or for
// none.
void AskForHugePages(void* start, size_t bytes);
void RefuseHugePages(void* start, size_t bytes);

inline constexpr size_t kHugePageSize = size_t{2} << 20;

// Whether the system gives this process huge pages where they fit: to who
// `asked`, or anyway. False where the system does not tell.
bool GivesHugePages(bool asked);

// A fresh zeroed mapping whose start is a multiple of `alignment`, or null.
void* Map(size_t bytes, size_t alignment);

// Takes a mapping out of the address space. Where the system cannot, since that
// would split one mapping into more than a process may have, the memory goes
// back all the same and only the addresses stay taken.
void Unmap(void* start, size_t bytes);

// Changes the size of what Map() gave, and its address if there is no room
// behind it; contents move along by way of the page tables. Bytes that are new
// read as zero. Null, and nothing changed, when the system refuses.
void* Remap(void* start, size_t bytes, size_t new_bytes);

// Whether a filter may end the process for a system call (seccomp(2)), one that
// the program has set itself or was started under. It takes prctl(2) to know.
bool IsFiltered();

// From now on Residency() does not ask.
void ForbidMincore();

// Which of the pages at `start` the system backs with memory: writes a 1 or a 0
// for each to pages[0...]. What the system does not tell counts as backed. At
// most kMostResidencyPages at once.
inline constexpr size_t kMostResidencyPages = 1024;
void Residency(const void* start, size_t bytes, unsigned char* pages);

// How many of the bytes at `start` those are.
size_t ResidentBytes(const void* start, size_t bytes);

// open(2), read(2), write(2) and close(2), which are no points where a thread
// may be cancelled here: malloc is none either. They set errno.
int OpenFile(const char* path, int flags, int mode);
ptrdiff_t ReadFile(int fd, void* bytes, size_t size);
ptrdiff_t WriteFile(int fd, const void* bytes, size_t size);
int CloseFile(int fd);

// Milliseconds since some moment, by a clock that costs no system call and may
// be some of them late.
int64_t CoarseMilliseconds();

// The machine's memory in bytes, or what the limits leave of it: for defaults
// that scale with it.
size_t UsableMemory(const CgroupLimits& limits);

// How many processors this thread may run on, or keep busy by the limits; at
// least 1.
uint32_t UsableProcessors(const CgroupLimits& limits);

// The limit on this process's address space in bytes (RLIMIT_AS), or SIZE_MAX.
size_t AddressSpaceLimit();

}  // namespace os
}  // namespace hakmem

#endif  // HAKMEM_CORE_OS_H_
