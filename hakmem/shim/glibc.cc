// glibc's controls and statistics, as far as they have a meaning here. Every
// function of it that has to do with the heap is here or in malloc.cc, or a
// program would ask the C library's own heap, which nobody uses.
//
// Not here, since nothing can be meant by them any more: the hooks
// (__malloc_hook and others), malloc_get_state() and malloc_set_state(), which
// glibc itself keeps for old binaries only.

#include <malloc.h>
#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "hakmem/core/report.h"
#include "hakmem/shim/export.h"
#include "hakmem/shim/heap.h"

namespace heap = hakmem::heap;

namespace {

// What the arena and the direct mappings hold, in bytes, in the words of
// mallinfo(3). Read while other threads go on, so not all of one instant.
struct Usage {
  size_t arena;        // in_use + free_blocks + free_runs
  size_t in_use;       // blocks the program has, and those that caches hold
  size_t free_blocks;  // waiting in their slabs
  size_t free_runs;    // free granules that the system still backs
  size_t direct;
  size_t direct_count;
};

Usage GetUsage() {
  const hakmem::Arena::Stats stats = hakmem::arena.GetStats();
  Usage usage;
  usage.free_blocks = std::min(heap::FreeBlockBytes(), stats.slab_bytes);
  usage.in_use = stats.slab_bytes - usage.free_blocks + stats.large_bytes;
  usage.free_runs = stats.dirty_bytes;
  usage.arena = usage.in_use + usage.free_blocks + usage.free_runs;
  usage.direct = hakmem::direct_mappings.mapped_bytes();
  usage.direct_count = hakmem::direct_mappings.count();
  return usage;
}

// For the fields of mallinfo(), which are too narrow: glibc's wrap around.
int Clip(size_t value) {
  return static_cast<int>(std::min<size_t>(value, INT_MAX));
}

struct mallinfo2 Mallinfo2() {
  const Usage usage = GetUsage();
  struct mallinfo2 info = {};
  info.arena = usage.arena;
  info.hblks = usage.direct_count;
  info.hblkhd = usage.direct;
  info.uordblks = usage.in_use;
  info.fordblks = usage.free_blocks + usage.free_runs;
  info.keepcost = usage.free_runs;
  return info;
}

struct mallinfo Mallinfo() {
  const struct mallinfo2 wide = Mallinfo2();
  struct mallinfo info = {};
  info.arena = Clip(wide.arena);
  info.hblks = Clip(wide.hblks);
  info.hblkhd = Clip(wide.hblkhd);
  info.uordblks = Clip(wide.uordblks);
  info.fordblks = Clip(wide.fordblks);
  info.keepcost = Clip(wide.keepcost);
  return info;
}

// mallopt(3): 1 for a parameter that is a hint, which hakmem has better
// knowledge than to follow, or that is as wished already; 0 for one that
// promises what hakmem does not do, and for an unknown one.
int Mallopt(int parameter, int value) {
  switch (parameter) {
    case M_TRIM_THRESHOLD:  // how much may stay: HAKMEM_RETAIN_BYTES, adaptive
    case M_TOP_PAD:
    case M_MMAP_THRESHOLD:  // how a block is made is no business of its user
    case M_MMAP_MAX:
    case M_ARENA_TEST:  // there is one arena, and threads do not wait for it
    case M_ARENA_MAX:
    case M_MXFAST:  // small blocks have bins of their own size anyway
    case M_NLBLKS:
    case M_GRAIN:
    case M_KEEP:
    case M_CHECK_ACTION:  // one line and abort(), as in glibc since 2.26
      return 1;
    case M_PERTURB:  // blocks are not filled: a test would rely on it
      return value == 0 ? 1 : 0;
    default:
      return 0;
  }
}

}  // namespace

extern "C" {
int __libc_mallopt(int parameter, int value) noexcept;
struct mallinfo __libc_mallinfo(void) noexcept;

// malloc_trim(3): keeps `pad` bytes of free memory; 1 if the system got any
// back, 0 otherwise.
HAKMEM_EXPORT int malloc_trim(size_t pad) noexcept {
  return heap::Release(pad) != 0 ? 1 : 0;
}

HAKMEM_EXPORT int mallopt(int parameter, int value) noexcept {
  return Mallopt(parameter, value);
}

HAKMEM_EXPORT int __libc_mallopt(int parameter, int value) noexcept {
  return Mallopt(parameter, value);
}

HAKMEM_EXPORT struct mallinfo2 mallinfo2(void) noexcept { return Mallinfo2(); }

HAKMEM_EXPORT struct mallinfo mallinfo(void) noexcept { return Mallinfo(); }

HAKMEM_EXPORT struct mallinfo __libc_mallinfo(void) noexcept {
  return Mallinfo();
}

// malloc_stats(3): lines on stderr. Allocates nothing.
HAKMEM_EXPORT void malloc_stats(void) noexcept {
  const Usage usage = GetUsage();
  const auto write = [](std::string_view what, size_t bytes) {
    hakmem::Line line;
    line.Text(what).Number(bytes).Write();
  };
  write("system bytes = ", usage.arena + usage.direct);
  write("in use bytes = ", usage.in_use + usage.direct);
  write("free block bytes = ", usage.free_blocks);
  write("free run bytes = ", usage.free_runs);
  write("direct mappings = ", usage.direct_count);
  write("direct mapping bytes = ", usage.direct);
}

// malloc_info(3): an XML document on `stream`. Returns 0, or -1 with errno set:
// EINVAL for options other than 0, or as the stream's failure left it.
HAKMEM_EXPORT int malloc_info(int options, FILE* stream) noexcept {
  if (options != 0) {
    errno = EINVAL;
    return -1;
  }
  const Usage usage = GetUsage();
  const hakmem::Arena::Stats stats = hakmem::arena.GetStats();
  const int written = std::fprintf(
      stream,
      "<malloc version=\"hakmem-1\">\n"
      "<heap nr=\"0\" stage=\"%s\">\n"
      "<total type=\"slabs\" size=\"%zu\"/>\n"
      "<total type=\"large\" size=\"%zu\"/>\n"
      "<total type=\"free-blocks\" size=\"%zu\"/>\n"
      "<total type=\"free-runs\" size=\"%zu\"/>\n"
      "</heap>\n"
      "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n"
      "<system type=\"current\" size=\"%zu\"/>\n"
      "<aspace type=\"total\" size=\"%zu\"/>\n"
      "<aspace type=\"mprotect\" size=\"%zu\"/>\n"
      "<metadata size=\"%zu\"/>\n"
      "</malloc>\n",
      heap::StageName(), stats.slab_bytes, stats.large_bytes, usage.free_blocks,
      usage.free_runs, usage.direct_count, usage.direct,
      usage.arena + usage.direct, stats.reserved_bytes, stats.committed_bytes,
      stats.metadata_bytes);
  return written < 0 ? -1 : 0;
}

}  // extern "C"
