// Allocation on threads that take samples (HAKMEM_SAMPLE_BYTES,
// HAKMEM_PROFILE): which blocks become tracked ones, of a site that is the
// stack of the call. Of small blocks the heap's fast paths count most
// themselves: see ThreadCache::PopCounted().

#ifndef HAKMEM_SHIM_SAMPLED_H_
#define HAKMEM_SHIM_SAMPLED_H_

#include <cstddef>
#include <cstdint>

#include "hakmem/core/core.h"

namespace hakmem::heap {

// A block of at most kMaxTinySize bytes that PopCounted() has counted but not
// found, or that is a sample.
void* AllocateCounted(size_t size, const void* caller);

// A block of L2 of which Sampler::PassL2Block() was false.
void* AllocateCountedL2(size_t size, const void* caller);

// The site that the allocation of a block of any other kind is for: its stack
// when it is a sample, else kNoSite. To be asked once for each block.
uint32_t SampledSite(size_t size, size_t alignment, const void* caller);

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_SAMPLED_H_
