// Size classes: the table that says which block size serves which request.
//
// Sizes double from group to group and every group is split into four equal
// steps, so that rounding up wastes at most a fifth of a block; the bottom is
// spaced by 16 bytes, below it stands one class of 8. The three pools share the
// table: a pool is a range of classes (see pool_geometry.h).
//
// Everything here is constexpr and has no state.

#ifndef HAKMEM_CORE_SIZE_CLASS_H_
#define HAKMEM_CORE_SIZE_CLASS_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace hakmem {

// 0 is no class: in the arena's class map it marks what takes the slow path.
using SizeClass = uint32_t;

inline constexpr SizeClass kNoClass = 0;
inline constexpr SizeClass kNumClasses = 62;  // with kNoClass

// Every class has a tracked twin: blocks of the same size in slabs of their
// own, each with a tag that says which site it belongs to (see tag.h). In the
// class map a twin's granules have a third number, the twin's door, of which no
// bin ever has room: so the fast path of free sends these blocks to where they
// are counted. Nor has it ever a block: so the fast path of malloc, where a
// thread takes samples, is sent there by the size table, and counts.
inline constexpr SizeClass kTwinDistance = kNumClasses - 1;
inline constexpr SizeClass kFirstTwin = 1 + kTwinDistance;
inline constexpr SizeClass kNumBins = kFirstTwin + kTwinDistance;
inline constexpr SizeClass kFirstDoor = kNumBins;
inline constexpr SizeClass kDoorDistance = kFirstDoor - 1;

// What the class map's byte leaves is for the busiest owners (locked_pool.h): a
// twin and a site that have a number of their own there have a bin of their own
// too, in each thread that has a slot for them (site_cache.h), and so free's
// fast path takes their blocks like any other's.
inline constexpr SizeClass kFirstOwnBin = kFirstDoor + kTwinDistance;
inline constexpr SizeClass kMostOwnBins = 72;
inline constexpr SizeClass kNumMapValues = kFirstOwnBin + kMostOwnBins;
static_assert(kNumMapValues <= 256);

// The last class of each pool, and its block size in bytes.
inline constexpr SizeClass kLastTinyClass = 21;
inline constexpr SizeClass kLastL2Class = 41;
inline constexpr SizeClass kLastL25Class = 61;
inline constexpr size_t kMaxTinySize = 1024;
inline constexpr size_t kMaxL2Size = 32 * 1024;
inline constexpr size_t kMaxPooledSize = 1024 * 1024;

// A granule is the arena's unit: every slab is a run of whole granules.
inline constexpr int kGranuleShift = 16;
inline constexpr size_t kGranuleSize = size_t{1} << kGranuleShift;

namespace size_class_internal {

// The class for a size above 128 bytes, by its leading bits: two of them choose
// the step within the group. Right for every size from 129 on.
constexpr SizeClass ClassByBits(size_t size) {
  const size_t last = size - 1;
  // std::bit_width() minds zero, with eight instructions more in malloc().
  const int top_bit = 63 ^ __builtin_clzll(last);
  return static_cast<SizeClass>(4 * top_bit - 22 +
                                static_cast<int>(last >> (top_bit - 2)));
}

constexpr SizeClass ClassByRule(size_t size) {
  if (size <= 8) return 1;
  if (size <= 128) return static_cast<SizeClass>(1 + (size + 15) / 16);
  return ClassByBits(size);
}

constexpr size_t SizeByRule(SizeClass size_class) {
  if (size_class == kNoClass) return 0;
  if (size_class == 1) return 8;
  if (size_class <= 9) return (size_class - 1) * size_t{16};
  const SizeClass step = size_class - 10;
  const size_t group = size_t{128} << (step / 4);
  return group + (step % 4 + 1) * (group / 4);
}

// Slabs are as short as they can be while their tail, which no block fits,
// stays within a sixteenth: a short slab becomes empty sooner. Up to 32 KiB
// they hold at least four blocks, so that one visit to the arena serves
// several. Above that a tail, which is of whole pages then and not resident
// unless somebody else touched it, may be an eighth: a sixteenth takes 448 KiB
// for blocks of 56 and of 112 KiB, and the workload "server" to 1.43 times of
// what is live in its third phase where it is at 1.28, with more page faults.
// One block for each slab, whatever the tail, took it to 1.6.
constexpr uint32_t GranulesByRule(SizeClass size_class) {
  const size_t size = SizeByRule(size_class);
  const size_t least_blocks = size <= kMaxL2Size ? 4 : 1;
  const size_t part = size <= kMaxL2Size ? 16 : 8;
  for (uint32_t granules = 1;; ++granules) {
    const size_t span = granules * kGranuleSize;
    if (span / size >= least_blocks && span % size * part <= span) {
      return granules;
    }
  }
}

struct ClassInfo {
  uint32_t size;      // bytes a block
  uint32_t granules;  // granules a slab
  uint32_t blocks;    // blocks a slab
  uint32_t tags;      // of a twin: where they are in the slab's metadata
  // Rounded up 2^40 / (size / 8): turns an offset into the block's index.
  uint64_t reciprocal;
};

inline constexpr int kReciprocalShift = 40;

// What stands before the tags of a slab beside its two bitmaps: slab.h checks.
constexpr uint32_t kSlabHeadBytes = 48;

constexpr uint32_t BitmapBytes(uint32_t bits) { return (bits + 63) / 64 * 8; }

constexpr std::array<ClassInfo, kNumBins> MakeClassInfo() {
  std::array<ClassInfo, kNumBins> info{};
  for (SizeClass c = 1; c < kNumClasses; ++c) {
    const size_t size = SizeByRule(c);
    const uint32_t granules = GranulesByRule(c);
    info[c].size = static_cast<uint32_t>(size);
    info[c].granules = granules;
    info[c].blocks = static_cast<uint32_t>(granules * kGranuleSize / size);
    info[c].reciprocal =
        ((uint64_t{1} << kReciprocalShift) + size / 8 - 1) / (size / 8);
    ClassInfo& twin = info[c + kTwinDistance];
    twin = info[c];
    twin.tags = kSlabHeadBytes + BitmapBytes(twin.blocks) +
                BitmapBytes(granules * (kGranuleSize / 4096));
  }
  return info;
}

inline constexpr std::array<ClassInfo, kNumBins> kClassInfo = MakeClassInfo();

// Indexed by (size + 7) / 8, for sizes to kMaxTinySize: the fast path's table.
using SmallTable = std::array<uint8_t, kMaxTinySize / 8 + 1>;

constexpr SmallTable MakeSmallTable() {
  SmallTable table{};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<uint8_t>(ClassByRule(i * 8));
  }
  return table;
}

inline constexpr SmallTable kSmallTable = MakeSmallTable();

// As kSmallTable, with the classes' doors, and with none.
constexpr SmallTable MakeSmallDoorTable() {
  SmallTable table{};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<uint8_t>(kSmallTable[i] + kDoorDistance);
  }
  return table;
}

inline constexpr SmallTable kSmallDoorTable = MakeSmallDoorTable();
inline constexpr SmallTable kEmptySmallTable{};

// Indexed by (size - 1) / 256, for sizes above kMaxTinySize and to kMaxL2Size,
// of which all classes' block sizes are multiples of 256.
using L2Table = std::array<uint8_t, kMaxL2Size / 256>;

inline constexpr L2Table kL2Table = [] {
  L2Table table{};
  for (size_t i = kMaxTinySize / 256; i < table.size(); ++i) {
    table[i] = static_cast<uint8_t>(ClassByRule((i + 1) * 256));
  }
  return table;
}();

}  // namespace size_class_internal

// The smallest class whose blocks hold `size` bytes. `size` must be at most
// kMaxTinySize; 0 is served as 1.
constexpr SizeClass SmallSizeToClass(size_t size) {
  return size_class_internal::kSmallTable[(size + 7) >> 3];
}

// As SmallSizeToClass(), for a size above kMaxTinySize and at most kMaxL2Size.
constexpr SizeClass L2SizeToClass(size_t size) {
  return size_class_internal::kL2Table[(size - 1) >> 8];
}

// As SmallSizeToClass(), for a size above 128 bytes and at most kMaxPooledSize.
constexpr SizeClass MediumSizeToClass(size_t size) {
  return size_class_internal::ClassByBits(size);
}

// As SmallSizeToClass(), for any size up to kMaxPooledSize.
constexpr SizeClass SizeToClass(size_t size) {
  return size <= kMaxTinySize ? SmallSizeToClass(size)
                              : MediumSizeToClass(size);
}

// The tracked twin of a class. Blocks of 8 bytes would have tags of half their
// size: they are served as 16.
constexpr SizeClass TwinOf(SizeClass size_class) {
  return std::max<SizeClass>(size_class, 2) + kTwinDistance;
}

constexpr bool IsTwin(SizeClass size_class) { return size_class >= kFirstTwin; }

// The class that a twin is the twin of; a plain class itself.
constexpr SizeClass PlainOf(SizeClass size_class) {
  return IsTwin(size_class) ? size_class - kTwinDistance : size_class;
}

// What the class map holds for a slab of this class, unless it is an owner's
// that has a bin of its own; and back.
constexpr uint32_t MapValueOf(SizeClass size_class) {
  return IsTwin(size_class) ? size_class + kTwinDistance : size_class;
}
constexpr SizeClass ClassOfMapValue(uint32_t value) {
  return value >= kFirstDoor ? value - kTwinDistance : value;
}

// Bytes of a block of this class.
constexpr size_t ClassSize(SizeClass size_class) {
  return size_class_internal::kClassInfo[size_class].size;
}

// Where the tags of a twin's slab begin in its metadata, in bytes.
constexpr size_t TagOffset(SizeClass size_class) {
  return size_class_internal::kClassInfo[size_class].tags;
}

// Granules of a slab of this class.
constexpr uint32_t SlabGranules(SizeClass size_class) {
  return size_class_internal::kClassInfo[size_class].granules;
}

// Blocks of a slab of this class.
constexpr uint32_t SlabBlocks(SizeClass size_class) {
  return size_class_internal::kClassInfo[size_class].blocks;
}

// offset / ClassSize(size_class), for an offset within a slab of the class.
constexpr uint32_t BlockIndex(SizeClass size_class, size_t offset) {
  return static_cast<uint32_t>(
      ((offset >> 3) *
       size_class_internal::kClassInfo[size_class].reciprocal) >>
      size_class_internal::kReciprocalShift);
}

// The smallest class whose blocks hold `size` bytes and all lie at multiples of
// `alignment`, or kNoClass when there is none. `alignment` is a power of two,
// `size` at most kMaxPooledSize. Slabs begin at granules, so a class serves an
// alignment up to a granule exactly when its block size is a multiple of it.
constexpr SizeClass AlignedSizeToClass(size_t size, size_t alignment) {
  if (alignment > kGranuleSize) return kNoClass;
  for (SizeClass c = SizeToClass(size == 0 ? 1 : size); c < kNumClasses; ++c) {
    if (ClassSize(c) % alignment == 0) return c;
  }
  return kNoClass;
}

}  // namespace hakmem

#endif  // HAKMEM_CORE_SIZE_CLASS_H_
