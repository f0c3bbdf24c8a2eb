#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/hakmem/json.h"
#include "tools/hakmem/recording.h"

namespace hakmem::tools {
namespace {

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

uint64_t ParseAddress(const std::string& text) {
  uint64_t address = 0;
  return absl::SimpleHexAtoi(text, &address) ? address : 0;
}

// The numbers of an array; false where it is none of at least `least`.
bool GetNumbers(const Json& array, size_t least,
                std::vector<uint64_t>* numbers) {
  numbers->clear();
  for (const Json& item : array.items) {
    if (!item.whole) return false;
    numbers->push_back(item.integer);
  }
  return numbers->size() >= least;
}

bool GetNumber(const Json& line, absl::string_view name, uint64_t* number) {
  const Json* const value = line.Find(name);
  if (value == nullptr || !value->whole) return false;
  *number = value->integer;
  return true;
}

class Reader {
 public:
  absl::Status Line(const Json& line) {
    if (line.type != Json::Type::kObject) return Wrong("no JSON object");
    if (!has_header_) return Header(line);
    if (line.Find("t") != nullptr) return Moment(line);
    if (line.Find("site") != nullptr) return Site(line);
    if (line.Find("name") != nullptr) return Name(line);
    if (line.Find("begin") != nullptr) return Begin(line);
    if (line.Find("end") != nullptr) recording_.end = line.String("how");
    // Another kind of line is something that was added later.
    return absl::OkStatus();
  }

  Recording Take() { return std::move(recording_); }

 private:
  absl::Status Header(const Json& line) {
    const Json* const version = line.Find("hakmem_recording");
    if (version == nullptr) return Wrong("this is no recording of hakmem's");
    if (!version->whole || version->integer != kRecordingVersion) {
      return Wrong(
          absl::StrCat("the recording is of version ", version->integer,
                       ", and this command knows version ", kRecordingVersion));
    }
    RecordingHeader& header = recording_.header;
    header.hakmem = line.String("hakmem");
    header.pid = static_cast<int>(line.Integer("pid"));
    header.started = line.Integer("started");
    header.interval = line.Integer("interval");
    if (const Json* const command = line.Find("command")) {
      for (const Json& word : command->items) {
        header.command.push_back(word.text);
      }
    }
    has_header_ = true;
    return absl::OkStatus();
  }

  absl::Status Begin(const Json& line) {
    recording_.stage = line.String("stage");
    recording_.age_bounds.clear();
    const Json* const bounds = line.Find("age_bounds");
    if (bounds == nullptr || !GetNumbers(*bounds, 0, &recording_.age_bounds)) {
      return Wrong("\"age_bounds\" is not an array of numbers");
    }
    // What another program had, that was there before, is gone.
    for (const auto& [number, index] : sites_) {
      Recording::Site& site = recording_.sites[index];
      if (site.last.live_bytes == 0) continue;
      site.points.push_back({recording_.moments.size(), 0, 0});
      site.last.live_bytes = 0;
      site.last.live_blocks = 0;
    }
    sites_.clear();
    return absl::OkStatus();
  }

  absl::Status Site(const Json& line) {
    uint64_t number = 0;
    if (!GetNumber(line, "site", &number))
      return Wrong("\"site\" is no number");
    Recording::Site site;
    site.name.kind = line.String("kind");
    site.name.id = ParseAddress(line.String("id"));
    site.name.label = line.String("label");
    site.name.module = line.String("module");
    site.name.offset = ParseAddress(line.String("offset"));
    site.name.build_id = line.String("build_id");
    SetCode(line, &site.name);
    if (!sites_.emplace(number, recording_.sites.size()).second) {
      return Wrong(absl::StrCat("site ", number, " is there twice"));
    }
    recording_.sites.push_back(std::move(site));
    return absl::OkStatus();
  }

  static void SetCode(const Json& line, SiteName* name) {
    name->function = line.String("function");
    name->file = line.String("file");
    name->line = line.Integer("line");
  }

  Recording::Site* Find(uint64_t number) {
    const auto found = sites_.find(number);
    return found == sites_.end() ? nullptr : &recording_.sites[found->second];
  }

  absl::Status Name(const Json& line) {
    uint64_t number = 0;
    Recording::Site* const site =
        GetNumber(line, "name", &number) ? Find(number) : nullptr;
    if (site == nullptr) return Wrong("a name for a site that is not there");
    SetCode(line, &site->name);
    return absl::OkStatus();
  }

  absl::Status Moment(const Json& line) {
    Recording::Moment moment;
    HeapFigures& heap = moment.heap;
    const std::pair<const char*, uint64_t*> figures[] = {
        {"t", &moment.time},         {"rss", &moment.rss},
        {"live", &heap.live},        {"cached", &heap.cached},
        {"partial", &heap.partial},  {"free", &heap.free},
        {"metadata", &heap.metadata}};
    for (const auto& [name, figure] : figures) {
      if (!GetNumber(line, name, figure)) {
        return Wrong(absl::StrCat("\"", name, "\" is no number"));
      }
    }
    const size_t index = recording_.moments.size();
    if (index > 0 && moment.time < recording_.moments.back().time) {
      return Wrong("time goes backwards");
    }
    recording_.moments.push_back(moment);
    std::vector<uint64_t> numbers;
    if (const Json* const sites = line.Find("sites")) {
      for (const Json& item : sites->items) {
        Recording::Site* const site =
            GetNumbers(item, 6, &numbers) ? Find(numbers[0]) : nullptr;
        if (site == nullptr) return Wrong("\"sites\" makes no sense");
        site->points.push_back({index, numbers[1], numbers[2]});
        site->last.live_bytes = numbers[1];
        site->last.live_blocks = numbers[2];
        site->last.peak_bytes = numbers[3];
        site->last.allocs = numbers[4];
        site->last.alloc_bytes = numbers[5];
      }
    }
    if (const Json* const sizes = line.Find("sizes")) {
      for (const Json& item : sizes->items) {
        Recording::Site* const site =
            GetNumbers(item, 4, &numbers) ? Find(numbers[0]) : nullptr;
        if (site == nullptr) return Wrong("\"sizes\" makes no sense");
        site->last.sizes[numbers[1]] = {numbers[2], numbers[3]};
      }
    }
    if (const Json* const ages = line.Find("ages")) {
      for (const Json& item : ages->items) {
        Recording::Site* const site =
            GetNumbers(item, 1, &numbers) ? Find(numbers[0]) : nullptr;
        if (site == nullptr) return Wrong("\"ages\" makes no sense");
        site->last.ages.assign(numbers.begin() + 1, numbers.end());
      }
    }
    return absl::OkStatus();
  }

  bool has_header_ = false;
  Recording recording_;
  std::map<uint64_t, size_t> sites_;  // by number: index in recording_.sites
};

}  // namespace

absl::StatusOr<Recording> ParseRecording(absl::string_view text) {
  if (text.empty()) return Wrong("line 1: the file is empty");
  Reader reader;
  bool cut = false;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const bool complete = end != absl::string_view::npos;
    const absl::StatusOr<Json> line = ParseJson(text.substr(0, end));
    absl::Status status = line.ok() ? reader.Line(*line) : line.status();
    // An incomplete line is none that can be parsed, as its brace is missing.
    if (!line.ok() && !complete && number > 1) {
      cut = true;
      status = absl::OkStatus();
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": ", status.message()));
    }
    if (!complete) break;
    text.remove_prefix(end + 1);
  }
  Recording recording = reader.Take();
  recording.cut = cut;
  return recording;
}

}  // namespace hakmem::tools
