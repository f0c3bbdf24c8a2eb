#include "hakmem/core/site.h"

#include <algorithm>
#include <cstring>

#include "hakmem/core/module.h"
#include "hakmem/core/os.h"
#include "hakmem/core/report.h"

constinit hakmem::Observed hak_observed
    __attribute__((visibility("default"))){};

namespace hakmem {

constinit SiteTable site_table;

namespace {

// Most sites have blocks of one or two sizes.
constexpr uint64_t kMaxCells = 4 * uint64_t{kMaxSites};
constexpr uint64_t kMaxNameBytes = 16 << 20;
constexpr uint64_t kMaxFrames = 2 << 20;

// A record's address, divided by its size, has the site's index in its lowest
// bits.
constexpr size_t kAlignment = size_t{sizeof(ObservedSite)} << kSiteBits;

// Heads of the lists of sites that are looked up, by hash.
constexpr size_t kBuckets = 16384;

// The tables become accessible in steps of at least this.
constexpr size_t kCommitStep = 32 << 10;

// Large blocks have at least a page, and less than 2^47 bytes.
constexpr uint32_t kFirstLargeClass = kLargeCells + 12;
constexpr uint32_t kLastLargeClass = kLargeCells + 47;

// Murmur3's finaliser: every bit of the result depends on every bit of `x`.
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53;
  return x ^ (x >> 33);
}

uint64_t HashText(const char* text, uint64_t hash) {
  for (; *text != '\0'; ++text) {
    hash = (hash ^ static_cast<unsigned char>(*text)) * 0x100000001b3;
  }
  return Mix(hash);
}

uint64_t HashOf(SiteKind kind, uint64_t id) {
  return Mix(id + (static_cast<uint64_t>(kind) << 60));
}

// Of a site that is a stack.
const uint64_t* FramesOf(const ObservedSite& record) {
  return reinterpret_cast<const uint64_t*>(
             hak_observed.frames.address.load(std::memory_order_relaxed)) +
         record.frames;
}

constexpr size_t RegionBytes(uint64_t elements, size_t element_bytes) {
  return (elements * element_bytes + os::kPageSize - 1) & ~(os::kPageSize - 1);
}

}  // namespace

bool SiteTable::SetUp() {
  MutexLock lock(mu_);
  if (ready_.load(std::memory_order_relaxed)) return true;
  if (failed_) return false;
  if (!Reserve()) {
    failed_ = true;
    Warn("no room for the table of", "sites", "blocks are not tracked");
    return false;
  }
  ready_.store(true, std::memory_order_release);
  return true;
}

bool SiteTable::Reserve() {
  const size_t sites = RegionBytes(kMaxSites + 1, sizeof(ObservedSite));
  const size_t cells = RegionBytes(kMaxCells, sizeof(ObservedCell));
  const size_t names = RegionBytes(kMaxNameBytes, 1);
  const size_t frames = RegionBytes(kMaxFrames, sizeof(uint64_t));
  const size_t buckets = kBuckets * sizeof(*buckets_);
  const size_t total = sites + cells + names + frames + buckets;
  auto* const start = static_cast<char*>(os::Reserve(total, kAlignment));
  if (start == nullptr) return false;
  char* next = start;
  const auto carve = [&next](ObservedRegion& region, size_t bytes,
                             uint64_t capacity, uint32_t element_bytes) {
    region.capacity = capacity;
    region.element_bytes = element_bytes;
    region.address.store(reinterpret_cast<uintptr_t>(next),
                         std::memory_order_release);
    next += bytes;
  };
  carve(hak_observed.sites, sites, kMaxSites + 1, sizeof(ObservedSite));
  carve(hak_observed.cells, cells, kMaxCells, sizeof(ObservedCell));
  carve(hak_observed.names, names, kMaxNameBytes, 1);
  carve(hak_observed.frames, frames, kMaxFrames, sizeof(uint64_t));
  buckets_ = reinterpret_cast<std::atomic<uint32_t>*>(next);
  const uint64_t other_cells =
      kNumClasses - 1 + kLastLargeClass - kFirstLargeClass + 1;
  if (!os::Commit(next, buckets) ||
      !MakeRoom(hak_observed.sites, &sites_committed_, 1) ||
      !MakeRoom(hak_observed.cells, &cells_committed_, other_cells) ||
      !MakeRoom(hak_observed.names, &names_committed_, 1)) {
    for (ObservedRegion* const region :
         {&hak_observed.sites, &hak_observed.cells, &hak_observed.names,
          &hak_observed.frames}) {
      region->address.store(0, std::memory_order_relaxed);
    }
    os::Unmap(start, total);
    return false;
  }
  static_assert(kMaxCells <= uint64_t{1} << kCellBits);
  static_assert(kLastLargeClass < 1 << kCellSizeBits);
  HelgrindIgnore(buckets_, buckets);
  HelgrindIgnore(recent_cells_.data(), sizeof(recent_cells_));
  hak_observed.names.count.store(1, std::memory_order_release);
  Record(kOtherSite).id = IdOf(kOtherSite);
  hak_observed.sites.count.store(1, std::memory_order_release);
  for (uint32_t c = 1; c < kNumClasses; ++c) AddCell(kOtherSite, c);
  for (uint32_t c = kFirstLargeClass; c <= kLastLargeClass; ++c) {
    AddCell(kOtherSite, c);
  }
  return true;
}

// Makes room for `elements` more; false when the region is full or the system
// refuses.
bool SiteTable::MakeRoom(ObservedRegion& region, size_t* committed,
                         uint64_t elements) {
  const uint64_t count =
      region.count.load(std::memory_order_relaxed) + elements;
  if (count > region.capacity) return false;
  const size_t needed = count * region.element_bytes;
  if (needed <= *committed) return true;
  const size_t most = RegionBytes(region.capacity, region.element_bytes);
  const size_t step =
      std::max(kCommitStep, *committed / 4) & ~(os::kPageSize - 1);
  const size_t target =
      std::min(most, std::max(RegionBytes(needed, 1), *committed + step));
  char* const start =
      reinterpret_cast<char*>(region.address.load(std::memory_order_relaxed));
  if (!os::Commit(start + *committed, target - *committed)) return false;
  // All of it is atomics, or constant once others know of it.
  HelgrindIgnore(start + *committed, target - *committed);
  *committed = target;
  return true;
}

uint64_t SiteTable::AddName(std::string_view text) {
  if (text.empty()) return 0;
  ObservedRegion& names = hak_observed.names;
  if (!MakeRoom(names, &names_committed_, text.size() + 1)) return 0;
  const uint64_t offset = names.count.load(std::memory_order_relaxed);
  std::memcpy(const_cast<char*>(Name(offset)), text.data(), text.size());
  names.count.store(offset + text.size() + 1, std::memory_order_release);
  return offset;
}

uint64_t SiteTable::AddFile(std::string_view text) {
  for (const uint64_t offset : recent_files_) {
    if (offset != 0 && text == Name(offset)) return offset;
  }
  const uint64_t offset = AddName(text);
  recent_files_[next_recent_++ % kRecentFiles] = offset;
  return offset;
}

std::atomic<uint32_t>& SiteTable::BucketOf(uint64_t hash) const {
  return buckets_[hash % kBuckets];
}

// The site of that hash for which same(record) holds, or kNoSite.
template <typename Same>
uint32_t SiteTable::LookUp(uint64_t hash, Same same) const {
  uint32_t site = BucketOf(hash).load(std::memory_order_acquire);
  while (site != 0 && !same(Record(site))) site = Record(site).next;
  return site != 0 ? site : kNoSite;
}

uint32_t SiteTable::Add(SiteKind kind, uint64_t hash, const NewSite& site) {
  ObservedRegion& sites = hak_observed.sites;
  ObservedRegion& frames = hak_observed.frames;
  const auto length = [](const char* text) {
    return text != nullptr ? std::strlen(text) + 1 : 0;
  };
  if (!MakeRoom(sites, &sites_committed_, 1) ||
      !MakeRoom(hak_observed.names, &names_committed_,
                length(site.file) + length(site.label)) ||
      !MakeRoom(frames, &frames_committed_, site.frame_count)) {
    if (!warned_) {
      warned_ = true;
      Warn("the table of sites is full, beyond", "65536",
           "their blocks are counted under \"other\"");
    }
    hak_observed.untracked_sites.fetch_add(1, std::memory_order_relaxed);
    return kOtherSite;
  }
  const auto index =
      static_cast<uint32_t>(sites.count.load(std::memory_order_relaxed));
  ObservedSite& record = Record(index);
  record.id = kind == SiteKind::kPlace ? IdOf(index) : site.id;
  record.kind.store(kind, std::memory_order_relaxed);
  record.line = site.line;
  if (site.file != nullptr) record.file = AddFile(site.file);
  if (site.label != nullptr) record.label = AddName(site.label);
  record.module_offset = site.module_offset;
  if (site.frame_count != 0) {
    record.frames = frames.count.load(std::memory_order_relaxed);
    record.frame_count = site.frame_count;
    std::memcpy(reinterpret_cast<uint64_t*>(
                    frames.address.load(std::memory_order_relaxed)) +
                    record.frames,
                site.frames, site.frame_count * sizeof(uint64_t));
    frames.count.store(record.frames + site.frame_count,
                       std::memory_order_release);
  }
  std::atomic<uint32_t>& bucket = BucketOf(hash);
  record.next = bucket.load(std::memory_order_relaxed);
  sites.count.store(index + 1, std::memory_order_release);
  bucket.store(index, std::memory_order_release);
  return index;
}

uint32_t SiteTable::Place(const char* file, uint32_t line, const char* label) {
  if (!EnsureReady()) return kNoSite;
  if (file == nullptr) file = "";
  if (label == nullptr) label = "";
  const uint64_t hash = HashText(label, HashText(file, line));
  const auto same = [=](const ObservedSite& record) {
    const SiteKind kind = record.kind.load(std::memory_order_relaxed);
    return (kind == SiteKind::kPlace || kind == SiteKind::kScope) &&
           record.line == line && std::strcmp(Name(record.file), file) == 0 &&
           std::strcmp(Name(record.label), label) == 0;
  };
  uint32_t site = LookUp(hash, same);
  if (site != kNoSite) return site;
  MutexLock lock(mu_);
  site = LookUp(hash, same);
  if (site != kNoSite) return site;
  return Add(SiteKind::kPlace, hash,
             {.file = file, .line = line, .label = label});
}

uint32_t SiteTable::FindExisting(SiteKind kind, uint64_t id) const {
  if (!ready_.load(std::memory_order_acquire)) return kNoSite;
  return LookUp(HashOf(kind, id), [=](const ObservedSite& record) {
    return record.id == id &&
           record.kind.load(std::memory_order_relaxed) == kind;
  });
}

uint32_t SiteTable::Find(SiteKind kind, uint64_t id) {
  if (!EnsureReady()) return kNoSite;
  uint32_t site = FindExisting(kind, id);
  if (site != kNoSite) return site;
  NewSite made = {.id = id};
  char path[512];
  if (kind == SiteKind::kCaller) {
    const Module module =
        FindModule(reinterpret_cast<const void*>(id), path, sizeof(path));
    made.file = module.file;
    made.module_offset = module.offset;
  }
  MutexLock lock(mu_);
  site = FindExisting(kind, id);
  return site != kNoSite ? site : Add(kind, HashOf(kind, id), made);
}

uintptr_t SiteTable::StackCaller(uint32_t site) {
  return *FramesOf(Record(site));
}

uint32_t SiteTable::Stack(const uint64_t* frames, uint32_t frame_count,
                          uint64_t sampled_at) {
  if (!EnsureReady()) return kNoSite;
  uint64_t hash = Mix(sampled_at) + frame_count;
  for (uint32_t i = 0; i < frame_count; ++i) {
    hash = (std::rotl(hash, 31) ^ frames[i]) * 0x9e3779b97f4a7c15;
  }
  hash = Mix(hash);
  const auto same = [=](const ObservedSite& record) {
    return record.kind.load(std::memory_order_relaxed) == SiteKind::kStack &&
           record.frame_count == frame_count &&
           record.module_offset == sampled_at &&
           std::equal(frames, frames + frame_count, FramesOf(record));
  };
  uint32_t site = LookUp(hash, same);
  if (site != kNoSite) return site;
  MutexLock lock(mu_);
  site = LookUp(hash, same);
  if (site != kNoSite) return site;
  return Add(SiteKind::kStack, hash,
             {.id = hash,
              .module_offset = sampled_at,
              .frames = frames,
              .frame_count = frame_count});
}

// Puts a cell in front of its site's; the number of cells when there is no
// room.
uint32_t SiteTable::AddCell(uint32_t site, uint32_t size_class) {
  ObservedRegion& cells = hak_observed.cells;
  const auto index =
      static_cast<uint32_t>(cells.count.load(std::memory_order_relaxed));
  if (!MakeRoom(cells, &cells_committed_, 1)) return index;
  ObservedSite& record = Record(site);
  ObservedCell& cell = Cell(index);
  cell.site = site;
  cell.next = record.first_cell.load(std::memory_order_relaxed);
  cell.size_class = size_class;
  cell.block_bytes = size_class < kNumClasses
                         ? static_cast<uint32_t>(ClassSize(size_class))
                         : 0;
  cells.count.store(index + 1, std::memory_order_release);
  record.first_cell.store(index + 1, std::memory_order_release);
  return index;
}

uint32_t SiteTable::CellOf(uint32_t* site, uint32_t size_class) {
  const uint64_t key = uint64_t{*site} << kCellSizeBits | size_class;
  std::atomic<uint64_t>& recent =
      recent_cells_[(*site * 61 + size_class) % kRecentCells];
  const uint64_t word = recent.load(std::memory_order_acquire);
  if (word >> kCellBits == key) {
    return static_cast<uint32_t>(word) & ((1u << kCellBits) - 1);
  }
  const uint32_t cell = ListedCellOf(site, size_class);
  // Not where the site has no cell, and another one's is used.
  if (*site == key >> kCellSizeBits) {
    recent.store(key << kCellBits | cell, std::memory_order_release);
  }
  return cell;
}

uint32_t SiteTable::ListedCellOf(uint32_t* site, uint32_t size_class) {
  const auto look_up = [=](uint32_t of) {
    uint32_t cell = Record(of).first_cell.load(std::memory_order_acquire);
    while (cell != 0 && Cell(cell - 1).size_class != size_class) {
      cell = Cell(cell - 1).next;
    }
    return cell;
  };
  uint32_t cell = look_up(*site);
  if (cell != 0) return cell - 1;
  {
    MutexLock lock(mu_);
    cell = look_up(*site);
    if (cell != 0) return cell - 1;
    const uint32_t added = AddCell(*site, size_class);
    if (added < hak_observed.cells.count.load(std::memory_order_relaxed)) {
      return added;
    }
  }
  *site = kOtherSite;
  return look_up(kOtherSite) - 1;
}

size_t SiteTable::used_bytes() const {
  if (!ready_.load(std::memory_order_acquire)) return 0;
  size_t bytes = kBuckets * sizeof(*buckets_);
  for (const ObservedRegion* const region :
       {&hak_observed.sites, &hak_observed.cells, &hak_observed.names,
        &hak_observed.frames}) {
    bytes +=
        region->count.load(std::memory_order_relaxed) * region->element_bytes;
  }
  return bytes;
}

template <typename Fn>
void SiteTable::ForEachTable(Fn fn) {
  MutexLock lock(mu_);
  if (!ready_.load(std::memory_order_relaxed)) return;
  const auto table = [&fn](const ObservedRegion& region, size_t committed) {
    fn(reinterpret_cast<const void*>(
           region.address.load(std::memory_order_relaxed)),
       committed);
  };
  table(hak_observed.sites, sites_committed_);
  table(hak_observed.cells, cells_committed_);
  table(hak_observed.names, names_committed_);
  table(hak_observed.frames, frames_committed_);
  fn(static_cast<const void*>(buckets_), kBuckets * sizeof(*buckets_));
}

size_t SiteTable::accessible_bytes() {
  size_t sum = 0;
  ForEachTable([&sum](const void*, size_t bytes) { sum += bytes; });
  return sum;
}

size_t SiteTable::resident_bytes() {
  size_t sum = 0;
  ForEachTable([&sum](const void* start, size_t bytes) {
    sum += os::ResidentBytes(start, bytes);
  });
  return sum;
}

namespace {

void AddLive(ObservedSite& record, int64_t bytes) {
  const int64_t live =
      record.live_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t peak = record.peak_bytes.load(std::memory_order_relaxed);
  while (live > peak && !record.peak_bytes.compare_exchange_weak(
                            peak, live, std::memory_order_relaxed)) {
  }
}

}  // namespace

void AddToCell(ObservedCell& cell, uint64_t allocs, uint64_t frees) {
  if (allocs != 0) cell.allocs.fetch_add(allocs, std::memory_order_relaxed);
  if (frees != 0) cell.frees.fetch_add(frees, std::memory_order_relaxed);
  if (allocs == frees) return;
  AddLive(SiteTable::Record(cell.site),
          static_cast<int64_t>(allocs - frees) *
              static_cast<int64_t>(cell.block_bytes));
}

void AddLargeAlloc(ObservedCell& cell, uint64_t bytes) {
  cell.allocs.fetch_add(1, std::memory_order_relaxed);
  cell.alloc_bytes.fetch_add(bytes, std::memory_order_relaxed);
  AddLive(SiteTable::Record(cell.site), static_cast<int64_t>(bytes));
}

void AddLargeFree(ObservedCell& cell, uint64_t bytes) {
  cell.frees.fetch_add(1, std::memory_order_relaxed);
  cell.free_bytes.fetch_add(bytes, std::memory_order_relaxed);
  AddLive(SiteTable::Record(cell.site), -static_cast<int64_t>(bytes));
}

void AddAge(Tag tag) {
  if (!HasBirth(tag)) return;
  SiteTable::Record(SiteOf(tag))
      .ages[AgeBucket(tag, tag_clock.now())]
      .fetch_add(1, std::memory_order_relaxed);
}

}  // namespace hakmem
