// The reservation of an arena: its granules, and the tables that have an entry
// for each of them.

#ifndef HAKMEM_CORE_ARENA_MAPS_H_
#define HAKMEM_CORE_ARENA_MAPS_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/metadata.h"
#include "hakmem/core/os.h"
#include "hakmem/core/run_tree.h"
#include "hakmem/core/size_class.h"

namespace hakmem {

// A run of granules that is in use. Lives in metadata.
struct Span {
  enum class Kind : uint8_t { kSlab, kLarge };

  uint32_t start;  // first granule
  uint32_t granules;
  Kind kind;
  uint8_t size_class;  // of a slab; kNoClass for a large block
};

// What is known of the pages of a run that is handed out.
struct RunPages {
  uint32_t missed = 0;  // that went to the system lately, out of slabs
  uint32_t dense = 0;   // granules that may have more than half of theirs
};

// What is kept of 64 granules, a bit for each. Together: a small process has
// one page of them, where a table for each had six, and as many page tables.
struct GranuleBits {
  uint64_t dirty;  // free, and the system may back it
  // Likewise, but only because a huge page may back it of which other granules
  // were touched.
  uint64_t clean;
  uint64_t dense;  // likewise, and more than half of its pages may be backed
  uint64_t small;  // begins a huge page that is kept small
  // Went to the system in the last even period of HAKMEM_DECAY_MS, and in the
  // last odd one, and was not used since.
  uint64_t purged[2];
};

inline constexpr uint32_t kHugeGranules = os::kHugePageSize / kGranuleSize;
inline constexpr uint32_t kGranulePages = kGranuleSize / os::kPageSize;

// What it takes to tell an address's class. Constant once the arena exists;
// before that, no address is inside of it.
struct ArenaView {
  uintptr_t base = 0;
  uintptr_t eighths = 0;  // bytes reserved, divided by 8
  const std::atomic<uint8_t>* class_map = nullptr;
  const std::atomic<uint32_t>* owner_map = nullptr;

  // How many times 8 bytes `address` is from the start; `eighths` or more for
  // addresses outside of the arena and for those that are not a multiple of 8,
  // which no block is. The rotation carries the three lowest bits to the top,
  // where they put the offset out of range, so that one comparison covers both.
  uintptr_t EighthOf(const void* address) const {
    return std::rotr(reinterpret_cast<uintptr_t>(address) - base, 3);
  }
  static size_t GranuleOfEighth(uintptr_t eighth) {
    return eighth >> (kGranuleShift - 3);
  }

  // The class of the slab that `address` lies in, or its door for a twin (see
  // size_class.h); kNoClass for anything else.
  SizeClass ClassOf(const void* address) const {
    const uintptr_t eighth = EighthOf(address);
    if (eighth >= eighths) [[unlikely]]
      return kNoClass;
    return class_map[GranuleOfEighth(eighth)].load(std::memory_order_relaxed);
  }
};

// Where the granules and their tables are.
//
// Thread safety: constant once Reserve() has returned true. Who may write which
// entries, the arena says.
struct ArenaMaps {
  // Tables become accessible for this many granules (2 GiB of arena) at a time:
  // a few system calls, and 792 KiB of address space that stays untouched until
  // it is needed. No page of a table is for two such steps.
  static constexpr uint32_t kStep = 32768;

  // The arena begins with a huge page.
  static constexpr size_t kAlignment = os::kHugePageSize;

  // Sets the address space aside. False, and nothing changed, when the system
  // refuses.
  bool Reserve(uint64_t arena_bytes);

  // Makes the tables writable, but for the owner map, for granules from..to.
  // Both are multiples of kStep, or `to` is the end.
  [[nodiscard]] bool Commit(uint32_t from, uint32_t to) const;

  // Likewise the owner map.
  [[nodiscard]] bool CommitOwners(uint32_t from, uint32_t to) const;

  // Calls fn(start, bytes) for what is writable of the tables for the granules
  // from `begin`, where Commit() and CommitOwners() have come to `end` and
  // `owners_end`.
  template <typename Fn>
  void ForEachTable(uint32_t begin, uint32_t end, uint32_t owners_end,
                    Fn fn) const {
    const auto call = [&fn](const auto* table, size_t from, size_t to,
                            size_t granules) {
      const size_t bytes = (to - from) * sizeof(*table) / granules;
      fn(table + from / granules, PageUp(bytes));
    };
    call(span_map, begin, end, 1);
    call(owner_map, begin, owners_end, 1);
    call(nodes, begin, end, 1);
    call(bits, begin, end, 64);
  }

  // What is accessible from the start, whatever is in use, in bytes.
  size_t class_map_bytes() const { return PageUp(granules); }

  char* AddressOf(uint32_t granule) const {
    return base + (size_t{granule} << kGranuleShift);
  }
  // `address` must be in the arena.
  size_t GranuleOf(const void* address) const {
    return static_cast<size_t>(static_cast<const char*>(address) - base) >>
           kGranuleShift;
  }
  // Whether the granule is in no span.
  bool IsFree(uint32_t granule) const {
    return span_map[granule].load(std::memory_order_relaxed) == 0;
  }

  // A piece of metadata and its index, which is 0 for none.
  void* PieceAt(uint32_t index) const {
    return metadata + size_t{index} * Metadata::kUnit;
  }
  uint32_t IndexOf(const void* piece) const {
    return static_cast<uint32_t>((static_cast<const char*>(piece) - metadata) /
                                 Metadata::kUnit);
  }

  static constexpr size_t PageUp(size_t bytes) {
    return (bytes + os::kPageSize - 1) & ~(os::kPageSize - 1);
  }

  char* base = nullptr;
  uint32_t granules = 0;
  // The class map can be written to, and the span and owner maps can be read,
  // for any granule: they are for any address that the program says.
  std::atomic<uint8_t>* class_map = nullptr;
  std::atomic<uint32_t>* span_map = nullptr;
  std::atomic<uint32_t>* owner_map = nullptr;
  RunTree::Node* nodes = nullptr;
  GranuleBits* bits = nullptr;
  // Reserved for the metadata of all parts.
  char* metadata = nullptr;
  size_t metadata_bytes = 0;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_ARENA_MAPS_H_
