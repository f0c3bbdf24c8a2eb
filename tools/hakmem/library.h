// Where libhakmem.so is.

#ifndef TOOLS_HAKMEM_LIBRARY_H_
#define TOOLS_HAKMEM_LIBRARY_H_

#include <string>

#include "absl/status/statusor.h"

namespace hakmem::tools {

// Returns the absolute path of the library that belongs to this command: where
// both were installed, or where both were built. Nothing that the environment
// says changes it.
absl::StatusOr<std::string> FindLibrary();

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_LIBRARY_H_
