#include "hakmem/core/run_tree.h"

#include <algorithm>

namespace hakmem {

void RunTree::Update(uint32_t node) {
  Node& n = nodes_[node];
  n.longest = std::max({n.length, Longest(n.left), Longest(n.right)});
  n.spaced = std::max(
      {Room(node, n.length, kSpacing), Spaced(n.left), Spaced(n.right)});
}

// All of `low` lies below all of `high`.
uint32_t RunTree::Join(uint32_t low, uint32_t high) {
  if (low == 0) return high;
  if (high == 0) return low;
  if (Priority(low) > Priority(high)) {
    nodes_[low].right = Join(nodes_[low].right, high);
    Update(low);
    return low;
  }
  nodes_[high].left = Join(low, nodes_[high].left);
  Update(high);
  return high;
}

void RunTree::Split(uint32_t node, uint32_t key, uint32_t* low,
                    uint32_t* high) {
  if (node == 0) {
    *low = *high = 0;
  } else if (node < key) {
    Split(nodes_[node].right, key, &nodes_[node].right, high);
    *low = node;
    Update(node);
  } else {
    Split(nodes_[node].left, key, low, &nodes_[node].left);
    *high = node;
    Update(node);
  }
}

// After a run below has gone, or become shorter, that had this length: most
// nodes have a longer one elsewhere, and need not be looked at again.
void RunTree::UpdateWithout(uint32_t node, uint32_t start, uint32_t length) {
  const Node& n = nodes_[node];
  if (n.longest == length || n.spaced == Room(start, length, kSpacing)) {
    Update(node);
  }
}

uint32_t RunTree::RemoveFrom(uint32_t node, uint32_t start) {
  if (node == start) return Join(nodes_[node].left, nodes_[node].right);
  uint32_t& child = start < node ? nodes_[node].left : nodes_[node].right;
  child = RemoveFrom(child, start);
  UpdateWithout(node, start, nodes_[start].length);
  return node;
}

void RunTree::ShrinkIn(uint32_t node, uint32_t start, uint32_t length) {
  if (node == start) {
    nodes_[start].length = length;
    Update(start);
    return;
  }
  const uint32_t before = nodes_[start].length;
  ShrinkIn(start < node ? nodes_[node].left : nodes_[node].right, start,
           length);
  UpdateWithout(node, start, before);
}

// What stays as it was is not written: it is in others' caches, too.
void RunTree::Raise(Node& node, uint32_t length, uint32_t room) {
  if (node.longest < length) node.longest = length;
  if (node.spaced < room) node.spaced = room;
}

void RunTree::Resize(uint32_t start, uint32_t length) {
  if (length < nodes_[start].length) {
    ShrinkIn(root_, start, length);
  } else {
    const uint32_t room = Room(start, length, kSpacing);
    for (uint32_t node = root_;;) {
      Node& n = nodes_[node];
      Raise(n, length, room);
      if (node == start) break;
      node = start < node ? n.left : n.right;
    }
    nodes_[start].length = length;
  }
  nodes_[start + length - 1].length = length;
}

void RunTree::Insert(uint32_t start, uint32_t length) {
  nodes_[start].length = length;
  nodes_[start + length - 1].length = length;
  const uint32_t room = Room(start, length, kSpacing);
  uint32_t* link = &root_;
  while (*link != 0 && Priority(*link) >= Priority(start)) {
    Node& n = nodes_[*link];
    Raise(n, length, room);
    link = start < *link ? &n.left : &n.right;
  }
  Split(*link, start, &nodes_[start].left, &nodes_[start].right);
  Update(start);
  *link = start;
}

void RunTree::Remove(uint32_t start) { root_ = RemoveFrom(root_, start); }

uint32_t RunTree::Find(uint32_t length, uint32_t alignment) const {
  return alignment == 1 ? FindBy(&Node::longest, length, 1)
                        : FindIn(root_, length, alignment);
}

// For an alignment whose greatest room each node knows as `most`.
uint32_t RunTree::FindBy(uint32_t Node::*most, uint32_t length,
                         uint32_t alignment) const {
  uint32_t node = root_;
  if (node == 0 || nodes_[node].*most < length) return 0;
  for (;;) {
    const Node& n = nodes_[node];
    if (n.left != 0 && nodes_[n.left].*most >= length) {
      node = n.left;
    } else if (Room(node, n.length, alignment) >= length) {
      return node;
    } else {
      node = n.right;
    }
  }
}

uint32_t RunTree::FindIn(uint32_t node, uint32_t length,
                         uint32_t alignment) const {
  if (Longest(node) < length) return 0;
  const Node& n = nodes_[node];
  const uint32_t below = FindIn(n.left, length, alignment);
  if (below != 0) return below;
  // A start near 2^32 cannot wrap: granules end far below that.
  if (Room(node, n.length, alignment) >= length) return node;
  return FindIn(n.right, length, alignment);
}

}  // namespace hakmem
