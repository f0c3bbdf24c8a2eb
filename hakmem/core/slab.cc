#include "hakmem/core/slab.h"

#include <algorithm>
#include <new>

#include "hakmem/core/report.h"
#include "hakmem/core/slab_use.h"

namespace hakmem {

size_t Slab::MetadataBytes(SizeClass size_class, bool owned) {
  size_t bytes =
      sizeof(Slab) + (WordCount(size_class) + PageWordCount(size_class) - 1) *
                         sizeof(uint64_t);
  if (IsTwin(size_class)) {
    bytes = TagOffset(size_class) +
            (owned                      ? sizeof(Tag)
             : HasTagPieces(size_class) ? TagPieces(size_class) * sizeof(void*)
                                        : SlabBlocks(size_class) * sizeof(Tag));
  }
  return (bytes + Metadata::kUnit - 1) & ~(Metadata::kUnit - 1);
}

Slab* Slab::Create(SizeClass size_class, uint32_t owner, Tag tag) {
  const Span model = {.start = 0,
                      .granules = 0,
                      .kind = Kind::kSlab,
                      .size_class = static_cast<uint8_t>(size_class)};
  RunPages pages;
  bool zeroed = false;
  auto* const slab = static_cast<Slab*>(
      IsTwin(size_class)
          ? AllocateTwin(model, owner, tag, &zeroed, &pages)
          : arena.AllocateSpan(model, MetadataBytes(size_class),
                               SlabGranules(size_class), &zeroed, &pages));
  if (slab == nullptr) return nullptr;
  if (!IsTwin(size_class)) slab->Begin(0);
  if (zeroed && PlainOf(size_class) > kLastL2Class) slab->first_unused = 0;
  slab->tail_gone_in = zeroed ? 0 : slab->PurgeTail();
  slab->purged_pages = static_cast<uint16_t>(pages.missed);
  SlabUse& use = SlabUse::Of(size_class);
  use.NoteMade();
  if (zeroed) slab->Populate();
  // Small blocks have left all of their pages, and the blocks of a slab of
  // which little will be used would have them for as long as they live. The
  // workload "threads" has 14.9 MiB at its peak where it had 18.1, and
  // takes 1.045 times as long.
  if (pages.dense != 0 && use.IsLittle()) slab->PurgeBehindFirstPage();
  // Whose its blocks are is to be seen by the map, and by the slab, alike.
  if (owner != 0 && !arena.MakeRoomForOwner(slab)) {
    Destroy(slab);
    return nullptr;
  }
  return slab;
}

// All of a new slab but its span, its tags, and what depends on its pages.
void Slab::Begin(uint32_t of_owner) {
  const uint32_t all = blocks();
  file_at = 0;
  free_count = static_cast<uint16_t>(all);
  first_word = 0;
  first_unused = kAllUsed;
  bucket = 0;
  next_look = FirstLook(size_class);
  dirty_pages = 0;
  owner = of_owner;
  next = nullptr;
  previous = nullptr;
  const size_t words = WordCount(size_class);
  std::fill_n(free_bits, words, ~uint64_t{0});
  if (all % 64 != 0) free_bits[words - 1] = (uint64_t{1} << (all % 64)) - 1;
  std::fill_n(purged_bits(), PageWordCount(size_class), 0);
}

// As Arena::AllocateSpan(), for a twin: who comes upon it reads its tags, which
// are made before it is in the maps.
Span* Slab::AllocateTwin(const Span& model, uint32_t owner, Tag tag,
                         bool* zeroed, RunPages* pages) {
  const size_t bytes = MetadataBytes(model.size_class, owner != 0);
  void* const memory = arena.AllocateMetadata(bytes);
  if (memory == nullptr) return nullptr;
  auto* const slab = static_cast<Slab*>(new (memory) Span(model));
  slab->Begin(owner);
  if (slab->MakeTags(tag)) {
    if (arena.AllocateRun(slab, SlabGranules(model.size_class), kGranuleSize,
                          zeroed, pages)) {
      return slab;
    }
    slab->FreeTagPieces(UINT32_MAX);
  }
  arena.FreeMetadata(slab, bytes);
  return nullptr;
}

// Gives an owner's slab its tag, or marks all blocks as not the program's.
// False when metadata has run out.
bool Slab::MakeTags(Tag tag) {
  const uint32_t all = tags();
  if (has_tag_pieces()) {
    auto* const pieces = reinterpret_cast<void**>(
        reinterpret_cast<char*>(this) + TagOffset(size_class));
    for (uint32_t i = 0; i < TagPieces(size_class); ++i) {
      pieces[i] = arena.AllocateMetadata(Metadata::kMaxPiece);
      if (pieces[i] == nullptr) {
        FreeTagPieces(i);
        return false;
      }
      HelgrindIgnore(pieces[i], Metadata::kMaxPiece);
    }
  } else {
    HelgrindIgnore(&TagOf(0), all * sizeof(Tag));
  }
  for (uint32_t i = 0; i < all; ++i) {
    TagOf(i).store(tag, std::memory_order_relaxed);
  }
  return true;
}

void Slab::FreeTagPieces(uint32_t count) {
  if (!has_tag_pieces()) return;
  auto* const pieces = reinterpret_cast<void**>(reinterpret_cast<char*>(this) +
                                                TagOffset(size_class));
  for (uint32_t i = std::min(count, TagPieces(size_class)); i-- > 0;) {
    arena.FreeMetadata(pieces[i], Metadata::kMaxPiece);
  }
}

// Where giving back costs much, so does each page that is used first: there a
// growing program gets those of a slab at once, if it uses all of them. On the
// machine of docs/memory.md, "Where giving back costs much", the workloads
// "idle", "peaks" and "server" take 0.92, 0.85 and 0.93 times as long. Without
// the look at what became of other slabs "mixed", which does not write all of
// its blocks, had 1.5 times the memory; with small programs too, which may run
// where the system is not to be asked (docs/sandbox.md), "threads" had 1.03.
constexpr size_t kLeastPopulated = 32 << 20;

void Slab::Populate() const {
  SlabUse& use = SlabUse::Of(size_class);
  if (PlainOf(size_class) > kLastL2Class || !use.AreMany()) return;
  if (arena.demand().bytes() < kLeastPopulated) return;
  if (!arena.purges() || arena.purges_at_once()) return;
  char* const begin = arena.AddressOf(start);
  const size_t used = ArenaMaps::PageUp(blocks() * ClassSize(size_class));
  if (use.FillsSoon(begin, used)) os::Populate(begin, used);
}

uint8_t Slab::ThisPeriod() {
  const int64_t period = os::CoarseMilliseconds() / arena.decay_period();
  return static_cast<uint8_t>(1 + period % 255);
}

// What the last owner of the granules has left where no block will be. It was
// 2 % of what is live in the workload "server". Where blocks are little used
// there is hardly any: that took "threads" 1.08 times as long, for half a MiB.
// Where slabs come and go it is wanted back with the next slab of another
// class: a "peaks" of 16 MiB of blocks from 1 to 32 KiB had 20,400 page faults
// where it has 8,500, and took 1.4 times as long.
uint8_t Slab::PurgeTail() {
  const size_t bytes = TailPages(size_class) * os::kPageSize;
  if (bytes == 0 || !arena.purges_at_once()) return 0;
  SlabUse& use = SlabUse::Of(size_class);
  if (use.IsLittle() || use.KeepsTail()) return 0;
  if (!os::Purge(arena.AddressOf(start + granules) - bytes, bytes)) return 0;
  arena.NotePurgedParts(this);
  return ThisPeriod();
}

// How many of the slab's pages nobody has ever used, by what is known of its
// class. Where a program uses little of its large blocks, what the arena takes
// for free memory is hardly there: without this a larson of 32 KiB to 1 MiB on
// four threads, each block touched at its beginning, has 5 times as many page
// faults and takes 1.25 times as long.
uint32_t Slab::UnusedPages() const {
  if (!arena.purges()) return 0;
  return SlabUse::Of(size_class)
      .UnusedPages(arena.AddressOf(start), granules * kGranulePages);
}

// Where a program uses little of its large blocks, each slab with several of
// them leaves a few pages at as many places, which differ from class to class,
// and whoever gets the granules next has them all for as long as he likes. What
// goes is all but the first page, where the next slab will begin as well. The
// workload "threads" has 18 MiB at its peak where it had 26, and takes 1.15
// times as long; a slab of one block leaves too little for a system call.
bool Slab::PurgeLittleUsed() {
  if (blocks() == 1 || !SlabUse::Of(size_class).IsLittle()) return false;
  return arena.HasSparseSurplus(this) && PurgeBehindFirstPage();
}

bool Slab::PurgeBehindFirstPage() const {
  if (!os::Purge(arena.AddressOf(start) + os::kPageSize,
                 granules * kGranuleSize - os::kPageSize)) {
    return false;
  }
  arena.NotePurgedParts(this);
  return true;
}

void Slab::Destroy(Slab* slab) {
  const SizeClass size_class = slab->size_class;
  SlabUse::Of(size_class).NoteGone();
  if (slab->owner != 0) arena.SetOwner(slab, 0);
  const uint32_t purged = slab->purged_pages;
  uint32_t absent = purged;
  if (slab->tail_gone_in != 0) {
    absent += TailPages(size_class);
    SlabUse::Of(size_class).NoteTail(slab->tail_gone_in == ThisPeriod());
  }
  if (PlainOf(size_class) > kLastL2Class) {
    absent = std::max(absent, slab->UnusedPages());
    if (slab->PurgeLittleUsed()) {
      absent = slab->granules * kGranulePages - 1;
    }
  }
  const uint32_t lately =
      purged == 0 ? 0 : slab->LatelyPurged(os::CoarseMilliseconds());
  const size_t bytes = MetadataBytes(size_class, slab->owner != 0);
  if (!IsTwin(size_class) || !slab->has_tag_pieces()) {
    arena.FreeSpan(slab, bytes, absent, lately);
  } else {
    // While the slab is in the maps its tags are read.
    arena.FreeSpan(slab, 0, absent, lately);
    slab->FreeTagPieces(UINT32_MAX);
    arena.FreeMetadata(slab, bytes);
  }
}

namespace {

// Blocks of small sizes share cache lines. So many of them, a power of two,
// begin and end with a line together; 1 from 64 bytes on in steps of 64, and
// for sizes whose blocks share no more than their edges.
constexpr uint32_t LineGroup(SizeClass size_class) {
  const size_t size = ClassSize(size_class);
  if (size >= 128) return 1;
  return 64 / std::min<uint32_t>(64, 1u << std::countr_zero(size));
}

// Of the free blocks in a word of the bitmap, those whose group is all free.
constexpr uint64_t WholeGroups(uint64_t bits, uint32_t group) {
  if (group >= 2) bits &= (bits >> 1) & 0x5555555555555555;
  if (group >= 4) bits &= (bits >> 2) & 0x1111111111111111;
  if (group >= 8) bits &= (bits >> 4) & 0x0101010101010101;
  return bits * ((uint64_t{1} << group) - 1);
}

static_assert(WholeGroups(0b1111'0111'1100, 4) == 0b1111'0000'0000);

// Every twin's metadata is one piece.
constexpr bool TagsFit() {
  for (SizeClass c = kFirstTwin + 1; c < kNumBins; ++c) {
    const size_t tags =
        c <= kFirstTwin + 4 ? 4 * sizeof(void*) : SlabBlocks(c) * sizeof(Tag);
    if (TagOffset(c) + tags > Metadata::kMaxPiece) return false;
  }
  return true;
}
static_assert(TagsFit());

// first_word and first_unused are bytes.
constexpr bool BlocksFit() {
  for (SizeClass c = 1; c < kNumClasses; ++c) {
    if (Slab::WordCount(c) > UINT8_MAX) return false;
    if (c > kLastL2Class && SlabBlocks(c) >= UINT8_MAX) return false;
  }
  return true;
}
static_assert(BlocksFit());

}  // namespace

uint32_t Slab::Take(void** out, uint32_t count) {
  const uint32_t taken = std::min<uint32_t>(count, free_count);
  void** slot = out + count;
  void** const end = slot - taken;
  const uint32_t group = LineGroup(size_class);
  // A line whose other blocks another thread may have is taken last: two
  // threads that write to it would wait for each other at every write. In a
  // slab that is more than half full few lines are free, and those are lucky.
  if (group > 1 && free_count * 2 >= blocks()) {
    const auto words = static_cast<uint32_t>(WordCount(size_class));
    for (uint32_t word = first_word; word < words && slot != end; ++word) {
      const uint64_t whole = WholeGroups(free_bits[word], group);
      slot = TakeFrom(word, whole, slot, end);
    }
  }
  uint32_t word = first_word;
  while (slot != end) {
    slot = TakeFrom(word, free_bits[word], slot, end);
    if (free_bits[word] == 0) ++word;
  }
  first_word = static_cast<uint8_t>(word);
  free_count = static_cast<uint16_t>(free_count - taken);
  // In L25, where no line is looked at, the last has the highest address.
  if (first_unused != kAllUsed && taken != 0) Use(IndexOf(size_class, *end));
  return taken;
}

// Takes blocks of one word, `bits` of it at most, lowest first, writing them
// downwards from `slot` to `end`; returns where it stopped.
void** Slab::TakeFrom(uint32_t word, uint64_t bits, void** slot, void** end) {
  const size_t size = ClassSize(size_class);
  char* const base = arena.AddressOf(start) + word * 64 * size;
  uint64_t left = bits;
  while (left != 0 && slot != end) {
    *--slot = base + static_cast<size_t>(std::countr_zero(left)) * size;
    left &= left - 1;
  }
  free_bits[word] &= ~(bits ^ left);
  return slot;
}

void Slab::DieWithin(const void* address) {
  Die("pointer into the middle of a block,", address);
}

void Slab::DieTwice(const void* block) {
  Die("double free of the block", block);
}

namespace {

// The first bit of `bits[0..limit)` at `from` or later that is `value`, or
// `limit`.
uint32_t FindBit(const uint64_t* bits, uint32_t from, uint32_t limit,
                 bool value) {
  while (from < limit) {
    const uint64_t word =
        (value ? bits[from / 64] : ~bits[from / 64]) >> (from % 64);
    if (word != 0) {
      return std::min(limit,
                      from + static_cast<uint32_t>(std::countr_zero(word)));
    }
    from = (from / 64 + 1) * 64;
  }
  return limit;
}

}  // namespace

// Calls fn(first, end) for the runs of at least `least` pages that are whole in
// free blocks and not marked purged.
template <typename Fn>
void Slab::ForEachDirtyRun(uint32_t least, Fn fn) {
  const size_t size = ClassSize(size_class);
  const uint64_t* const purged = purged_bits();
  const uint32_t all = blocks();
  uint32_t block = 0;
  while ((block = FindBit(free_bits, block, all, true)) != all) {
    const uint32_t end_block = FindBit(free_bits, block, all, false);
    auto page = static_cast<uint32_t>((block * size + os::kPageSize - 1) /
                                      os::kPageSize);
    // The last block's last page has nothing behind it.
    const auto end = static_cast<uint32_t>(
        (end_block * size + (end_block == all ? os::kPageSize - 1 : 0)) /
        os::kPageSize);
    while (page < end && (page = FindBit(purged, page, end, false)) != end) {
      const uint32_t end_page = FindBit(purged, page, end, true);
      if (end_page - page >= least) fn(page, end_page);
      page = end_page;
    }
    block = end_block;
  }
}

void Slab::UpdatePages(uint32_t least) {
  uint32_t pages = 0;
  ForEachDirtyRun(
      least, [&pages](uint32_t first, uint32_t end) { pages += end - first; });
  dirty_pages = static_cast<uint16_t>(pages);
  next_look = static_cast<uint16_t>(
      HasOwnPages(size_class) ? free_count + 1
                              : blocks() - (blocks() - free_count) / 2);
}

void Slab::PurgePages(uint32_t least) {
  char* const base = arena.AddressOf(start);
  ForEachDirtyRun(least, [this, base](uint32_t first, uint32_t end) {
    if (!os::Purge(base + first * os::kPageSize,
                   (end - first) * os::kPageSize)) {
      return;
    }
    for (uint32_t page = first; page < end; ++page) {
      purged_bits()[page / 64] |= uint64_t{1} << (page % 64);
    }
    purged_pages = static_cast<uint16_t>(purged_pages + (end - first));
  });
  arena.NotePurgedParts(this);
  dirty_pages = 0;
  purged_at = static_cast<uint16_t>(os::CoarseMilliseconds());
}

void Slab::ForgetPurged() {
  next_look = FirstLook(size_class);
  if (purged_pages == 0) return;
  std::fill_n(purged_bits(), PageWordCount(size_class), 0);
  purged_pages = 0;
}

}  // namespace hakmem
