// dlopen() without RTLD_DEEPBIND: for libhakmem.so, where it comes before the C
// library's.
//
// A library that is opened with that flag looks for every function in itself
// and in what it needs, and then only in the program and what is preloaded. So
// it finds the C library's malloc() and free(), while the program and the C
// library itself (strdup(), say) use those of here: a block that goes from one
// to the other gets to the wrong heap. PHP opens its extensions so, and ends
// with a segmentation fault as it starts, with whatever malloc is preloaded.

#include <dlfcn.h>

#include <atomic>

#include "hakmem/core/arena.h"
#include "hakmem/core/mutex.h"
#include "hakmem/shim/export.h"

// In a program that is linked statically nobody needs this, and there is none.
extern "C" [[gnu::weak]] void* dlsym(void* handle, const char* name) noexcept;

namespace {

using Open = decltype(&dlopen);

constinit std::atomic<Open> next_open{nullptr};

// Not inlined, here and below, so that dlopen() has no variable in memory that
// would be in the way of its jump.
[[gnu::noinline]] Open NextOpen() {
  Open next = next_open.load(std::memory_order_relaxed);
  if (next != nullptr || dlsym == nullptr) return next;
  hakmem::HelgrindIgnore(&next_open, sizeof(next_open));
  next = reinterpret_cast<Open>(dlsym(RTLD_NEXT, "dlopen"));
  next_open.store(next, std::memory_order_relaxed);
  return next;
}

[[gnu::noinline]] bool HeedsDeepBind() {
  hakmem::arena.EnsureOptions();
  return hakmem::arena.options().deep_bind == hakmem::kDeepBindHeeded;
}

}  // namespace

// The C library goes by the address that it returns to: where to look for a
// library may depend on who wants it (DT_RUNPATH, $ORIGIN). So the call of it
// has to be the last, which is a jump.
extern "C" HAKMEM_EXPORT void* dlopen(const char* file, int mode) noexcept {
  const Open next = NextOpen();
  if (next == nullptr) return nullptr;
  if ((mode & RTLD_DEEPBIND) != 0 && !HeedsDeepBind()) mode &= ~RTLD_DEEPBIND;
#ifdef __clang__
  [[clang::musttail]]
#endif
  return next(file, mode);
}
