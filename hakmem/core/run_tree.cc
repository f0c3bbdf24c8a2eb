#include "hakmem/core/run_tree.h"

#include <algorithm>

namespace hakmem {

void RunTree::Update(uint32_t node) {
  Node& n = nodes_[node];
  n.longest = std::max({n.length, Longest(n.left), Longest(n.right)});
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

uint32_t RunTree::InsertInto(uint32_t node, uint32_t start) {
  if (node == 0 || Priority(start) > Priority(node)) {
    uint32_t low = 0;
    uint32_t high = 0;
    Split(node, start, &low, &high);
    nodes_[start].left = low;
    nodes_[start].right = high;
    Update(start);
    return start;
  }
  uint32_t& child = start < node ? nodes_[node].left : nodes_[node].right;
  child = InsertInto(child, start);
  Update(node);
  return node;
}

uint32_t RunTree::RemoveFrom(uint32_t node, uint32_t start) {
  if (node == start) return Join(nodes_[node].left, nodes_[node].right);
  uint32_t& child = start < node ? nodes_[node].left : nodes_[node].right;
  child = RemoveFrom(child, start);
  Update(node);
  return node;
}

void RunTree::Insert(uint32_t start, uint32_t length) {
  nodes_[start].length = length;
  nodes_[start + length - 1].length = length;
  root_ = InsertInto(root_, start);
}

void RunTree::Remove(uint32_t start) { root_ = RemoveFrom(root_, start); }

uint32_t RunTree::FindIn(uint32_t node, uint32_t length,
                         uint32_t alignment) const {
  if (Longest(node) < length) return 0;
  const Node& n = nodes_[node];
  const uint32_t below = FindIn(n.left, length, alignment);
  if (below != 0) return below;
  // A start near 2^32 cannot wrap: granules end far below that.
  const uint32_t lead = AlignUp(node, alignment) - node;
  if (n.length >= lead && n.length - lead >= length) return node;
  return FindIn(n.right, length, alignment);
}

uint32_t RunTree::Find(uint32_t length, uint32_t alignment) const {
  return FindIn(root_, length, alignment);
}

}  // namespace hakmem
