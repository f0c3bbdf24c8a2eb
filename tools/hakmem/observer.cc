#include "tools/hakmem/observer.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "hakmem/core/observed.h"
#include "tools/hakmem/elf_file.h"

namespace hakmem::tools {
namespace {

constexpr char kSymbol[] = "hak_observed";

// More than any table of ours holds or element of ours takes: what exceeds it
// is damaged.
constexpr uint64_t kMostElements = uint64_t{1} << 28;
constexpr size_t kMostElementBytes = 4096;

// A field of a structure that was copied as bytes. (The structures hold
// atomics, which are not to be copied as they are.)
template <typename T>
T Field(const char* structure, size_t offset) {
  T value;
  std::memcpy(&value, structure + offset, sizeof(value));
  return value;
}

uint64_t NotNegative(int64_t value) {
  return static_cast<uint64_t>(std::max<int64_t>(value, 0));
}

const char* KindName(uint32_t kind) {
  switch (static_cast<SiteKind>(kind)) {
    case SiteKind::kOther:
      return "other";
    case SiteKind::kPlace:
      return "place";
    case SiteKind::kNumber:
      return "id";
    case SiteKind::kCaller:
      return "caller";
    case SiteKind::kScope:
      return "scope";
    case SiteKind::kStack:
      return "stack";
  }
  return "site";
}

// Libraries whose calls of malloc say nothing about the program.
bool IsOfEveryProgram(absl::string_view module) {
  const absl::string_view name = module.substr(module.rfind('/') + 1);
  for (const absl::string_view library :
       {"libhakmem.so", "libc.so", "libstdc++.so", "libc++.so", "ld-linux"}) {
    if (absl::StartsWith(name, library)) return true;
  }
  return false;
}

// The process's files in the order in which to look for the symbol: the program
// itself, whose malloc comes before that of any library, then libraries of our
// name, then all others.
std::vector<Mapping> Candidates(const std::vector<Mapping>& mappings) {
  std::vector<Mapping> firsts;
  std::set<std::pair<std::string, uint64_t>> seen;
  for (const Mapping& mapping : mappings) {
    if (seen.emplace(mapping.device, mapping.inode).second) {
      firsts.push_back(mapping);
    }
  }
  // What has no code is no library.
  std::set<std::pair<std::string, uint64_t>> programs;
  for (const Mapping& mapping : mappings) {
    if (mapping.executable) programs.emplace(mapping.device, mapping.inode);
  }
  // By address the program comes first, and the libraries after it.
  std::vector<Mapping> candidates;
  for (const bool ours : {true, false}) {
    for (size_t i = 0; i < firsts.size(); ++i) {
      const Mapping& mapping = firsts[i];
      if (!programs.contains({mapping.device, mapping.inode})) continue;
      const bool first = i == 0 || absl::StrContains(mapping.path, "hakmem");
      if (first == ours) candidates.push_back(mapping);
    }
  }
  return candidates;
}

}  // namespace

template <typename T>
T Observer::HeaderField(size_t offset) const {
  return Field<T>(header_.data(), offset);
}

absl::StatusOr<Observer> Observer::Attach(const Process& process) {
  absl::StatusOr<std::vector<Mapping>> mappings = process.Mappings();
  if (!mappings.ok()) return mappings.status();
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat("process ", process.pid(), " (", process.CommandLine()[0],
                   ") does not run on hakmem"));
  for (const Mapping& mapping : Candidates(*mappings)) {
    const ElfFile file(process.FileOf(mapping));
    const std::optional<uint64_t> symbol = file.FindSymbol(kSymbol);
    const std::optional<uint64_t> bias =
        file.Bias(mapping.offset, mapping.begin);
    if (!symbol.has_value() || !bias.has_value()) continue;
    Observer observer(process, *bias + *symbol);
    const absl::Status read = observer.ReadHeader();
    if (read.ok()) return observer;
    // The process may become another program just now.
    if (absl::IsFailedPrecondition(read) || absl::IsOutOfRange(read)) continue;
    status = read;
    break;
  }
  // That it has ended explains all else.
  if (process.HasEnded()) return process.EndedError();
  return status;
}

absl::Status Observer::ReadHeader() {
  header_.assign(sizeof(Observed), '\0');
  const size_t fixed = offsetof(Observed, sites);
  absl::Status status = process_.Read(address_, header_.data(), fixed);
  if (!status.ok()) return status;
  const auto magic = HeaderField<uint64_t>(offsetof(Observed, magic));
  if (magic == 0) {
    return absl::UnavailableError(absl::StrCat("process ", process_.pid(),
                                               " has not set up its heap yet"));
  }
  if (magic != kObservedMagic) {
    return absl::FailedPreconditionError(absl::StrCat(
        "process ", process_.pid(), " has something else in hakmem's place"));
  }
  const auto version = HeaderField<uint32_t>(offsetof(Observed, version));
  if (version != kObservedVersion) {
    return absl::UnimplementedError(absl::StrCat(
        "process ", process_.pid(), " runs on a hakmem whose tables are of ",
        "version ", version, ", and this command knows version ",
        kObservedVersion, ": use the command that came with that hakmem"));
  }
  const auto bytes = HeaderField<uint32_t>(offsetof(Observed, bytes));
  const auto buckets = HeaderField<uint32_t>(offsetof(Observed, age_buckets));
  const auto tick =
      HeaderField<uint32_t>(offsetof(Observed, tick_milliseconds));
  if (bytes < sizeof(Observed) || buckets == 0 || buckets > kAgeBuckets) {
    return absl::DataLossError(absl::StrCat("process ", process_.pid(),
                                            " has tables that make no sense"));
  }
  status = process_.Read(address_, header_.data(), sizeof(Observed));
  if (!status.ok()) return status;
  const char* const stage = header_.data() + offsetof(Observed, stage);
  stage_.assign(stage, strnlen(stage, sizeof(Observed::stage)));
  age_bounds_.clear();
  for (uint64_t bound = tick; age_bounds_.size() + 1 < buckets; bound *= 4) {
    age_bounds_.push_back(bound);
  }
  return absl::OkStatus();
}

absl::StatusOr<Observer::Region> Observer::ReadRegion(
    size_t offset, size_t least_bytes) const {
  Region region;
  region.address =
      HeaderField<uint64_t>(offset + offsetof(ObservedRegion, address));
  if (region.address == 0) return region;
  region.count =
      HeaderField<uint64_t>(offset + offsetof(ObservedRegion, count));
  region.element_bytes =
      HeaderField<uint32_t>(offset + offsetof(ObservedRegion, element_bytes));
  const auto capacity =
      HeaderField<uint64_t>(offset + offsetof(ObservedRegion, capacity));
  if (region.count > capacity || region.count > kMostElements ||
      region.element_bytes < least_bytes ||
      region.element_bytes > kMostElementBytes) {
    return absl::DataLossError(absl::StrCat("process ", process_.pid(),
                                            " has tables that make no sense"));
  }
  return region;
}

absl::StatusOr<std::string> Observer::ReadElements(const Region& region,
                                                   uint64_t first) const {
  std::string elements;
  if (region.count <= first) return elements;
  elements.resize((region.count - first) * region.element_bytes);
  const absl::Status status =
      process_.Read(region.address + first * region.element_bytes,
                    elements.data(), elements.size());
  if (!status.ok()) return status;
  return elements;
}

absl::StatusOr<uint64_t> Observer::ReadFreeBlocks(size_t offset) const {
  const absl::StatusOr<Region> region =
      ReadRegion(offset, sizeof(ObservedClass));
  if (!region.ok()) return region.status();
  const absl::StatusOr<std::string> classes = ReadElements(*region, 0);
  if (!classes.ok()) return classes.status();
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < region->count; ++i) {
    const char* const counts = classes->data() + i * region->element_bytes;
    const auto slabs = Field<uint64_t>(counts, offsetof(ObservedClass, slabs));
    const uint64_t blocks =
        slabs * Field<uint32_t>(counts, offsetof(ObservedClass, slab_blocks));
    const auto taken = Field<uint64_t>(counts, offsetof(ObservedClass, taken));
    // The two need not be of one instant.
    bytes += NotNegative(static_cast<int64_t>(blocks - taken)) *
             Field<uint32_t>(counts, offsetof(ObservedClass, block_bytes));
  }
  return bytes;
}

absl::Status Observer::ReadTexts() {
  const absl::StatusOr<Region> region =
      ReadRegion(offsetof(Observed, names), 1);
  if (!region.ok()) return region.status();
  const absl::StatusOr<std::string> more = ReadElements(*region, texts_.size());
  if (!more.ok()) return more.status();
  texts_ += *more;
  return absl::OkStatus();
}

std::string Observer::Text(uint64_t offset) const {
  if (offset == 0 || offset >= texts_.size()) return "";
  return texts_.substr(offset, texts_.find('\0', offset) - offset);
}

const std::string& Observer::BuildId(const std::string& module) {
  const auto [place, is_new] = build_ids_.try_emplace(module);
  if (is_new) place->second = ElfFile(process_.PathOutside(module)).BuildId();
  return place->second;
}

absl::Status Observer::SetModule(uint64_t address, SiteName* name) {
  name->module.clear();
  const auto find = [this, address]() -> const Mapping* {
    for (const Mapping& mapping : mappings_) {
      if (address >= mapping.begin && address < mapping.end) return &mapping;
    }
    return nullptr;
  };
  const Mapping* mapping = find();
  if (mapping == nullptr) {
    absl::StatusOr<std::vector<Mapping>> mappings = process_.Mappings();
    if (!mappings.ok()) return mappings.status();
    mappings_ = *std::move(mappings);
    mapping = find();
  }
  // Code that is of no file, or of a library that is gone.
  if (mapping == nullptr) return absl::OkStatus();
  const ElfFile file(process_.FileOf(*mapping));
  const std::optional<uint64_t> bias =
      file.Bias(mapping->offset, mapping->begin);
  if (!bias.has_value()) return absl::OkStatus();
  name->module = mapping->path;
  name->offset = address - *bias;
  return absl::OkStatus();
}

absl::Status Observer::NameStack(uint64_t first, uint32_t count,
                                 SiteName* name) {
  absl::StatusOr<Region> region =
      ReadRegion(offsetof(Observed, frames), sizeof(uint64_t));
  if (!region.ok()) return region.status();
  if (first > region->count || count > region->count - first) {
    return absl::OkStatus();
  }
  region->count = first + count;
  const absl::StatusOr<std::string> frames = ReadElements(*region, first);
  if (!frames.ok()) return frames.status();
  for (uint32_t i = 0; i < count; ++i) {
    const auto address =
        Field<uint64_t>(frames->data(), i * region->element_bytes);
    const absl::Status status = SetModule(address, name);
    if (!status.ok()) return status;
    if (!name->module.empty() && !IsOfEveryProgram(name->module)) break;
  }
  if (!name->module.empty()) name->build_id = BuildId(name->module);
  return absl::OkStatus();
}

absl::Status Observer::NameSites(const Region& region,
                                 const std::string& sites) {
  for (uint64_t i = 0; i < region.count; ++i) {
    const auto number = static_cast<SiteNumber>(i);
    if (names_.contains(number)) continue;
    const char* const site = sites.data() + i * region.element_bytes;
    SiteName name;
    const auto kind = Field<uint32_t>(site, offsetof(ObservedSite, kind));
    name.kind = KindName(kind);
    name.id = Field<uint64_t>(site, offsetof(ObservedSite, id));
    name.label = Text(Field<uint64_t>(site, offsetof(ObservedSite, label)));
    const std::string file =
        Text(Field<uint64_t>(site, offsetof(ObservedSite, file)));
    if (static_cast<SiteKind>(kind) == SiteKind::kCaller) {
      name.module = file;
      name.offset =
          Field<uint64_t>(site, offsetof(ObservedSite, module_offset));
      if (!file.empty()) name.build_id = BuildId(file);
    } else if (static_cast<SiteKind>(kind) == SiteKind::kStack) {
      const absl::Status status = NameStack(
          Field<uint64_t>(site, offsetof(ObservedSite, frames)),
          Field<uint32_t>(site, offsetof(ObservedSite, frame_count)), &name);
      if (!status.ok()) return status;
    } else {
      name.file = file;
      name.line = Field<uint32_t>(site, offsetof(ObservedSite, line));
    }
    names_[number] = std::move(name);
  }
  return absl::OkStatus();
}

absl::StatusOr<Snapshot> Observer::Read() {
  absl::StatusOr<Snapshot> snapshot = ReadTables();
  // Tables that are there do not go, but for another program coming.
  if (absl::IsOutOfRange(snapshot.status())) {
    return absl::FailedPreconditionError(snapshot.status().message());
  }
  return snapshot;
}

absl::StatusOr<Snapshot> Observer::ReadTables() {
  absl::Status status = ReadHeader();
  if (!status.ok()) return status;
  const absl::StatusOr<Region> site_region =
      ReadRegion(offsetof(Observed, sites), sizeof(ObservedSite));
  if (!site_region.ok()) return site_region.status();
  const absl::StatusOr<Region> cell_region =
      ReadRegion(offsetof(Observed, cells), sizeof(ObservedCell));
  if (!cell_region.ok()) return cell_region.status();
  const absl::StatusOr<std::string> sites = ReadElements(*site_region, 0);
  if (!sites.ok()) return sites.status();
  const absl::StatusOr<std::string> cells = ReadElements(*cell_region, 0);
  if (!cells.ok()) return cells.status();
  status = ReadTexts();
  if (status.ok()) status = NameSites(*site_region, *sites);
  if (!status.ok()) return status;

  Snapshot snapshot;
  const absl::StatusOr<uint64_t> rss = process_.ResidentBytes();
  if (!rss.ok()) return rss.status();
  snapshot.rss = *rss;
  HeapFigures& heap = snapshot.heap;
  heap.cached =
      NotNegative(HeaderField<int64_t>(offsetof(Observed, cached_bytes)));
  for (size_t i = 0; i < std::size(Observed{}.classes); ++i) {
    const absl::StatusOr<uint64_t> partial = ReadFreeBlocks(
        offsetof(Observed, classes) + i * sizeof(ObservedRegion));
    if (!partial.ok()) return partial.status();
    heap.partial += *partial;
  }
  uint64_t held = HeaderField<uint64_t>(offsetof(Observed, direct_bytes));
  for (size_t i = 0; i < kObservedParts; ++i) {
    const auto figure = [this, i](size_t offset) {
      return HeaderField<uint64_t>(offsetof(Observed, parts) +
                                   i * sizeof(ObservedPart) + offset);
    };
    held += figure(offsetof(ObservedPart, slab_bytes)) +
            figure(offsetof(ObservedPart, large_bytes));
    heap.free += figure(offsetof(ObservedPart, free_dirty_bytes));
    heap.metadata += figure(offsetof(ObservedPart, metadata_bytes));
  }
  heap.live = held - std::min(held, heap.partial + heap.cached);

  for (uint64_t i = 0; i < cell_region->count; ++i) {
    const char* const cell = cells->data() + i * cell_region->element_bytes;
    const auto number = Field<uint32_t>(cell, offsetof(ObservedCell, site));
    // Of a site that came after its table was read.
    if (number >= site_region->count) continue;
    const auto allocs = Field<uint64_t>(cell, offsetof(ObservedCell, allocs));
    const auto frees = Field<uint64_t>(cell, offsetof(ObservedCell, frees));
    if (allocs == 0) continue;
    const auto alloc_bytes =
        Field<uint64_t>(cell, offsetof(ObservedCell, alloc_bytes));
    const auto free_bytes =
        Field<uint64_t>(cell, offsetof(ObservedCell, free_bytes));
    uint64_t size = Field<uint32_t>(cell, offsetof(ObservedCell, block_bytes));
    // A thread's frees may be there before another thread's allocations.
    const uint64_t blocks = NotNegative(static_cast<int64_t>(allocs - frees));
    SiteFigures& site = snapshot.sites[number];
    site.live_blocks += blocks;
    site.live_bytes +=
        blocks * size +
        NotNegative(static_cast<int64_t>(alloc_bytes - free_bytes));
    site.allocs += allocs;
    site.alloc_bytes += allocs * size + alloc_bytes;
    if (size == 0) {
      const auto size_class =
          Field<uint32_t>(cell, offsetof(ObservedCell, size_class));
      size =
          uint64_t{1} << (std::max(size_class, kLargeCells) - kLargeCells) % 64;
    }
    SizeFigures& figures = site.sizes[size];
    figures.allocs += allocs;
    figures.frees += std::min(frees, allocs);
  }
  uint64_t tracked = 0;
  for (auto& [number, figures] : snapshot.sites) {
    tracked += figures.live_bytes;
    const char* const site =
        sites->data() + number * site_region->element_bytes;
    // The peak is as of when the cells were added to last.
    figures.peak_bytes = std::max(
        figures.live_bytes,
        NotNegative(Field<int64_t>(site, offsetof(ObservedSite, peak_bytes))));
    for (size_t i = 0; i < age_bounds_.size() + 1; ++i) {
      figures.ages.push_back(Field<uint64_t>(
          site, offsetof(ObservedSite, ages) + i * sizeof(uint64_t)));
    }
  }
  // What caches have room for counts as cached, which is more than they hold.
  heap.live = std::max(heap.live, tracked);
  return snapshot;
}

}  // namespace hakmem::tools
