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
#include "hakmem/shim/usage.h"

namespace heap = hakmem::heap;

namespace {

// For the fields of mallinfo(), which are too narrow: glibc's wrap around.
int Clip(size_t value) {
  return static_cast<int>(std::min<size_t>(value, INT_MAX));
}

// In the words of mallinfo(3): what is cached counts as free, what the system
// does not back counts as not there.
struct mallinfo2 Mallinfo2() {
  const heap::Usage usage = heap::GetUsage();
  struct mallinfo2 info = {};
  info.arena = usage.slabs + usage.large + usage.free_dirty;
  info.hblks = usage.direct_count;
  info.hblkhd = usage.direct;
  info.uordblks = usage.small_live + usage.large;
  info.fordblks = info.arena - info.uordblks;
  info.keepcost = usage.free_dirty;
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
  const heap::Usage usage = heap::GetUsage();
  const auto write = [](std::string_view what, size_t bytes) {
    hakmem::Line line;
    line.Text(what).Number(bytes).Write();
  };
  write("mapped bytes = ", usage.mapped);
  write("in use bytes = ", usage.live());
  write("thread cache bytes = ", usage.thread_cached);
  write("depot bytes = ", usage.depot_cached);
  write("slab free bytes = ", usage.slab_free);
  write("slab tail bytes = ", usage.slab_tails);
  write("free run bytes = ", usage.free_runs);
  write("table bytes = ", usage.tables);
  write("resident bytes = ", heap::GetResidency().total());
}

// malloc_info(3): an XML document on `stream`. Returns 0, or -1 with errno set:
// EINVAL for options other than 0, or as the stream's failure left it.
HAKMEM_EXPORT int malloc_info(int options, FILE* stream) noexcept {
  if (options != 0) {
    errno = EINVAL;
    return -1;
  }
  const heap::Usage usage = heap::GetUsage();
  const heap::Residency resident = heap::GetResidency();
  const int written = std::fprintf(
      stream,
      "<malloc version=\"hakmem-1\">\n"
      "<heap nr=\"0\" stage=\"%s\">\n"
      "<total type=\"live\" size=\"%zu\"/>\n"
      "<total type=\"thread-caches\" size=\"%zu\"/>\n"
      "<total type=\"depots\" size=\"%zu\"/>\n"
      "<total type=\"slab-free\" size=\"%zu\"/>\n"
      "<total type=\"slab-tails\" size=\"%zu\"/>\n"
      "<total type=\"free-runs\" size=\"%zu\"/>\n"
      "<total type=\"tables\" size=\"%zu\"/>\n"
      "</heap>\n"
      "<resident type=\"slabs\" size=\"%zu\"/>\n"
      "<resident type=\"large\" size=\"%zu\"/>\n"
      "<resident type=\"mmap\" size=\"%zu\"/>\n"
      "<resident type=\"free-runs\" size=\"%zu\"/>\n"
      "<resident type=\"tables\" size=\"%zu\"/>\n"
      "<resident type=\"total\" size=\"%zu\"/>\n"
      "<total type=\"slabs\" size=\"%zu\"/>\n"
      "<total type=\"large\" size=\"%zu\"/>\n"
      "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n"
      "<system type=\"current\" size=\"%zu\"/>\n"
      "<aspace type=\"total\" size=\"%zu\"/>\n"
      "<aspace type=\"mprotect\" size=\"%zu\"/>\n"
      "<metadata size=\"%zu\"/>\n"
      "</malloc>\n",
      heap::StageName(), usage.live(), usage.thread_cached, usage.depot_cached,
      usage.slab_free, usage.slab_tails, usage.free_runs, usage.tables,
      resident.slabs, resident.large, resident.direct, resident.free_runs,
      resident.tables, resident.total(), usage.slabs, usage.large,
      usage.direct_count, usage.direct, usage.mapped, usage.reserved,
      usage.committed, usage.metadata);
  return written < 0 ? -1 : 0;
}

}  // extern "C"
