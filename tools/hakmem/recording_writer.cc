#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/hakmem/file.h"
#include "tools/hakmem/json.h"
#include "tools/hakmem/recording.h"

namespace hakmem::tools {
namespace {

void AppendText(absl::string_view member, const std::string& text,
                std::string* line) {
  if (!text.empty()) {
    absl::StrAppend(line, ",\"", member, "\":", JsonQuote(text));
  }
}

std::string SiteLine(SiteNumber number, const SiteName& name) {
  std::string line =
      absl::StrCat("{\"site\":", number, ",\"kind\":", JsonQuote(name.kind),
                   ",\"id\":\"0x", absl::Hex(name.id), "\"");
  AppendText("label", name.label, &line);
  AppendText("file", name.file, &line);
  if (name.line != 0) absl::StrAppend(&line, ",\"line\":", name.line);
  AppendText("function", name.function, &line);
  AppendText("module", name.module, &line);
  if (!name.module.empty()) {
    absl::StrAppend(&line, ",\"offset\":\"0x", absl::Hex(name.offset), "\"");
  }
  AppendText("build_id", name.build_id, &line);
  return line + "}\n";
}

// Adds `item` to the array of that name which `line` may have already.
class ArrayMember {
 public:
  explicit ArrayMember(const char* name) : name_(name) {}

  void Add(absl::string_view item) {
    absl::StrAppend(&items_, items_.empty() ? "" : ",", "[", item, "]");
  }

  void AppendTo(std::string* line) const {
    if (items_.empty()) return;
    absl::StrAppend(line, ",\"", name_, "\":[", items_, "]");
  }

 private:
  const char* const name_;
  std::string items_;
};

}  // namespace

RecordingWriter::RecordingWriter(int descriptor, const RecordingHeader& header)
    : descriptor_(descriptor) {
  std::string command;
  for (const std::string& word : header.command) {
    absl::StrAppend(&command, command.empty() ? "" : ",", JsonQuote(word));
  }
  (void)Write(absl::StrCat("{\"hakmem_recording\":", kRecordingVersion,
                           ",\"hakmem\":", JsonQuote(header.hakmem),
                           ",\"pid\":", header.pid, ",\"command\":[", command,
                           "],\"started\":", header.started,
                           ",\"interval\":", header.interval, "}\n"));
}

absl::Status RecordingWriter::Write(absl::string_view lines) {
  if (status_.ok()) status_ = WriteAll(descriptor_, lines);
  return status_;
}

absl::Status RecordingWriter::Begin(uint64_t time, const std::string& stage,
                                    const std::vector<uint64_t>& age_bounds) {
  written_.clear();
  return Write(absl::StrCat(
      "{\"begin\":", time, ",\"stage\":", JsonQuote(stage), ",\"age_bounds\":[",
      absl::StrJoin(age_bounds, ","), "]}\n"));
}

absl::Status RecordingWriter::Add(
    uint64_t time, const Snapshot& snapshot,
    const std::function<SiteName(SiteNumber)>& name) {
  std::string lines;
  ArrayMember sites("sites");
  ArrayMember sizes("sizes");
  ArrayMember ages("ages");
  for (const auto& [number, site] : snapshot.sites) {
    const auto [place, is_new] = written_.try_emplace(number);
    if (is_new) lines += SiteLine(number, name(number));
    SiteFigures& before = place->second;
    if (site == before) continue;
    sites.Add(absl::StrCat(number, ",", site.live_bytes, ",", site.live_blocks,
                           ",", site.peak_bytes, ",", site.allocs, ",",
                           site.alloc_bytes));
    for (const auto& [bytes, size] : site.sizes) {
      const auto had = before.sizes.find(bytes);
      if (had != before.sizes.end() && had->second == size) continue;
      sizes.Add(
          absl::StrCat(number, ",", bytes, ",", size.allocs, ",", size.frees));
    }
    if (site.ages != before.ages) {
      ages.Add(absl::StrCat(number, ",", absl::StrJoin(site.ages, ",")));
    }
    before = site;
  }
  const HeapFigures& heap = snapshot.heap;
  absl::StrAppend(&lines, "{\"t\":", time, ",\"rss\":", snapshot.rss,
                  ",\"live\":", heap.live, ",\"cached\":", heap.cached,
                  ",\"partial\":", heap.partial, ",\"free\":", heap.free);
  absl::StrAppend(&lines, ",\"metadata\":", heap.metadata);
  sites.AppendTo(&lines);
  sizes.AppendTo(&lines);
  ages.AppendTo(&lines);
  return Write(lines + "}\n");
}

absl::Status RecordingWriter::AddNames(
    const std::map<SiteNumber, CodeName>& names) {
  std::string lines;
  for (const auto& [number, name] : names) {
    absl::StrAppend(&lines, "{\"name\":", number);
    AppendText("function", name.function, &lines);
    AppendText("file", name.file, &lines);
    if (name.line != 0) absl::StrAppend(&lines, ",\"line\":", name.line);
    absl::StrAppend(&lines, "}\n");
  }
  return Write(lines);
}

absl::Status RecordingWriter::End(uint64_t time, const std::string& how) {
  return Write(
      absl::StrCat("{\"end\":", time, ",\"how\":", JsonQuote(how), "}\n"));
}

}  // namespace hakmem::tools
