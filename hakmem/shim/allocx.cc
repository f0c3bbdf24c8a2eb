// The two functions of the *allocx() family that programs look for in whatever
// malloc they run on: how large would a block be, and a free that knows.
//
// The others are left out on purpose. mallocx(), rallocx() and dallocx()
// promise arenas and caches that mallctl() makes, and a program that finds
// mallctl() or all of the family takes its malloc for jemalloc and goes on to
// rely on what jemalloc's statistics say. sdallocx() and nallocx() alone are
// what tcmalloc has as well, so that nobody concludes anything from them.

#include <cstddef>
#include <cstdint>

#include "hakmem/shim/export.h"
#include "hakmem/shim/heap.h"

namespace heap = hakmem::heap;

namespace {

// The low six bits of `flags` are the alignment's logarithm, 0 for none; the
// rest asks for zeroed memory, or names a cache or an arena, neither of which
// matters to a size or a free.
size_t AlignmentOf(int flags) { return size_t{1} << (flags & 63); }

}  // namespace

extern "C" {

// Bytes that a block for `size` bytes would have to use; 0 when there is no
// such block. A size of 0 is taken for 1.
HAKMEM_EXPORT size_t nallocx(size_t size, int flags) noexcept {
  using hakmem::kGranuleSize;
  if (size == 0) size = 1;
  const hakmem::SizeClass size_class = heap::ClassFor(size, AlignmentOf(flags));
  if (size_class != hakmem::kNoClass) return hakmem::ClassSize(size_class);
  if (size > PTRDIFF_MAX - kGranuleSize) return 0;
  if (AlignmentOf(flags) > PTRDIFF_MAX - size) return 0;
  return (size + kGranuleSize - 1) & ~(kGranuleSize - 1);
}

// Frees a block of which the program asked for `size` bytes, or for fewer and
// then used what nallocx() says it has.
HAKMEM_EXPORT void sdallocx(void* ptr, size_t size, int flags) noexcept {
  heap::FreeSized(ptr, size, AlignmentOf(flags));
}

}  // extern "C"
