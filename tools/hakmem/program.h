// The program that a user names: where it is, and whether the loader will
// preload a library into it.

#ifndef TOOLS_HAKMEM_PROGRAM_H_
#define TOOLS_HAKMEM_PROGRAM_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hakmem::tools {

// Returns the path, with a slash in it, of the program that execvp(3) would run
// for `name`. NotFound if there is none, PermissionDenied or FailedPrecondition
// if what is there is no program that the caller may run.
absl::StatusOr<std::string> FindProgram(const std::string& name);

// Ok if the loader preloads libraries into the program at `path`, as far as can
// be seen from outside: a program that may be run but not read is believed.
// NotFound if it is a script whose interpreter is not there, otherwise
// FailedPrecondition; the message says why.
absl::Status CheckPreload(const std::string& path);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_PROGRAM_H_
