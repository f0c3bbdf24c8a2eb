// Shows tables of hakmem's to whoever looks from outside, without being an
// allocator: what is in them is what a test writes to stdin, a command a line,
// each of which is answered with "ok". Numbers are decimal.
//
//     site KIND ID LINE FILE LABEL  the next site, from 0; "-" for no text
//     caller MODULE OFFSET          the next site, of kind 3
//     stack                         the next site: malloc called by
//     FakeTargetMain() alloc SITE SIZE COUNT         blocks come free SITE SIZE
//     COUNT AGE      blocks go, of that bucket of ages heap FIELD BYTES slab,
//     large, direct, dirty, metadata,
//                                   cached or partial
//     set FIELD VALUE               magic, version, or count of sites
//     exec                          becomes `sleep 60`
//     exit                          ends
//
// A file or label may contain blanks, written as '~'.

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>

#include "hakmem/core/observed.h"

hakmem::Observed hak_observed = {};

namespace {

constexpr size_t kSites = 4096;
constexpr size_t kCells = 4 * kSites;
constexpr size_t kNameBytes = size_t{1} << 20;
constexpr size_t kFrames = 64;

hakmem::ObservedSite sites[kSites];
hakmem::ObservedCell cells[kCells];
hakmem::ObservedClass slab_class;
char names[kNameBytes];
uint64_t frames[kFrames];

uint64_t main_address;

void SetRegion(hakmem::ObservedRegion& region, const void* address,
               uint64_t capacity, uint32_t element_bytes) {
  region.address = reinterpret_cast<uint64_t>(address);
  region.capacity = capacity;
  region.element_bytes = element_bytes;
}

void SetUp() {
  hak_observed.version = hakmem::kObservedVersion;
  hak_observed.bytes = sizeof(hak_observed);
  hak_observed.tick_milliseconds = hakmem::kTickMilliseconds;
  hak_observed.age_buckets = hakmem::kAgeBuckets;
  std::strcpy(hak_observed.stage, "fake");
  SetRegion(hak_observed.sites, sites, kSites, sizeof(sites[0]));
  SetRegion(hak_observed.cells, cells, kCells, sizeof(cells[0]));
  SetRegion(hak_observed.names, names, kNameBytes, 1);
  SetRegion(hak_observed.frames, frames, kFrames, sizeof(frames[0]));
  hak_observed.names.count = 1;
  hak_observed.magic = hakmem::kObservedMagic;
}

uint64_t AddName(std::string name) {
  if (name == "-") return 0;
  std::replace(name.begin(), name.end(), '~', ' ');
  const uint64_t at = hak_observed.names.count;
  if (at + name.size() + 1 > kNameBytes) std::abort();
  std::memcpy(names + at, name.c_str(), name.size() + 1);
  hak_observed.names.count = at + name.size() + 1;
  return at;
}

hakmem::ObservedSite& AddSite(hakmem::SiteKind kind) {
  const uint64_t index = hak_observed.sites.count;
  if (index == kSites) std::abort();
  sites[index].kind = kind;
  return sites[index];
}

hakmem::ObservedCell& Cell(uint32_t site, uint32_t size) {
  const uint64_t count = hak_observed.cells.count;
  for (uint64_t i = 0; i < count; ++i) {
    if (cells[i].site == site && cells[i].block_bytes == size) return cells[i];
  }
  if (count == kCells) std::abort();
  cells[count].site = site;
  cells[count].size_class = 1;
  cells[count].block_bytes = size;
  hak_observed.cells.count = count + 1;
  return cells[count];
}

void AddLive(uint32_t site, int64_t bytes) {
  const int64_t live = sites[site].live_bytes += bytes;
  sites[site].peak_bytes = std::max<int64_t>(sites[site].peak_bytes, live);
}

// To the first part of the arena a quarter, to the last the rest.
void Spread(std::atomic<uint64_t> hakmem::ObservedPart::*figure,
            uint64_t bytes) {
  hak_observed.parts[0].*figure = bytes / 4;
  hak_observed.parts[hakmem::kObservedParts - 1].*figure = bytes - bytes / 4;
}

bool SetHeap(const std::string& field, uint64_t bytes) {
  if (field == "slab") {
    Spread(&hakmem::ObservedPart::slab_bytes, bytes);
  } else if (field == "large") {
    Spread(&hakmem::ObservedPart::large_bytes, bytes);
  } else if (field == "direct") {
    hak_observed.direct_bytes = bytes;
  } else if (field == "dirty") {
    Spread(&hakmem::ObservedPart::free_dirty_bytes, bytes);
  } else if (field == "metadata") {
    Spread(&hakmem::ObservedPart::metadata_bytes, bytes);
  } else if (field == "cached") {
    hak_observed.cached_bytes = static_cast<int64_t>(bytes);
  } else if (field == "partial") {
    // One block is in use.
    slab_class.block_bytes = 1;
    slab_class.slab_blocks = static_cast<uint32_t>(bytes) + 1;
    slab_class.slabs = 1;
    slab_class.taken = 1;
    SetRegion(hak_observed.classes[0], &slab_class, 1, sizeof(slab_class));
    hak_observed.classes[0].count = 1;
  } else {
    return false;
  }
  return true;
}

bool Obey(const std::string& command, std::istream& words) {
  std::string text;
  std::string label;
  uint64_t number = 0;
  uint64_t count = 0;
  uint32_t site = 0;
  uint32_t size = 0;
  uint32_t age = 0;
  if (command == "site") {
    uint32_t kind = 0;
    if (!(words >> kind >> number >> size >> text >> label)) return false;
    hakmem::ObservedSite& added = AddSite(static_cast<hakmem::SiteKind>(kind));
    added.id = number;
    added.line = size;
    added.file = AddName(text);
    added.label = AddName(label);
    ++hak_observed.sites.count;
  } else if (command == "caller") {
    if (!(words >> text >> number)) return false;
    hakmem::ObservedSite& added = AddSite(hakmem::SiteKind::kCaller);
    added.id = number;
    added.file = AddName(text);
    added.module_offset = number;
    ++hak_observed.sites.count;
  } else if (command == "stack") {
    hakmem::ObservedSite& added = AddSite(hakmem::SiteKind::kStack);
    added.frames = hak_observed.frames.count;
    added.frame_count = 2;
    if (added.frames + 2 > kFrames) std::abort();
    // As return addresses, behind the first instruction of each.
    frames[added.frames] = reinterpret_cast<uint64_t>(&std::malloc) + 1;
    frames[added.frames + 1] = main_address + 1;
    hak_observed.frames.count += 2;
    ++hak_observed.sites.count;
  } else if (command == "alloc") {
    if (!(words >> site >> size >> count) || site >= kSites) return false;
    Cell(site, size).allocs += count;
    AddLive(site, static_cast<int64_t>(size * count));
  } else if (command == "free") {
    if (!(words >> site >> size >> count >> age) || site >= kSites ||
        age >= hakmem::kAgeBuckets) {
      return false;
    }
    Cell(site, size).frees += count;
    sites[site].ages[age] += count;
    AddLive(site, -static_cast<int64_t>(size * count));
  } else if (command == "heap") {
    return words >> text >> number && SetHeap(text, number);
  } else if (command == "set") {
    if (!(words >> text >> number)) return false;
    if (text == "magic") hak_observed.magic = number;
    if (text == "version") hak_observed.version = static_cast<uint32_t>(number);
    if (text == "count") hak_observed.sites.count = number;
  } else if (command == "exec") {
    execlp("sleep", "sleep", "60", nullptr);
    return false;
  } else {
    return false;
  }
  return true;
}

}  // namespace

// Not main() itself, whose address C++ does not give.
extern "C" __attribute__((noinline)) int FakeTargetMain() {
  main_address = reinterpret_cast<uint64_t>(&FakeTargetMain);
  SetUp();
  std::cout << "ok" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "exit") return 0;
    std::istringstream words(line);
    std::string command;
    words >> command;
    std::cout << (Obey(command, words) ? "ok" : "no such command") << std::endl;
  }
  return 0;
}

int main() { return FakeTargetMain(); }
