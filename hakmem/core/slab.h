// A slab: a span that is divided into blocks of one size class.
//
// Which of its blocks are free stands in a bitmap beside the arena, so that
// neither handing blocks out nor taking them back touches the blocks.

#ifndef HAKMEM_CORE_SLAB_H_
#define HAKMEM_CORE_SLAB_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "hakmem/core/arena.h"
#include "hakmem/core/metadata.h"
#include "hakmem/core/os.h"
#include "hakmem/core/size_class.h"
#include "hakmem/core/tag.h"

namespace hakmem {

// Thread safety: none of its own; the lock of its pool guards it. Invariants:
//  1. Bit i of the bitmap is set if and only if block i is free, and free_count
//     counts the set bits. Bits beyond the last block are never set.
//  2. Every set bit lies at first_word or later.
//  3. A slab is linked into a list exactly while it has free blocks and is not
//     its class's active slab.
//  4. A page that is marked purged holds no part of a live block, and was
//     returned to the system since it last did.
//  5. A block from first_unused on reads as zero.
//  6. A tag belongs to whoever has the block, and needs no lock: it is kNoTag
//     exactly while neither the program has the block nor a site's slot. The
//     sweep alone comes beside, and changes no more than a birth. The slab of
//     an owner has one tag, that of all of its blocks, free or not, and it
//     never changes.
struct Slab : Span {
  uint16_t file_at;  // free_count from which LockedPool::File() has to see it
  uint16_t free_count;
  uint8_t first_word;
  uint8_t first_unused;   // no block from this one on was handed out since all
                          // pages were zero; or kAllUsed
  uint8_t bucket;         // the list it is in
  uint8_t tail_gone_in;   // ThisPeriod() when its TailPages() went to the
                          // system; 0 when they did not
  uint16_t next_look;     // free_count from which to look at pages again
  uint16_t dirty_pages;   // worth purging, when UpdatePages() last looked
  uint16_t purged_pages;  // marked
  uint16_t purged_at;     // when the last of them went, in ms modulo 2^16
  uint32_t owner;         // whose slab it is, from the beginning to the end:
                          // LockedPool::MakeOwner(); 0: everybody's
  Slab* next;
  Slab* previous;
  uint64_t free_bits[1];  // as many words as WordCount(), then the marks of
                          // purged pages, as many as PageWordCount(); of a
                          // tracked class, then the tags, or pointers to pieces
                          // of metadata that hold them; an owner's one tag

  uint32_t blocks() const { return SlabBlocks(size_class); }

  static constexpr size_t WordCount(SizeClass size_class) {
    return (SlabBlocks(size_class) + 63) / 64;
  }
  static constexpr size_t PageWordCount(SizeClass size_class) {
    return (SlabGranules(size_class) * kGranulePages + 63) / 64;
  }
  // free_count from which on a look at the pages is worth while: of blocks with
  // pages of their own at once and at each that follows, of smaller ones when
  // half of them are free.
  static constexpr uint16_t FirstLook(SizeClass size_class) {
    return static_cast<uint16_t>(
        HasOwnPages(size_class) ? 1 : (SlabBlocks(size_class) + 1) / 2);
  }
  static constexpr bool HasOwnPages(SizeClass size_class) {
    return ClassSize(size_class) >= 2 * os::kPageSize;
  }
  static size_t MetadataBytes(SizeClass size_class, bool owned = false);
  // Whole pages behind the last block, if they are worth a system call, else 0.
  static constexpr uint32_t TailPages(SizeClass size_class) {
    const size_t bytes = SlabGranules(size_class) * kGranuleSize -
                         SlabBlocks(size_class) * ClassSize(size_class);
    const auto pages = static_cast<uint32_t>(bytes / os::kPageSize);
    return pages < kWorthwhileRun ? 0 : pages;
  }

  // A slab of this class with all of its blocks free, or null when memory has
  // run out. Its purged_pages say how many of its pages went to the system
  // lately, though none is marked. Where `owner` is not 0, `tag` is that of its
  // blocks.
  static Slab* Create(SizeClass size_class, uint32_t owner = 0,
                      Tag tag = kNoTag);
  // Gives the granules back to the arena, and the slab to the metadata.
  static void Destroy(Slab* slab);

  // Takes up to `count` free blocks, the lowest addresses, and writes them to
  // the end of `out[0..count)`, the lowest last: a magazine is consumed from
  // its top. Returns how many. Of a class whose blocks share cache lines, a
  // slab that is half free gives the blocks of lines that are free first.
  uint32_t Take(void** out, uint32_t count);

  // Takes one free block; there must be one. `*zeroed`, unless null, says
  // whether it is known to read as zero.
  void* TakeOne(bool* zeroed = nullptr);

  // The number of the block that begins at `address`, in a slab of the known
  // class. Ends the program when none does.
  uint32_t IndexOf(SizeClass known_class, const void* address) const {
    const auto offset = static_cast<size_t>(static_cast<const char*>(address) -
                                            arena.AddressOf(start));
    const uint32_t index = BlockIndex(known_class, offset);
    if (index >= SlabBlocks(known_class) ||
        index * ClassSize(known_class) != offset) [[unlikely]] {
      DieWithin(address);
    }
    return index;
  }

  bool IsFree(uint32_t index) const {
    return ((free_bits[index / 64] >> (index % 64)) & 1) != 0;
  }

  // How many tags it has, if its class is a tracked one.
  uint32_t tags() const { return owner != 0 ? 1 : blocks(); }

  // The tag of a block of this slab, which is of the tracked class `twin`.
  std::atomic<Tag>& TagOf(uint32_t index) { return TagOf(size_class, index); }
  std::atomic<Tag>& TagOf(SizeClass twin, uint32_t index) {
    char* const tags = reinterpret_cast<char*>(this) + TagOffset(twin);
    if (owner != 0) {
      index = 0;
    } else if (HasTagPieces(twin)) {
      return reinterpret_cast<std::atomic<Tag>**>(
          tags)[index / kTagsPerPiece][index % kTagsPerPiece];
    }
    return reinterpret_cast<std::atomic<Tag>*>(tags)[index];
  }

  // The tag of a block of any slab of a tracked class. It has to be one.
  static std::atomic<Tag>& TagOfKnown(const void* block, SizeClass twin) {
    auto* const slab = static_cast<Slab*>(arena.SpanOfLive(block));
    const auto offset = static_cast<size_t>(static_cast<const char*>(block) -
                                            arena.AddressOf(slab->start));
    return slab->TagOf(twin, BlockIndex(twin, offset));
  }

  // Marks a block of the slab, which is of the known class, free. Ends the
  // program when `block` is no block of this slab, or is free already.
  void Put(SizeClass known_class, void* block);

  // Counts the pages that hold no part of a live block and are not purged, in
  // runs of `least` pages at least. The next time is when half of the blocks
  // that are live now have gone; the next block, where it has its own pages.
  void UpdatePages(uint32_t least = kWorthwhileRun);

  // Returns them to the system, and marks them.
  void PurgePages(uint32_t least = kWorthwhileRun);

  // A run of pages that is worth a system call where nobody asked for it. In a
  // cache whose sizes shift half of the calls were for single pages and brought
  // a seventh of all, most of them soon wanted back: without those calls
  // growing strings are 5 % faster. With 4, three quarters of the calls were
  // gone, but the cache was 8 % larger.
  static constexpr uint32_t kWorthwhileRun = 2;

  // How many of the marked pages went to the system so lately that it should
  // not have been; 0 where the last ones went longer ago.
  uint32_t LatelyPurged(int64_t now) const {
    return static_cast<uint16_t>(now - purged_at) < arena.decay_period()
               ? purged_pages
               : 0;
  }

  // Takes all marks off, before blocks are handed out of here.
  void ForgetPurged();

 private:
  [[noreturn]] static void DieWithin(const void* address);
  [[noreturn]] static void DieTwice(const void* block);

  static constexpr uint32_t kTagsPerPiece = Metadata::kMaxPiece / sizeof(Tag);

  // Whether the tags of a slab are too many to stand in one piece with it. So
  // it is with those of the smallest blocks.
  static constexpr bool HasTagPieces(SizeClass size_class) {
    return size_class <= kLastPiecedTwin;
  }
  static constexpr SizeClass kLastPiecedTwin = kFirstTwin + 4;  // 64 bytes
  static uint32_t TagPieces(SizeClass size_class) {
    return (SlabBlocks(size_class) + kTagsPerPiece - 1) / kTagsPerPiece;
  }
  static Span* AllocateTwin(const Span& model, uint32_t owner, Tag tag,
                            bool* zeroed, RunPages* pages);
  void Begin(uint32_t of_owner);
  bool MakeTags(Tag tag);
  bool has_tag_pieces() const { return HasTagPieces(size_class) && owner == 0; }
  void FreeTagPieces(uint32_t count);
  // The period of HAKMEM_DECAY_MS that it is, from 1 to 255 and again.
  static uint8_t ThisPeriod();
  uint8_t PurgeTail();
  void Populate() const;
  bool PurgeBehindFirstPage() const;
  uint32_t UnusedPages() const;
  bool PurgeLittleUsed();

  // All small blocks count as used: there is little of each that calloc() could
  // save, and there are many.
  static constexpr uint8_t kAllUsed = UINT8_MAX;
  // Takes note that a block is handed out. Says whether it never was before.
  bool Use(uint32_t index) {
    if (first_unused == kAllUsed || index < first_unused) return false;
    first_unused = static_cast<uint8_t>(index + 1);
    return true;
  }

  uint64_t* purged_bits() { return free_bits + WordCount(size_class); }
  void** TakeFrom(uint32_t word, uint64_t bits, void** slot, void** end);
  template <typename Fn>
  void ForEachDirtyRun(uint32_t least, Fn fn);
};

static_assert(sizeof(Slab) ==
              size_class_internal::kSlabHeadBytes + sizeof(Slab::free_bits));
static_assert(sizeof(std::atomic<Tag>) == sizeof(Tag));

inline void Slab::Put(SizeClass known_class, void* block) {
  const uint32_t index = IndexOf(known_class, block);
  const uint32_t word = index / 64;
  const uint64_t bit = uint64_t{1} << (index % 64);
  const uint64_t bits = free_bits[word];
  if ((bits & bit) != 0) [[unlikely]]
    DieTwice(block);
  free_bits[word] = bits | bit;
  if (word < first_word) first_word = static_cast<uint8_t>(word);
  ++free_count;
}

inline void* Slab::TakeOne(bool* zeroed) {
  uint32_t word = first_word;
  while (free_bits[word] == 0) ++word;
  const uint64_t bits = free_bits[word];
  free_bits[word] = bits & (bits - 1);
  first_word = static_cast<uint8_t>(word);
  --free_count;
  const uint32_t index =
      word * 64 + static_cast<uint32_t>(std::countr_zero(bits));
  const bool is_unused = Use(index);
  if (zeroed != nullptr) *zeroed = is_unused;
  return arena.AddressOf(start) + index * ClassSize(size_class);
}

}  // namespace hakmem

#endif  // HAKMEM_CORE_SLAB_H_
