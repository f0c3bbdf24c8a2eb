#include "tools/hakmem/library.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hakmem::tools {
namespace {

namespace fs = std::filesystem;

}  // namespace

absl::StatusOr<std::string> FindLibrary() {
  std::error_code error;
  const fs::path command = fs::read_symlink("/proc/self/exe", error);
  if (error) {
    return absl::InternalError(absl::StrCat(
        "/proc/self/exe says where this command is, and cannot be read: ",
        error.message()));
  }
  const fs::path folder = command.parent_path();
  std::vector<fs::path> places;
  if (folder.filename() == "bin") {
    const fs::path lib = folder.parent_path() / "lib";
    places.push_back(lib / HAKMEM_SONAME);
    // Debian's place for the libraries of one architecture.
    places.push_back(lib / "x86_64-linux-gnu" / HAKMEM_SONAME);
  } else {
    // As built, in Bazel's folder of outputs or in a tree of runfiles.
    places.push_back(folder.parent_path().parent_path() /
                     "hakmem/shim/libhakmem.so");
  }
  for (const fs::path& place : places) {
    if (access(place.c_str(), R_OK) == 0) return place.string();
  }
  return absl::NotFoundError(absl::StrCat(
      "its library is not installed with it (", places[0].string(), ")"));
}

}  // namespace hakmem::tools
