// A thread that tidies up where the program does nothing: without it, memory
// that is free goes back when somebody calls in.

#ifndef HAKMEM_SHIM_BACKGROUND_H_
#define HAKMEM_SHIM_BACKGROUND_H_

#include <cstdint>

namespace hakmem::heap {

// Does what the calls of a busy program do in passing: depots give up what
// nobody came for, slabs and the arena what nobody wanted for a while.
// `now` is os::CoarseMilliseconds(). Any thread may call it.
void Tidy(int64_t now);

// Starts the thread, unless there is one; 0, or what pthread_create() said.
// Not from inside the allocator: it allocates.
int StartBackground();

// Ends it and waits until it has ended.
void StopBackground();

// In the child of a fork, which has no such thread: starts one if the parent
// had one.
void RestartBackgroundInChild();

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_BACKGROUND_H_
