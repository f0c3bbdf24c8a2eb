// What the tools know about a heap at one moment, whether they read it from a
// running process or from a recording.

#ifndef TOOLS_HAKMEM_SNAPSHOT_H_
#define TOOLS_HAKMEM_SNAPSHOT_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace hakmem::tools {

// Bytes, of the whole heap.
struct HeapFigures {
  uint64_t live = 0;      // blocks that the program holds
  uint64_t cached = 0;    // thread caches and depots
  uint64_t partial = 0;   // free blocks between live ones, in slabs
  uint64_t free = 0;      // free runs that the system backs still
  uint64_t metadata = 0;  // hakmem's own tables

  bool operator==(const HeapFigures&) const = default;
};

// What makes a site, which never changes.
struct SiteName {
  std::string kind;   // "place", "id", "caller", "scope", "stack" or "other"
  uint64_t id = 0;    // what the program gave, or an address of its code
  std::string label;  // may be empty, as all below
  std::string file;
  uint64_t line = 0;
  std::string function;
  std::string module;    // of an address: the file it lies in,
  uint64_t offset = 0;   // where in that file,
  std::string build_id;  // and which build of it that is

  bool operator==(const SiteName&) const = default;
};

// Blocks of one size.
struct SizeFigures {
  uint64_t allocs = 0;
  uint64_t frees = 0;

  bool operator==(const SizeFigures&) const = default;
};

struct SiteFigures {
  uint64_t live_bytes = 0;
  uint64_t live_blocks = 0;
  uint64_t peak_bytes = 0;
  uint64_t allocs = 0;  // since the program began
  uint64_t alloc_bytes = 0;
  std::map<uint64_t, SizeFigures> sizes;  // by the bytes of a block
  std::vector<uint64_t> ages;  // blocks that were freed, by how old they were

  bool operator==(const SiteFigures&) const = default;
};

// Sites are known by the number under which the library keeps them.
using SiteNumber = uint32_t;

struct Snapshot {
  uint64_t rss = 0;
  HeapFigures heap;
  std::map<SiteNumber, SiteFigures> sites;
};

// A function's name at a length that people read: without its return type, and
// without the arguments of templates where it is long.
std::string ShortFunction(const std::string& function);

// What people call a site: its label, or where it stands in the sources, or
// whatever else is known. Never empty; printable if `name` is.
std::string SiteTitle(const SiteName& name);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_SNAPSHOT_H_
