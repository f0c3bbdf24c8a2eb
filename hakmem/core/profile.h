// The heap profile: sampled stacks with what they have allocated and what of it
// is in use, in the format of pprof.

#ifndef HAKMEM_CORE_PROFILE_H_
#define HAKMEM_CORE_PROFILE_H_

#include <cstddef>
#include <cstdint>

#include "hakmem/core/observed.h"

namespace hakmem {

// The probability that a block of `bytes` bytes is sampled: 1 - exp(-bytes /
// interval), since samples are that many bytes apart on average and lie
// anywhere (a Poisson process). What was counted of such blocks, divided by it,
// is what there were of them.
double SampleProbability(double bytes, double interval);

// Writes the stacks among the sites of `observed` as a gzipped profile.proto
// (https://github.com/google/pprof/blob/main/proto/profile.proto), with the
// sample types alloc_objects, alloc_space, inuse_objects and inuse_space:
// counts of samples scaled up as above, each as its site says that they were
// taken. `interval` is what they are all meant to be taken at. Functions
// have no names in it; addresses, mappings and build ids are what pprof finds
// them by.
//
// Bytes are those of blocks: requests as they were rounded up.
//
// Returns 0 or an errno value: of the file; ENOMEM when there is no room for
// the tables that this needs meanwhile (a mapping, some 16 bytes a frame);
// EBUSY while this process writes a profile already.
//
// Thread safety: from any thread, while others go on, also in a signal handler.
// Allocates nothing from the heap, takes no lock, keeps errno.
int WriteProfile(const char* path, const Observed& observed, uint64_t interval);

// True once this process writes no profile, and then it writes none again:
// WriteProfile() returns EBUSY. For its end, which would cut short what is
// under way. Thread safety: as above.
bool StopProfiles();

}  // namespace hakmem

#endif  // HAKMEM_CORE_PROFILE_H_
