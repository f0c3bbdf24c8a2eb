// When heap profiles are written, and to which files: what HAKMEM_PROFILE,
// HAKMEM_PROFILE_FILE, HAKMEM_PROFILE_SIGNAL and HAKMEM_SAMPLE_BYTES ask for.
//
// Files that are due after some seconds are written by hakmem's own thread
// (profile_thread.h), or by whichever takes a sample first then; those for a
// signal by its handler, and those for exit by exit(). A file that cannot be
// written costs a line on stderr, the first time, and the program goes on.

#ifndef HAKMEM_SHIM_PROFILE_OUTPUT_H_
#define HAKMEM_SHIM_PROFILE_OUTPUT_H_

#include <cstdint>

#include "hakmem/core/options.h"

namespace hakmem {

// The mean distance of samples in bytes, as the options say; 0 when there are
// to be none.
uint64_t SampleInterval(const Options& options);

// Milliseconds between the files that are written every so often; 0 where none
// are.
int64_t ProfileMilliseconds(const Options& options);

// Gets ready for what the options ask for: a handler for the signal, a call at
// exit, and a look whether the first file could be written. Once, early.
void PrepareProfiles();

// Writes a profile if it is time for one. From any thread, without a lock of
// hakmem's.
void WriteProfileIfDue();

// Milliseconds until it is; negative if it never will be.
int64_t MillisecondsToProfile();

}  // namespace hakmem

#endif  // HAKMEM_SHIM_PROFILE_OUTPUT_H_
