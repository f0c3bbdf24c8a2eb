// Sites whose memory only grows.

#ifndef TOOLS_HAKMEM_GROWTH_H_
#define TOOLS_HAKMEM_GROWTH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tools/hakmem/recording.h"

namespace hakmem::tools {

// The live bytes of a site at each moment of the recording.
std::vector<uint64_t> LiveBytes(const Recording& recording,
                                const Recording::Site& site);

// Growth that matters is at least so much, and at least a hundredth of what all
// sites have live at the end.
inline constexpr uint64_t kSignificantGrowth = uint64_t{64} << 10;

// What a thread counts reaches the tables late, by up to this much.
inline constexpr uint64_t kLateBytes = uint64_t{64} << 10;

// Whether the live bytes of a site only grow, which is what a leak looks like:
// there are at least eight moments; at none are they below what they were at
// any before it, but for a hundredth of that or kLateBytes, whichever is more,
// and at most a quarter of the whole growth; they are more at the end of each
// quarter of the recording than at its beginning; and the growth from the first
// moment to the last is significant. `total` is what all sites have live at the
// end.
bool OnlyGrows(const std::vector<uint64_t>& live, uint64_t total);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_GROWTH_H_
