#include "tools/hakmem/program.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "tools/hakmem/file.h"

namespace hakmem::tools {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#endif

// What the kernel reads to see what a file is, and how often it goes on from a
// script to its interpreter: see binfmt_script.c and exec.c of Linux.
constexpr size_t kHeadBytes = 256;
constexpr int kMostInterpreters = 5;

absl::Status CannotPreload(absl::string_view path, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat(path, " ", why));
}

// Whether execve(2) would begin to run the file at `path`.
absl::Status CheckExecutable(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return absl::NotFoundError(absl::StrCat(path, ": no such program"));
    }
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": ", std::strerror(errno)));
  }
  if (S_ISDIR(status.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is a directory, not a program"));
  }
  if (!S_ISREG(status.st_mode) ||
      faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " is not a program that you may run"));
  }
  return absl::OkStatus();
}

// The loader trusts the environment of nobody who gains rights by running a
// program (AT_SECURE in getauxval(3)). The kernel says so for a user or group
// other than the caller's, and for capabilities unless root gets them, as
// security/commoncap.c has it.
absl::Status CheckRights(const std::string& path) {
  struct stat status;
  struct statvfs mounted;
  if (stat(path.c_str(), &status) != 0) return absl::OkStatus();
  if (statvfs(path.c_str(), &mounted) == 0 &&
      (mounted.f_flag & ST_NOSUID) != 0) {
    return absl::OkStatus();
  }
  const bool may_gain = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0;
  if (may_gain && (status.st_mode & S_ISUID) != 0 &&
      status.st_uid != getuid()) {
    return CannotPreload(path,
                         "runs as another user (setuid), and the loader "
                         "preloads nothing into such a program");
  }
  constexpr mode_t kSetGroup = S_ISGID | S_IXGRP;
  if (may_gain && (status.st_mode & kSetGroup) == kSetGroup &&
      status.st_gid != getgid()) {
    return CannotPreload(path,
                         "runs as another group (setgid), and the loader "
                         "preloads nothing into such a program");
  }
  if (getuid() != 0 &&
      getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) {
    return CannotPreload(path,
                         "has capabilities of its own (setcap), and the loader "
                         "preloads nothing into such a program");
  }
  return absl::OkStatus();
}

// True for the loader itself, which is a static program that preloads.
bool IsLoader(const std::string& path) {
  char* const resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return false;
  const absl::string_view whole = resolved;
  const size_t slash = whole.rfind('/');
  const bool is_loader =
      absl::StartsWith(whole.substr(slash + 1), "ld-linux") ||
      absl::StartsWith(whole.substr(slash + 1), "ld-2.");
  free(resolved);
  return is_loader;
}

absl::Status CheckElf(const std::string& path, const File& file) {
  Elf64_Ehdr header;
  if (file.Read(&header, sizeof(header), 0) < EI_NIDENT ||
      (header.e_ident[EI_CLASS] != ELFCLASS32 &&
       header.e_ident[EI_CLASS] != ELFCLASS64)) {
    return CannotPreload(path, "is a damaged program: its header is not ELF's");
  }
  if (header.e_ident[EI_CLASS] == ELFCLASS32) {
    return CannotPreload(path,
                         "is a 32-bit program, and libhakmem.so is a 64-bit "
                         "library");
  }
  if (header.e_machine != kMachine) {
    return CannotPreload(path, "is a program for another kind of processor");
  }
  bool loaded_by_loader = false;
  for (uint16_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    const uint64_t offset = header.e_phoff + uint64_t{i} * header.e_phentsize;
    if (file.Read(&segment, sizeof(segment), offset) != sizeof(segment)) {
      return CannotPreload(path,
                           "is a damaged program: its segments are missing");
    }
    if (segment.p_type != PT_INTERP) continue;
    loaded_by_loader = true;
    char name[kHeadBytes] = {};
    file.Read(name, std::min<size_t>(sizeof(name) - 1, segment.p_filesz),
              segment.p_offset);
    if (absl::StrContains(name, "/ld-musl")) {
      return CannotPreload(path,
                           "is a program of another C library, musl, and "
                           "libhakmem.so needs glibc");
    }
  }
  if (!loaded_by_loader && !IsLoader(path)) {
    return CannotPreload(
        path,
        "is statically linked, so nothing can be preloaded into it: link it "
        "with libhakmem.a instead");
  }
  return CheckRights(path);
}

// The words of "#! interpreter argument" in the first bytes of a file.
std::vector<std::string> InterpreterWords(absl::string_view head) {
  absl::string_view line = head.substr(2, head.find('\n') - 2);
  return absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
}

// env(1) starts what follows its options and settings.
std::string ProgramOfEnv(const std::vector<std::string>& words) {
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i][0] != '-' && !absl::StrContains(words[i], '=')) {
      return words[i];
    }
  }
  return "";
}

// CheckPreload(), after `depth` interpreters.
absl::Status Check(const std::string& path, int depth) {
  const File file(path);
  if (!file.ok()) return CheckRights(path);
  char buffer[kHeadBytes];
  const absl::string_view head(buffer, file.Read(buffer, sizeof(buffer), 0));
  if (absl::StartsWith(head, ELFMAG)) return CheckElf(path, file);

  std::string interpreter = "/bin/sh";  // as execvp(3) has it
  if (absl::StartsWith(head, "#!")) {
    const std::vector<std::string> words = InterpreterWords(head);
    if (words.empty()) {
      return CannotPreload(path, "names no interpreter after its #!");
    }
    interpreter = words[0];
    if (absl::EndsWith(interpreter, "/env")) {
      const absl::StatusOr<std::string> program =
          FindProgram(ProgramOfEnv(words));
      // Where env finds nothing it says so itself.
      if (program.ok()) interpreter = *program;
    }
  } else if (head.substr(0, head.find('\n')).find('\0') !=
             absl::string_view::npos) {
    return CannotPreload(path, "is neither a program nor a script");
  }
  if (depth == kMostInterpreters) {
    return CannotPreload(path, "is a script of too many scripts");
  }
  absl::Status status = CheckExecutable(interpreter);
  if (status.ok()) status = Check(interpreter, depth + 1);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": its interpreter ",
                                                  status.message()));
}

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (absl::StrContains(name, '/')) {
    const absl::Status status = CheckExecutable(name);
    if (!status.ok()) return status;
    return name;
  }
  const char* path = std::getenv("PATH");
  if (path == nullptr) path = "/bin:/usr/bin";
  absl::Status first_refused =
      absl::NotFoundError(absl::StrCat(name, ": no such program in PATH"));
  if (name.empty()) {
    return absl::NotFoundError("the name of the program is empty");
  }
  for (const absl::string_view folder : absl::StrSplit(path, ':')) {
    const std::string candidate =
        absl::StrCat(folder.empty() ? "." : folder, "/", name);
    const absl::Status status = CheckExecutable(candidate);
    if (status.ok()) return candidate;
    if (!absl::IsNotFound(status) && absl::IsNotFound(first_refused)) {
      first_refused = status;
    }
  }
  return first_refused;
}

absl::Status CheckPreload(const std::string& path) { return Check(path, 0); }

}  // namespace hakmem::tools
