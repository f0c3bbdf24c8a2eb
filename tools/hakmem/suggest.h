// "Did you mean": the known name that is nearest to a mistyped one.

#ifndef TOOLS_HAKMEM_SUGGEST_H_
#define TOOLS_HAKMEM_SUGGEST_H_

#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace hakmem::tools {

// Returns that of `names` which the fewest insertions, deletions, replacements
// and exchanges of neighbours turn `name` into, the first of equals; or nothing
// if that would change more than a third of it.
absl::string_view Nearest(absl::string_view name,
                          std::span<const absl::string_view> names);

// Returns "; did you mean 'PREFIXname'?" for the nearest of `names`, or
// nothing.
std::string DidYouMean(absl::string_view name, absl::string_view prefix,
                       std::span<const absl::string_view> names);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_SUGGEST_H_
