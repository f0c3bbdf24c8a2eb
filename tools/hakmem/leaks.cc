#include "tools/hakmem/leaks.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tools/hakmem/addr2line.h"
#include "tools/hakmem/file.h"
#include "tools/hakmem/format.h"

namespace hakmem::tools {
namespace {

namespace fs = std::filesystem;

// Takes a number from the front of `text`.
bool ConsumeNumber(absl::string_view* text, uint64_t* number) {
  const size_t end =
      std::min(text->find_first_not_of("0123456789"), text->size());
  if (!absl::SimpleAtoi(text->substr(0, end), number)) return false;
  text->remove_prefix(end);
  return true;
}

bool ParseLeak(absl::string_view line, Leak* leak) {
  if (!ConsumeNumber(&line, &leak->bytes) ||
      !absl::ConsumePrefix(&line, " bytes in ") ||
      !ConsumeNumber(&line, &leak->blocks) ||
      !absl::ConsumePrefix(&line, " blocks, ")) {
    return false;
  }
  leak->place = std::string(line);
  const size_t plus = line.rfind("+0x");
  if (absl::StartsWith(line, "/") && plus != absl::string_view::npos &&
      absl::SimpleHexAtoi(line.substr(plus + 1), &leak->address)) {
    leak->module = std::string(line.substr(0, plus));
  }
  return true;
}

bool IsKept(const Leak& leak, const CodeName& name) {
  // What libstdc++ sets aside in its first constructor: one block of 72 KiB and
  // some, whatever the program is like.
  const std::string library = fs::path(leak.module).filename();
  if (absl::StartsWith(library, "libstdc++.so")) {
    return leak.blocks == 1 && leak.bytes >= uint64_t{70} << 10 &&
           leak.bytes <= uint64_t{80} << 10;
  }
  // What the loader has, it has for the threads' stacks that the C library
  // keeps.
  return absl::StartsWith(library, "ld-linux") ||
         (absl::StartsWith(library, "libc.so") &&
          absl::EndsWith(name.function, "_IO_file_doallocate"));
}

std::string Place(const Leak& leak, const CodeName& name) {
  std::string place =
      name.file.empty() ? leak.place : absl::StrCat(name.file, ":", name.line);
  if (!name.function.empty()) absl::StrAppend(&place, " (", name.function, ")");
  return place;
}

void SortLeaks(std::vector<Leak>* leaks) {
  std::sort(leaks->begin(), leaks->end(), [](const Leak& a, const Leak& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.place < b.place;
  });
}

std::string FormatReport(LeakReport report, const std::string& who) {
  if (!report.complete) {
    return absl::StrCat("hakmem: run: ", who,
                        " did not come to its end by exit(), so that nothing "
                        "is known of its leaks\n");
  }
  const uint64_t kept = NameLeaks(&report);
  std::string text;
  uint64_t bytes = 0;
  uint64_t blocks = 0;
  for (const Leak& leak : report.leaks) {
    absl::StrAppend(&text, FormatLeak(leak), "\n");
    bytes += leak.bytes;
    blocks += leak.blocks;
  }
  absl::StrAppend(&text, "hakmem: run: ", who);
  if (report.leaks.empty()) {
    absl::StrAppend(&text, " leaked nothing");
  } else {
    absl::StrAppend(&text, " leaked ", bytes, " bytes in ", blocks, " block",
                    blocks == 1 ? "" : "s", ", at ", report.leaks.size(),
                    " site", report.leaks.size() == 1 ? "" : "s");
  }
  if (kept != 0) {
    absl::StrAppend(&text, " (beside ", kept,
                    " bytes that the C and C++ libraries keep)");
  }
  return text + "\n";
}

}  // namespace

LeakReport ParseLeaks(absl::string_view text) {
  LeakReport report;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    Leak leak;
    if (absl::ConsumePrefix(&line, "hakmem: leak: ")) {
      // A process that goes on as another one by execve(2) writes once more.
      if (report.complete) report = LeakReport();
      if (ParseLeak(line, &leak)) report.leaks.push_back(std::move(leak));
    } else if (absl::StartsWith(line, "hakmem: leaks: ")) {
      if (report.complete) report = LeakReport();
      report.complete = true;
    }
  }
  return report;
}

uint64_t NameLeaks(LeakReport* report) {
  std::map<std::string, std::vector<size_t>> by_module;
  for (size_t i = 0; i < report->leaks.size(); ++i) {
    const Leak& leak = report->leaks[i];
    if (!leak.module.empty()) by_module[leak.module].push_back(i);
  }
  std::map<size_t, CodeName> names;
  for (const auto& [module, indices] : by_module) {
    std::vector<uint64_t> addresses;
    for (const size_t i : indices) {
      addresses.push_back(report->leaks[i].address);
    }
    const absl::StatusOr<std::vector<CodeName>> found =
        Addr2line(module, addresses, nullptr);
    if (!found.ok()) continue;
    for (size_t i = 0; i < indices.size(); ++i) {
      names[indices[i]] = (*found)[i];
    }
  }
  uint64_t kept = 0;
  std::vector<Leak> named;
  std::map<std::string, size_t> by_place;
  for (size_t i = 0; i < report->leaks.size(); ++i) {
    Leak& leak = report->leaks[i];
    const auto found = names.find(i);
    const CodeName name = found != names.end() ? found->second : CodeName();
    if (IsKept(leak, name)) {
      kept += leak.bytes;
      continue;
    }
    if (!leak.module.empty()) leak.place = Place(leak, name);
    const auto [place, is_new] = by_place.emplace(leak.place, named.size());
    if (is_new) {
      named.push_back(std::move(leak));
    } else {
      named[place->second].bytes += leak.bytes;
      named[place->second].blocks += leak.blocks;
    }
  }
  SortLeaks(&named);
  report->leaks = std::move(named);
  return kept;
}

std::string FormatLeak(const Leak& leak) {
  return absl::StrCat(leak.bytes, " byte", leak.bytes == 1 ? "" : "s", " in ",
                      leak.blocks, " block", leak.blocks == 1 ? "" : "s", "  ",
                      Printable(leak.place));
}

absl::StatusOr<std::unique_ptr<LeakFolder>> LeakFolder::Create() {
  const char* const place = std::getenv("TMPDIR");
  std::string folder = absl::StrCat(
      place != nullptr && place[0] == '/' ? place : "/tmp", "/hakmem.XXXXXX");
  if (mkdtemp(folder.data()) == nullptr) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot make a folder like ", folder));
  }
  return std::unique_ptr<LeakFolder>(new LeakFolder(std::move(folder)));
}

LeakFolder::~LeakFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

std::string LeakFolder::Read(pid_t main) const {
  std::map<pid_t, LeakReport> reports;
  std::error_code error;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(path_, error)) {
    pid_t pid = 0;
    const absl::StatusOr<std::string> text = ReadWholeFile(entry.path());
    if (text.ok() && absl::SimpleAtoi(entry.path().filename().string(), &pid)) {
      reports[pid] = ParseLeaks(*text);
    }
  }
  std::string text = FormatReport(reports[main], "the program");
  for (const auto& [pid, report] : reports) {
    if (pid == main) continue;
    absl::StrAppend(&text,
                    FormatReport(report, absl::StrCat("process ", pid,
                                                      ", which it started,")));
  }
  return text;
}

}  // namespace hakmem::tools
