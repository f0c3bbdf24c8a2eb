// What hakmem shows to whoever looks from outside: the layout of the tables
// that a tool reads in another process, which goes on meanwhile and is neither
// stopped nor asked. The library exports the one object `hak_observed`; a tool
// finds it by its symbol and the process's maps, and reads it and the regions
// that it names with process_vm_readv(2).
//
// The layout is versioned: all fields have fixed widths, what is added is added
// at the end, and a reader takes the sizes of elements from the header and not
// from its own compiler. This file needs nothing of the rest of core.
//
// Thread safety: every field is constant once `magic` is there, or is an
// atomic. A record is complete before its region's count includes it. Figures
// are each up to date in themselves; two of them need not be of one instant.

#ifndef HAKMEM_CORE_OBSERVED_H_
#define HAKMEM_CORE_OBSERVED_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hakmem {

inline constexpr uint64_t kObservedMagic = 0x316f6d656d6b6168;  // "hakmemo1"
inline constexpr uint32_t kObservedVersion = 4;

// Time is counted in ticks of this many milliseconds of CLOCK_MONOTONIC.
inline constexpr uint32_t kTickMilliseconds = 16;

// Blocks that were freed are counted by their age in buckets: 0 is below one
// tick, and bucket i reaches to 4^i ticks (64 ms, 256 ms, … 262 s), but for the
// last, which has all that were older.
inline constexpr uint32_t kAgeBuckets = 9;

// An array of elements of one kind, at a fixed address. While `address` is 0
// there are none yet.
struct ObservedRegion {
  std::atomic<uint64_t> address;
  std::atomic<uint64_t> count;  // elements that are complete
  uint64_t capacity;            // elements that there may ever be
  uint32_t element_bytes;       // from one element to the next
  uint32_t reserved;
};

// From here on, cells are of large blocks.
inline constexpr uint32_t kLargeCells = 64;

// Into how many parts the arena is divided at most.
inline constexpr uint32_t kObservedParts = 16;

// What a site's identity is.
enum class SiteKind : uint32_t {
  kOther = 0,   // site 0: all blocks that found the table full
  kPlace = 1,   // hak_site(): a line of a source file
  kNumber = 2,  // an id that the program made up
  kCaller = 3,  // an address that called malloc or another of its family
  kScope = 4,   // hak_site() too, but marks the allocations of a scope
  kStack = 5,   // a sampled stack
};

// One site. Its live bytes and blocks are in its cells; here is what no sum of
// cells gives.
struct alignas(256) ObservedSite {
  uint64_t id;  // place: this record's address; stack: a hash of the frames
  std::atomic<SiteKind> kind;
  uint32_t line;           // place, scope: 0 when unknown
  uint64_t file;           // offset in names: source file; for a
                           // caller the module; 0: unknown
  uint64_t label;          // offset in names, or 0 for none
  uint64_t module_offset;  // caller: address within the module's file;
                           // stack: how samples are taken (sampling.h)
  std::atomic<uint32_t> first_cell;  // index + 1; 0 while it has none
  uint32_t next;                     // hakmem's own
  uint64_t frames;                   // stack: index of the first in frames
  uint32_t frame_count;              // stack
  uint32_t reserved;
  std::atomic<int64_t> live_bytes;  // of blocks, as the cells have it
  std::atomic<int64_t> peak_bytes;  // the most that live_bytes has been
  // Freed blocks by age; of small ones a sample, those that came back by the
  // slow path.
  std::atomic<uint64_t> ages[kAgeBuckets];
};

// The blocks of one site and one size. What a site has live is the sum over its
// cells of (allocs - frees) * block_bytes + alloc_bytes - free_bytes.
//
// A thread counts by itself and adds that to the cells once it differs from
// them by 64 KiB or 4096 allocations, at a slow path a quarter of a second
// after the last time, and at its end.
struct alignas(64) ObservedCell {
  uint32_t site;         // index in sites
  uint32_t next;         // index + 1 of the site's next cell; 0: the last one
  uint32_t size_class;   // 1 and up; of large blocks kLargeCells + the power
                         // of two that they do not exceed
  uint32_t block_bytes;  // of each block; 0 for large ones
  std::atomic<uint64_t> allocs;
  std::atomic<uint64_t> frees;
  std::atomic<uint64_t> alloc_bytes;  // of large blocks; 0 for the others
  std::atomic<uint64_t> free_bytes;
  std::atomic<uint32_t> owner;  // hakmem's own
};

// The slabs of one size class. A pool counts here anyway, so that it costs
// nothing that others look.
struct ObservedClass {
  uint32_t block_bytes;         // 0 while the class had no slab yet
  uint32_t slab_blocks;         // blocks of a slab
  std::atomic<uint64_t> slabs;  // with blocks taken or not
  std::atomic<uint64_t> taken;  // blocks that are in no slab: in use, or cached
};

// A part of the arena that has a lock of its own, in bytes; all 0 while it was
// never used. On a line of its own, which the threads of the part write to.
struct alignas(64) ObservedPart {
  std::atomic<uint64_t> committed_bytes;   // accessible
  std::atomic<uint64_t> slab_bytes;        // granules of slabs
  std::atomic<uint64_t> large_bytes;       // granules of large blocks
  std::atomic<uint64_t> free_dirty_bytes;  // free granules, still backed
  std::atomic<uint64_t> purged_bytes;      // ever returned to the system
  std::atomic<uint64_t> metadata_bytes;    // hakmem's tables, handed out
};

struct alignas(64) Observed {
  // The header. Written last: the magic.
  std::atomic<uint64_t> magic;
  uint32_t version;
  uint32_t bytes;  // of this structure
  uint32_t tick_milliseconds;
  uint32_t age_buckets;
  std::atomic<int64_t> start_milliseconds;  // CLOCK_MONOTONIC when the heap
                                            // was set up: at the first
                                            // allocation; 0 until then
  char stage[16];                           // "tls_full", ended by zero
  std::atomic<uint64_t> arena_start;        // the arena's address, likewise
  std::atomic<uint64_t> arena_bytes;        // reserved

  ObservedRegion sites;   // ObservedSite
  ObservedRegion cells;   // ObservedCell
  ObservedRegion names;   // bytes: texts, each ended by zero; offset 0 is ""
  ObservedRegion frames;  // uint64_t: return addresses of stacks

  // The heap, in bytes.
  std::atomic<uint64_t> direct_bytes;     // mappings beside the arena
  std::atomic<uint64_t> direct_count;     // how many those are
  ObservedRegion classes[4];              // ObservedClass, by pool
  std::atomic<uint64_t> tick;             // as of the last tracked call
  std::atomic<uint64_t> untracked_sites;  // look-ups that found the table full
  ObservedPart parts[kObservedParts];     // of the arena: their sum is it

  // On a line of its own: threads write to it. Blocks in depots, and room in
  // threads' magazines.
  alignas(64) std::atomic<int64_t> cached_bytes;
};

static_assert(sizeof(ObservedSite) == 256 && sizeof(ObservedCell) == 64);
static_assert(sizeof(ObservedRegion) == 32 && sizeof(ObservedClass) == 24);
static_assert(sizeof(ObservedPart) == 64);
static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              std::atomic<SiteKind>::is_always_lock_free);

}  // namespace hakmem

// Exported from the library under this name.
extern "C" __attribute__((visibility("default"))) hakmem::Observed hak_observed;

#endif  // HAKMEM_CORE_OBSERVED_H_
