#include "hakmem/shim/site_report.h"

#include <fcntl.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "hakmem/core/core.h"
#include "hakmem/core/report.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/heap.h"
#include "hakmem/shim/output_path.h"

extern "C" int __cxa_atexit(void (*function)(void*), void* argument,
                            void* library);

namespace hakmem {
namespace {

constexpr std::string_view kKinds[] = {"other",  "place", "number",
                                       "caller", "scope", "stack"};
constexpr std::string_view kPoolNames[HAK_POOLS] = {"tiny", "l2", "l25"};

SiteKind KindOf(const ObservedSite& record) {
  return record.kind.load(std::memory_order_relaxed);
}

uint64_t PeakOf(const ObservedSite& record, const SiteSums& sums) {
  const int64_t peak = record.peak_bytes.load(std::memory_order_relaxed);
  return std::max(peak > 0 ? static_cast<uint64_t>(peak) : 0,
                  sums.live_bytes());
}

// A member of an object that is a number.
class Members {
 public:
  explicit Members(TextSink& sink) : sink_(sink) { sink_.Text("{"); }
  void End() { sink_.Text("}"); }
  TextSink& Name(std::string_view name) {
    sink_.Text(first_ ? "" : ",").Quoted(name).Text(":");
    first_ = false;
    return sink_;
  }
  void Number(std::string_view name, uint64_t value) {
    Name(name).Number(value);
  }
  void Text(std::string_view name, std::string_view text) {
    Name(name).Quoted(text);
  }

 private:
  TextSink& sink_;
  bool first_ = true;
};

void WriteHeap(const hak_stats& stats, TextSink& sink) {
  Members heap(sink);
  heap.Number("reserved_bytes", stats.reserved_bytes);
  heap.Number("committed_bytes", stats.committed_bytes);
  heap.Number("slab_bytes", stats.slab_bytes);
  heap.Number("large_bytes", stats.large_bytes);
  heap.Number("direct_bytes", stats.direct_bytes);
  heap.Number("free_dirty_bytes", stats.free_dirty_bytes);
  heap.Number("free_block_bytes", stats.slab_free_bytes);
  heap.Number("cache_bytes", stats.cache_bytes);
  heap.Number("metadata_bytes", stats.metadata_bytes);
  heap.End();
}

void WritePools(const hak_stats& stats, TextSink& sink) {
  sink.Text("[");
  for (uint32_t i = 0; i < HAK_POOLS; ++i) {
    if (i != 0) sink.Text(",");
    const hak_pool_stats& from = stats.pools[i];
    Members pool(sink);
    pool.Text("name", kPoolNames[i]);
    pool.Number("cached", from.cached);
    pool.Number("alloc_misses", from.alloc_misses);
    pool.Number("free_misses", from.free_misses);
    pool.Number("refills", from.refills);
    pool.Number("flushes", from.flushes);
    pool.Number("blocks_loaded", from.blocks_loaded);
    pool.Number("blocks_unloaded", from.blocks_unloaded);
    pool.End();
  }
  sink.Text("]");
}

void WriteSite(uint32_t index, const SiteSums& sums, TextSink& sink) {
  const ObservedSite& record = SiteTable::Record(index);
  Members site(sink);
  site.Text("kind", kKinds[static_cast<uint32_t>(KindOf(record))]);
  site.Name("id").Text("\"").Hex(record.id).Text("\"");
  site.Text("file", SiteTable::Name(record.file));
  site.Number("line", record.line);
  site.Number("offset", record.module_offset);
  site.Text("label", SiteTable::Name(record.label));
  site.Number("live_blocks", sums.live_blocks());
  site.Number("live_bytes", sums.live_bytes());
  site.Number("peak_bytes", PeakOf(record, sums));
  site.Number("total_blocks", sums.allocs);
  site.Number("total_bytes", sums.alloc_bytes);
  site.Name("sizes");
  Members sizes(sink);
  for (uint32_t i = 0; i < kSizeBuckets; ++i) {
    if (sums.sizes[i] == 0) continue;
    char digits[20];
    TextSink name(digits, sizeof(digits));
    name.Number(uint64_t{1} << i);
    sizes.Number({digits, name.size()}, sums.sizes[i]);
  }
  sizes.End();
  site.Name("ages").Text("[");
  for (uint32_t i = 0; i < kAgeBuckets; ++i) {
    sink.Text(i != 0 ? "," : "").Number(sums.ages[i]);
  }
  sink.Text("]");
  site.End();
}

// Where a site is, for people and for who turns addresses into lines.
void WritePlace(uint32_t index, TextSink& sink) {
  const ObservedSite& record = SiteTable::Record(index);
  const std::string_view file = SiteTable::Name(record.file);
  const std::string_view label = SiteTable::Name(record.label);
  switch (KindOf(record)) {
    case SiteKind::kOther:
      sink.Text("other sites");
      break;
    case SiteKind::kCaller:
      if (file.empty()) {
        sink.Hex(record.id);
      } else {
        sink.Text(file).Text("+").Hex(record.module_offset);
      }
      break;
    case SiteKind::kPlace:
    case SiteKind::kScope:
      if (file.empty() && !label.empty()) {
        sink.Text(label);
        return;
      }
      sink.Text(file).Text(":").Number(record.line);
      break;
    default:
      sink.Text("site ").Number(record.id);
      break;
  }
  if (!label.empty()) sink.Text(" (").Text(label).Text(")");
}

}  // namespace

void TextSink::Flush() {
  if (fd_ < 0) return;
  WriteText(fd_, buffer_, waiting_);
  waiting_ = 0;
}

void TextSink::Put(char c) {
  if (fd_ < 0) {
    if (size_ < room_) out_[size_] = c;
  } else {
    if (waiting_ == sizeof(buffer_)) Flush();
    buffer_[waiting_++] = c;
  }
  ++size_;
}

TextSink& TextSink::Quoted(std::string_view text) {
  Put('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      Put('\\');
      Put(c);
    } else if (byte < 0x20) {
      Text("\\u00");
      Put("0123456789abcdef"[byte >> 4]);
      Put("0123456789abcdef"[byte & 15]);
    } else {
      Put(c);
    }
  }
  Put('"');
  return *this;
}

bool WriteJson(TextSink& sink) {
  const SiteSnapshot snapshot;
  if (!snapshot.ok()) return false;
  hak_stats stats;
  // What is resident it does not say: to ask takes time, and a system call that
  // not every sandbox allows.
  hak_stats_get(&stats, offsetof(hak_stats, slab_resident_bytes));
  Members all(sink);
  all.Number("version", 1);
  all.Number("process", static_cast<uint64_t>(getpid()));
  all.Text("stage", heap::StageName());
  all.Name("heap");
  WriteHeap(stats, sink);
  all.Name("pools");
  WritePools(stats, sink);
  all.Name("sites").Text("[");
  bool first = true;
  for (uint32_t site = 0; site < snapshot.sites(); ++site) {
    const SiteSums sums = snapshot.SumsOf(site);
    if (sums.allocs == 0) continue;
    sink.Text(first ? "\n" : ",\n");
    first = false;
    WriteSite(site, sums, sink);
  }
  sink.Text("]");
  all.End();
  sink.Text("\n");
  return true;
}

void WriteLeaks(TextSink& sink) {
  const SiteSnapshot snapshot;
  struct Leak {
    uint64_t bytes;
    uint64_t blocks;
    uint32_t site;
  };
  const size_t bytes = (std::max<size_t>(snapshot.sites(), 1) * sizeof(Leak) +
                        os::kPageSize - 1) &
                       ~(os::kPageSize - 1);
  auto* const leaks = static_cast<Leak*>(os::Map(bytes, os::kPageSize));
  if (leaks == nullptr || !snapshot.ok()) {
    sink.Text("hakmem: leaks: no memory left to find them\n");
    if (leaks != nullptr) os::Unmap(leaks, bytes);
    return;
  }
  size_t count = 0;
  Leak all = {0, 0, 0};
  for (uint32_t site = 0; site < snapshot.sites(); ++site) {
    // Samples of blocks are no blocks.
    if (KindOf(SiteTable::Record(site)) == SiteKind::kStack) continue;
    const SiteSums sums = snapshot.SumsOf(site);
    if (sums.live_blocks() == 0) continue;
    leaks[count++] = {sums.live_bytes(), sums.live_blocks(), site};
    all.bytes += sums.live_bytes();
    all.blocks += sums.live_blocks();
  }
  std::sort(leaks, leaks + count, [](const Leak& a, const Leak& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.site < b.site;
  });
  for (size_t i = 0; i < count; ++i) {
    sink.Text("hakmem: leak: ").Number(leaks[i].bytes).Text(" bytes in ");
    sink.Number(leaks[i].blocks).Text(" blocks, ");
    WritePlace(leaks[i].site, sink);
    sink.Text("\n");
  }
  sink.Text("hakmem: leaks: ").Number(all.bytes).Text(" bytes in ");
  sink.Number(all.blocks).Text(" blocks of ").Number(count);
  sink.Text(" sites, process ");
  sink.Number(static_cast<uint64_t>(getpid())).Text("\n");
  os::Unmap(leaks, bytes);
}

namespace {

// Opens what a report goes to; -1 when that fails, which the user is told.
int OpenReport(uint64_t where, const OptionPath& path) {
  if (where == kReportToStderr) return STDERR_FILENO;
  if (getauxval(AT_SECURE) != 0) {
    Warn("a program that gains rights does not write to", path.text,
         "no report is written");
    return -1;
  }
  const OutputPath name(path.text);
  const int fd =
      open(name.text(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) Warn("cannot open", name.text(), "no report is written");
  return fd;
}

template <typename Fn>
void Report(uint64_t where, const OptionPath& path, Fn write_to) {
  if (where == kReportNone) return;
  const ErrnoKeeper keeper;
  const int fd = OpenReport(where, path);
  if (fd < 0) return;
  {
    TextSink sink(fd);
    write_to(sink);
  }
  if (where == kReportToFile) close(fd);
}

void AtExit(void*) {
  const Options& options = arena.options();
  Report(options.leaks, options.leaks_path, &WriteLeaks);
  Report(options.stats, options.stats_path,
         [](TextSink& sink) { WriteJson(sink); });
}

}  // namespace

void ReportAtExit() {
  arena.EnsureOptions();
  const Options& options = arena.options();
  if (options.leaks == kReportNone && options.stats == kReportNone) return;
  // Of no library: so it comes after the destructors of all of them.
  if (__cxa_atexit(&AtExit, nullptr, nullptr) != 0) {
    Warn("cannot arrange for a report", "at exit", "there will be none");
  }
}

}  // namespace hakmem
