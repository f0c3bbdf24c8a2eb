#include "hakmem/core/arena_maps.h"

#include <algorithm>
#include <type_traits>

namespace hakmem {
namespace {

// So much of the class map lies before the first huge page of it: what an arena
// of 8 GiB uses. Of a huge page nearly all would be wasted. And the span map
// begins with a huge page, of which only the first part is accessible.
constexpr size_t kClassMapHead = 128 << 10;

// Metadata's share of the reservation: a slab of the smallest blocks needs a
// 56th, and magazines as much as the blocks that they hold, but only for what
// is cached.
constexpr size_t MetadataBytes(uint64_t arena_bytes) {
  return std::max<size_t>(arena_bytes / 16, size_t{4} << 20);
}

// Commits what a table has for granules from..to, of which `granules` share an
// element.
template <typename T>
bool CommitTable(T* table, uint32_t from, uint32_t to, uint32_t granules) {
  const size_t begin = from / granules * sizeof(T);  // a page's multiple
  const size_t end =
      ArenaMaps::PageUp((size_t{to} + granules - 1) / granules * sizeof(T));
  return os::Commit(reinterpret_cast<char*>(table) + begin, end - begin);
}

}  // namespace

bool ArenaMaps::Reserve(uint64_t arena_bytes) {
  const size_t count = arena_bytes >> kGranuleShift;
  const size_t class_bytes = PageUp(count);
  const size_t span_bytes = PageUp(count * sizeof(uint32_t));
  const size_t owner_bytes = span_bytes;
  const size_t node_bytes = PageUp(count * sizeof(RunTree::Node));
  const size_t bits_bytes = PageUp((count / 64 + 1) * sizeof(GranuleBits));
  const size_t pieces_bytes = MetadataBytes(arena_bytes);
  const size_t gap =
      class_bytes < os::kHugePageSize ? 0 : os::kHugePageSize - kClassMapHead;
  const size_t total = arena_bytes + gap + class_bytes + kClassMapHead +
                       span_bytes + owner_bytes + node_bytes + bits_bytes +
                       pieces_bytes;
  auto* const start = static_cast<char*>(os::Reserve(total, kAlignment));
  if (start == nullptr) return false;
  char* next = start + arena_bytes + gap;
  const auto carve = [&next](auto*& table, size_t bytes) {
    table = reinterpret_cast<std::remove_reference_t<decltype(table)>>(next);
    next += bytes;
  };
  carve(class_map, class_bytes);
  next += kClassMapHead;
  carve(span_map, span_bytes);
  carve(owner_map, owner_bytes);
  carve(nodes, node_bytes);
  carve(bits, bits_bytes);
  // The class map is read for any address in the arena, so all of it has to be
  // accessible; 16 bytes a MiB of arena, of which few are ever touched. So are
  // the span map and the owner map behind it, of which only the part that is
  // written to counts.
  if (!os::Commit(class_map, class_bytes) ||
      !os::AllowReading(span_map, span_bytes + owner_bytes)) {
    os::Unmap(start, total);
    return false;
  }
  metadata = next;
  metadata_bytes = pieces_bytes;
  base = start;
  granules = static_cast<uint32_t>(count);
  return true;
}

bool ArenaMaps::Commit(uint32_t from, uint32_t to) const {
  return CommitTable(span_map, from, to, 1) &&
         CommitTable(nodes, from, to, 1) && CommitTable(bits, from, to, 64);
}

bool ArenaMaps::CommitOwners(uint32_t from, uint32_t to) const {
  return CommitTable(owner_map, from, to, 1);
}

}  // namespace hakmem
