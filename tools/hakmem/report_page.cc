#include "tools/hakmem/report_page.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "tools/hakmem/growth.h"
#include "tools/hakmem/json.h"
#include "tools/hakmem/page_parts.h"

namespace hakmem::tools {
namespace {

// The moments that the page shows, as indices.
std::vector<size_t> SelectMoments(const Recording& recording) {
  const size_t count = recording.moments.size();
  std::vector<size_t> selected;
  if (count <= kMostMoments) {
    for (size_t i = 0; i < count; ++i) selected.push_back(i);
    return selected;
  }
  selected.push_back(0);
  constexpr size_t kStretches = kMostMoments - 2;
  const size_t between = count - 2;
  for (size_t i = 0; i < kStretches; ++i) {
    size_t most = 1 + between * i / kStretches;
    const size_t end = 1 + between * (i + 1) / kStretches;
    for (size_t j = most + 1; j < end; ++j) {
      if (recording.moments[j].rss > recording.moments[most].rss) most = j;
    }
    selected.push_back(most);
  }
  selected.push_back(count - 1);
  return selected;
}

template <typename Figure>
void AppendSeries(const char* name, const Recording& recording,
                  const std::vector<size_t>& selected, Figure figure,
                  std::string* data) {
  absl::StrAppend(data, ",\n\"", name, "\":[",
                  absl::StrJoin(selected, ",",
                                [&](std::string* out, size_t i) {
                                  absl::StrAppend(out,
                                                  figure(recording.moments[i]));
                                }),
                  "]");
}

// One row of the page: a site and what it comes to.
struct Row {
  const Recording::Site* site;
  std::vector<uint64_t> live;  // at every moment
  bool grows;
};

void AppendText(const char* name, const std::string& text, std::string* data) {
  absl::StrAppend(data, ",\"", name, "\":", JsonQuote(text));
}

// Indices of selected moments at which the value changes, each with the value.
std::string Points(const std::vector<uint64_t>& live,
                   const std::vector<size_t>& selected) {
  std::string points;
  uint64_t before = 0;
  for (size_t i = 0; i < selected.size(); ++i) {
    const uint64_t value = live[selected[i]];
    if (value == before) continue;
    absl::StrAppend(&points, points.empty() ? "" : ",", i, ",", value);
    before = value;
  }
  return points;
}

std::string RowData(const Row& row, const std::vector<size_t>& selected) {
  const SiteName& name = row.site->name;
  const SiteFigures& last = row.site->last;
  std::string data = absl::StrCat("{\"title\":", JsonQuote(SiteTitle(name)),
                                  ",\"kind\":", JsonQuote(name.kind));
  AppendText("label", name.label, &data);
  AppendText("function", name.function, &data);
  AppendText("file", name.file, &data);
  absl::StrAppend(&data, ",\"line\":", name.line);
  AppendText("module", name.module, &data);
  absl::StrAppend(&data, ",\"offset\":\"0x", absl::Hex(name.offset), "\"");
  AppendText("buildId", name.build_id, &data);
  absl::StrAppend(&data, ",\"live\":", last.live_bytes,
                  ",\"blocks\":", last.live_blocks,
                  ",\"peak\":", last.peak_bytes, ",\"allocs\":", last.allocs);
  absl::StrAppend(&data, ",\"bytes\":", last.alloc_bytes, ",\"growth\":",
                  static_cast<int64_t>(row.live.back() - row.live.front()),
                  ",\"grows\":", row.grows ? "true" : "false");
  absl::StrAppend(&data, ",\"points\":[", Points(row.live, selected),
                  "],\"sizes\":[");
  bool first = true;
  for (const auto& [bytes, size] : last.sizes) {
    absl::StrAppend(&data, first ? "" : ",", "[", bytes, ",", size.allocs, ",",
                    size.frees, "]");
    first = false;
  }
  absl::StrAppend(&data, "],\"ages\":[", absl::StrJoin(last.ages, ","), "]}");
  return data;
}

// One site in place of many.
Recording::Site AddUp(const std::vector<Row>& rows, size_t begin,
                      std::vector<uint64_t>* live) {
  Recording::Site sum;
  sum.name.kind = "rest";
  sum.name.label = absl::StrCat(rows.size() - begin, " smaller sites");
  live->assign(rows[begin].live.size(), 0);
  for (size_t i = begin; i < rows.size(); ++i) {
    const SiteFigures& site = rows[i].site->last;
    sum.last.live_bytes += site.live_bytes;
    sum.last.live_blocks += site.live_blocks;
    sum.last.peak_bytes += site.peak_bytes;
    sum.last.allocs += site.allocs;
    sum.last.alloc_bytes += site.alloc_bytes;
    for (size_t j = 0; j < live->size(); ++j) (*live)[j] += rows[i].live[j];
  }
  return sum;
}

std::string HtmlEscape(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

}  // namespace

std::string ReportData(const Recording& recording) {
  const std::vector<size_t> selected = SelectMoments(recording);
  const RecordingHeader& header = recording.header;
  std::string data = absl::StrCat(
      "{\"hakmem\":", JsonQuote(header.hakmem), ",\"pid\":", header.pid,
      ",\"command\":[",
      absl::StrJoin(header.command, ",",
                    [](std::string* out, const std::string& word) {
                      *out += JsonQuote(word);
                    }),
      "],\"started\":", header.started, ",\"interval\":", header.interval);
  absl::StrAppend(&data, ",\"stage\":", JsonQuote(recording.stage),
                  ",\"end\":", JsonQuote(recording.end),
                  ",\"cut\":", recording.cut ? "true" : "false",
                  ",\"moments\":", recording.moments.size(),
                  ",\"siteCount\":", recording.sites.size());
  absl::StrAppend(&data, ",\"ageBounds\":[",
                  absl::StrJoin(recording.age_bounds, ","), "]");
  using Moment = Recording::Moment;
  AppendSeries(
      "t", recording, selected,
      [](const Moment& moment) { return moment.time; }, &data);
  AppendSeries(
      "rss", recording, selected,
      [](const Moment& moment) { return moment.rss; }, &data);
  const std::pair<const char*, uint64_t HeapFigures::*> kSeries[] = {
      {"live", &HeapFigures::live},
      {"cached", &HeapFigures::cached},
      {"partial", &HeapFigures::partial},
      {"free", &HeapFigures::free},
      {"metadata", &HeapFigures::metadata}};
  for (const auto& [name, figure] : kSeries) {
    AppendSeries(
        name, recording, selected,
        [figure = figure](const Moment& moment) { return moment.heap.*figure; },
        &data);
  }

  uint64_t total = 0;
  std::vector<const Recording::Site*> sites;
  for (const Recording::Site& site : recording.sites) {
    total += site.last.live_bytes;
    sites.push_back(&site);
  }
  // Equal ones in the order of the recording, as they lie in memory.
  std::sort(sites.begin(), sites.end(),
            [](const Recording::Site* a, const Recording::Site* b) {
              return a->last.peak_bytes != b->last.peak_bytes
                         ? a->last.peak_bytes > b->last.peak_bytes
                         : a < b;
            });
  std::vector<Row> rows;
  for (const Recording::Site* const site : sites) {
    Row row = {site, LiveBytes(recording, *site), false};
    row.grows = OnlyGrows(row.live, total);
    rows.push_back(std::move(row));
  }
  Recording::Site rest;
  if (rows.size() > kMostSites) {
    Row sum = {&rest, {}, false};
    rest = AddUp(rows, kMostSites, &sum.live);
    rows.resize(kMostSites);
    rows.push_back(std::move(sum));
  }
  absl::StrAppend(&data, ",\n\"sites\":[",
                  absl::StrJoin(rows, ",\n",
                                [&](std::string* out, const Row& row) {
                                  *out += RowData(row, selected);
                                }),
                  "]}");
  return data;
}

std::string ReportPage(const Recording& recording) {
  const std::string program =
      recording.header.command.empty()
          ? absl::StrCat("process ", recording.header.pid)
          : recording.header.command[0];
  // In one pass: what is put in may look like a place to put something in.
  return absl::StrReplaceAll(
      kPageHtml, {{"@TITLE@", HtmlEscape(absl::StrCat("Memory of ", program))},
                  {"@STYLE@", kPageStyle},
                  {"@SCRIPT@", kPageScript},
                  {"@DATA@", ReportData(recording)}});
}

}  // namespace hakmem::tools
