// The calling thread's stack, from inside of malloc.

#ifndef HAKMEM_CORE_UNWIND_H_
#define HAKMEM_CORE_UNWIND_H_

#include <cstddef>
#include <cstdint>

namespace hakmem {

// Writes the calling thread's stack to frames[0...], innermost first, and
// returns how many frames that are: `most` at most. A frame is an address
// within its call instruction (the return address less one) or, where a signal
// interrupted it, of the instruction that was to come: what line tables want.
//
// `caller` is a return address: the frames above it, which are the allocator's
// own, are left out, so that frames[0] is caller - 1. With 0, or an address
// that is not among the frames, it begins with who called this function.
//
// It goes by the compiler's tables of each function and executes them, so it
// needs no frame pointers and passes through signal handlers and alternate
// stacks. What has no tables, such as code made at run time, is passed by its
// frame pointer if that leads to a function that has some or again to such
// code; and without glibc's _dl_find_object() (before 2.35, or in a static
// program that does not have it) there are only frame pointers. It ends where
// the tables say that nobody called, or at what cannot be right: a stack that
// goes down, that cannot be read, or that has no more than rubbish.
//
// Thread safety: from any thread, also in a signal handler that interrupted
// this very function. Allocates nothing, takes no lock, keeps errno; needs some
// 3 KiB of stack. What it found out about an address is kept for the next time
// in a table of the process, 64 KiB, which is touched only if this is called.
// A frame costs some 10 to 25 ns then, 500 ns at first
// (//hakmem/core:unwind_benchmark).
size_t CaptureStack(uintptr_t* frames, size_t most, uintptr_t caller);

}  // namespace hakmem

#endif  // HAKMEM_CORE_UNWIND_H_
