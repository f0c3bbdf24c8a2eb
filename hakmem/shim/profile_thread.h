// The thread that helps with profiles: writes files that are due while the
// program does nothing, and ends the windows in which threads count what they
// allocate (count_windows.h).

#ifndef HAKMEM_SHIM_PROFILE_THREAD_H_
#define HAKMEM_SHIM_PROFILE_THREAD_H_

namespace hakmem::heap {

// Starts it if the options ask for anything that it is for. Early, and not from
// inside the allocator: it allocates. Without it, threads count all that they
// allocate, and a file that is due is written by whichever takes a sample first
// then.
void StartProfileThread();

// In the child of a fork, which has no such thread: starts one if the parent
// had one.
void RestartProfileThreadInChild();

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_PROFILE_THREAD_H_
