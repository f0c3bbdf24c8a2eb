#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// A node as a compiler or a computer algebra system has them: two links, a
// value, and a payload that depends on what it stands for.
struct Node {
  Node* left;
  Node* right;
  uint64_t value;
};

struct Sizes {
  uint64_t least;
  uint64_t most;
};

Node* Build(Random* random, int depth, Sizes sizes) {
  const uint64_t size = random->Between(sizes.least, sizes.most);
  Node* const node =
      reinterpret_cast<Node*>(NewBlock(std::max(size, sizeof(Node))));
  node->value = size;
  node->left = depth > 0 ? Build(random, depth - 1, sizes) : nullptr;
  node->right = depth > 0 ? Build(random, depth - 1, sizes) : nullptr;
  return node;
}

uint64_t Sum(const Node* node) {
  return node == nullptr
             ? 0
             : node->value + Sum(node->left) * 3 + Sum(node->right) * 5;
}

void Drop(Node* node) {
  if (node == nullptr) return;
  Drop(node->left);
  Drop(node->right);
  std::free(node);
}

Figures Run(const Params& params) {
  const Sizes sizes = {params["min_size"], params["max_size"]};
  const int depth = params.Int("depth");
  const uint64_t nodes = (uint64_t{2} << depth) - 1;
  Random random(params["seed"]);
  Figures figures;
  // Trees that live on, of which each round replaces one, beside a tree that
  // lives for the round: old and new nodes end up side by side.
  std::vector<Node*> kept(params["kept"], nullptr);
  for (uint64_t i = 0; i < params["trees"]; ++i) {
    Node* const old = Build(&random, depth, sizes);
    Node* const tree = Build(&random, depth, sizes);
    figures.checksum += Sum(tree);
    Drop(tree);
    figures.operations += 2 * nodes;
    if (kept.empty()) {
      Drop(old);
    } else {
      Node*& slot = kept[random.Below(kept.size())];
      Drop(slot);
      slot = old;
    }
  }
  for (Node* const tree : kept) {
    figures.checksum += Sum(tree);
    Drop(tree);
  }
  return figures;
}

}  // namespace

Workload TreeWorkload() {
  return {"tree",
          "builds and drops trees of small nodes, one thread",
          {{"depth", 12, 0, 24, "depth of a tree: 2^(depth+1)-1 nodes"},
           {"trees", 800, 1, UINT64_MAX, "trees to build, twice", true},
           {"kept", 20, 0, 1000000, "trees that live on"},
           {"min_size", 24, 24, 1 << 20, "least size of a node, in bytes"},
           {"max_size", 72, 24, 1 << 20, "greatest size"},
           SeedParam()},
          &Run,
          {{"min_size", "max_size"}}};
}

}  // namespace hakmem::tools
