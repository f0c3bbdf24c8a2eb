#include "tools/hakmem/addr2line.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tools/hakmem/file.h"

namespace hakmem::tools {
namespace {

// Not with the allocator that is looked at, and not by way of a server for
// debugging information, which would be waited for.
std::vector<char*> Environment() {
  std::vector<char*> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const absl::string_view text = *entry;
    if (absl::StartsWith(text, "LD_PRELOAD=") ||
        absl::StartsWith(text, "HAKMEM_") ||
        absl::StartsWith(text, "DEBUGINFOD_URLS=")) {
      continue;
    }
    kept.push_back(*entry);
  }
  kept.push_back(nullptr);
  return kept;
}

bool IsOfLibrary(const CodeName& name) {
  return absl::StrContains(name.file, "/include/c++/") ||
         absl::StartsWith(name.function, "std::") ||
         absl::StartsWith(name.function, "__gnu_cxx::") ||
         absl::StartsWith(name.function, "operator new");
}

CodeName ParseName(absl::string_view function, absl::string_view place) {
  CodeName name;
  if (function != "??") name.function = WithoutParameters(function);
  place = place.substr(0, place.find(" (discriminator"));
  const size_t colon = place.rfind(':');
  if (colon == absl::string_view::npos) return name;
  const absl::string_view file = place.substr(0, colon);
  if (file == "??" || !absl::SimpleAtoi(place.substr(colon + 1), &name.line) ||
      name.line == 0) {
    name.line = 0;
    return name;
  }
  name.file = std::string(file);
  return name;
}

}  // namespace

std::string WithoutParameters(absl::string_view function) {
  absl::string_view name = function.substr(0, function.find(" [clone "));
  // glibc's functions have this in front of the name by which it calls them.
  absl::ConsumePrefix(&name, "__GI_");
  absl::ConsumeSuffix(&name, " const");
  if (!absl::EndsWith(name, ")")) return std::string(name);
  int depth = 0;
  for (size_t i = name.size(); i-- > 0;) {
    if (name[i] == ')') ++depth;
    if (name[i] == '(' && --depth == 0) {
      const absl::string_view before = name.substr(0, i);
      // "(anonymous namespace)" and "operator()" are names themselves.
      if (before.empty() || absl::EndsWith(before, "operator")) break;
      return std::string(before);
    }
  }
  return std::string(name);
}

CodeName MostTelling(const std::vector<CodeName>& inlined) {
  for (const CodeName& name : inlined) {
    if (!IsOfLibrary(name) && (!name.file.empty() || !name.function.empty())) {
      return name;
    }
  }
  return inlined.empty() ? CodeName() : inlined.back();
}

std::vector<CodeName> ParseAddr2line(absl::string_view output, size_t count) {
  std::vector<CodeName> names;
  std::vector<CodeName> inlined;
  absl::string_view function;
  bool in_address = false;
  bool has_function = false;
  const auto finish = [&] {
    if (in_address) names.push_back(MostTelling(inlined));
    inlined.clear();
    in_address = true;
    has_function = false;
  };
  for (const absl::string_view line : absl::StrSplit(output, '\n')) {
    // An address stands where a function would, and no function is so named.
    if (!has_function && absl::StartsWith(line, "0x")) {
      finish();
    } else if (!has_function) {
      function = line;
      has_function = !line.empty();
    } else {
      inlined.push_back(ParseName(function, line));
      has_function = false;
    }
  }
  finish();
  names.resize(count);
  return names;
}

absl::StatusOr<std::vector<CodeName>> Addr2line(
    const std::string& path, const std::vector<uint64_t>& addresses,
    std::atomic<int>* running) {
  std::string input;
  for (const uint64_t address : addresses) {
    // A call that returns there comes before it.
    absl::StrAppend(&input, "0x", absl::Hex(address == 0 ? 0 : address - 1),
                    "\n");
  }
  const int from = memfd_create("addresses", MFD_CLOEXEC);
  int to[2] = {-1, -1};
  if (from < 0 || !WriteAll(from, input).ok() ||
      lseek(from, 0, SEEK_SET) != 0 || pipe2(to, O_CLOEXEC) != 0) {
    const int error = errno;
    if (from >= 0) close(from);
    return absl::ErrnoToStatus(error, "cannot ask addr2line");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, from, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, to[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null",
                                   O_WRONLY, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  std::string words[] = {"addr2line", "-a", "-f", "-i", "-C", "-e", path};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, "addr2line", &actions, &attributes,
                                 arguments.data(), Environment().data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(from);
  close(to[1]);
  if (error != 0) {
    close(to[0]);
    return absl::ErrnoToStatus(error, "cannot run addr2line");
  }
  if (running != nullptr) *running = pid;
  std::string output;
  char buffer[65536];
  for (;;) {
    const ssize_t got = read(to[0], buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    output.append(buffer, static_cast<size_t>(got));
  }
  close(to[0]);
  siginfo_t info;
  // Left to be waited for while its number is still known as `running`.
  while (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) != 0 &&
         errno == EINTR) {
  }
  if (running != nullptr) *running = 0;
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return ParseAddr2line(output, addresses.size());
}

}  // namespace hakmem::tools
