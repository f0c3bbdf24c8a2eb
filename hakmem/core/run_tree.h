// The free runs of an arena, ordered by address.
//
// A treap (Seidel & Aragon, "Randomized search trees", Algorithmica 1996) keyed
// by the run's first granule, with each node carrying the longest run of its
// subtree, and the longest part of one that begins at a place of its own (see
// kSpacing). First-fit by address, at any granule or at such a place, and the
// joining of neighbours take logarithmic time whatever the number of runs. The
// nodes live in an array beside the arena, one for every granule, of which only
// those where a run begins or ends are in use.

#ifndef HAKMEM_CORE_RUN_TREE_H_
#define HAKMEM_CORE_RUN_TREE_H_

#include <cstdint>

#include "hakmem/core/size_class.h"

namespace hakmem {

// Thread safety: none of its own; the arena's lock guards it. Invariants:
//  1. Runs do not overlap. The owner joins neighbours before it inserts.
//  2. A run's length stands in its first and in its last node.
//  3. Granule 0 is in no run: 0 is the null node.
class RunTree {
 public:
  struct Node {
    uint32_t left;
    uint32_t right;
    uint32_t length;   // granules of the run
    uint32_t longest;  // greatest length in this subtree
    uint32_t spaced;   // likewise from a multiple of kSpacing on
  };

  // Granules from one place for a spaced run to the next: no slab is longer.
  static constexpr uint32_t kSpacing = kMaxPooledSize / kGranuleSize;

  constexpr RunTree() = default;

  // `nodes` is indexed by granule; its memory may become accessible later, but
  // before the granule is inserted.
  void Init(Node* nodes) { nodes_ = nodes; }

  void Insert(uint32_t start, uint32_t length);
  void Remove(uint32_t start);

  // Gives the run that starts here another length. Takes less than to remove it
  // and insert another.
  void Resize(uint32_t start, uint32_t length);

  // The run of lowest address with room for `length` granules at a multiple of
  // `alignment` granules (a power of two), or 0.
  uint32_t Find(uint32_t length, uint32_t alignment) const;

  // Find() at a multiple of kSpacing.
  uint32_t FindSpaced(uint32_t length) const {
    return FindBy(&Node::spaced, length, kSpacing);
  }

  // Length of the run that starts, or ends, at this granule.
  uint32_t LengthAt(uint32_t granule) const { return nodes_[granule].length; }

  uint32_t longest() const { return Longest(root_); }

  // Where in the run from `start` a piece aligned to `alignment` begins.
  static uint32_t AlignUp(uint32_t start, uint32_t alignment) {
    return (start + alignment - 1) & ~(alignment - 1);
  }

 private:
  // A node's rank in the heap order: a hash of its key does for a random one.
  static uint32_t Priority(uint32_t node) {
    uint32_t h = node * 0x9E3779B1u;
    h ^= h >> 15;
    h *= 0x85EBCA77u;
    return h ^ (h >> 13);
  }

  // Granules of a run from the first multiple of `alignment` in it on.
  static uint32_t Room(uint32_t start, uint32_t length, uint32_t alignment) {
    const uint32_t lead = AlignUp(start, alignment) - start;
    return length > lead ? length - lead : 0;
  }
  uint32_t Longest(uint32_t node) const {
    return node == 0 ? 0 : nodes_[node].longest;
  }
  uint32_t Spaced(uint32_t node) const {
    return node == 0 ? 0 : nodes_[node].spaced;
  }
  void Update(uint32_t node);
  uint32_t Join(uint32_t low, uint32_t high);
  void Split(uint32_t node, uint32_t key, uint32_t* low, uint32_t* high);
  uint32_t RemoveFrom(uint32_t node, uint32_t start);
  void ShrinkIn(uint32_t node, uint32_t start, uint32_t length);
  void UpdateWithout(uint32_t node, uint32_t start, uint32_t length);
  static void Raise(Node& node, uint32_t length, uint32_t room);
  uint32_t FindBy(uint32_t Node::*most, uint32_t length,
                  uint32_t alignment) const;
  uint32_t FindIn(uint32_t node, uint32_t length, uint32_t alignment) const;

  Node* nodes_ = nullptr;
  uint32_t root_ = 0;
};

}  // namespace hakmem

#endif  // HAKMEM_CORE_RUN_TREE_H_
