#include "hakmem/core/run_tree.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

// The same by other means: start and length of each run, searched one by one.
class Model {
 public:
  explicit Model(uint32_t granules) : granules_(granules) {}

  // Whether [start, start + length) touches no run.
  bool HasRoom(uint32_t start, uint32_t length) const {
    const auto next = runs_.lower_bound(start);
    if (next != runs_.end() && next->first <= start + length) return false;
    if (next == runs_.begin()) return true;
    const auto before = std::prev(next);
    return before->first + before->second < start;
  }

  void Insert(uint32_t start, uint32_t length) { runs_[start] = length; }

  uint32_t RemoveAny(std::mt19937& random) {
    const auto run = std::next(runs_.begin(), random() % runs_.size());
    const uint32_t start = run->first;
    runs_.erase(run);
    return start;
  }

  // Another length for any run, up to twice as much as it has, and its start.
  uint32_t ResizeAny(std::mt19937& random) {
    const auto run = std::next(runs_.begin(), random() % runs_.size());
    const auto next = std::next(run);
    const uint32_t limit = next == runs_.end() ? granules_ : next->first;
    const uint32_t most = std::min(2 * run->second, limit - run->first - 1);
    run->second = 1 + random() % most;
    return run->first;
  }

  uint32_t LengthAt(uint32_t start) const { return runs_.at(start); }

  uint32_t Find(uint32_t length, uint32_t alignment) const {
    for (const auto& [start, run] : runs_) {
      const uint32_t aligned = (start + alignment - 1) / alignment * alignment;
      if (aligned + length <= start + run) return start;
    }
    return 0;
  }

  uint32_t Longest() const {
    uint32_t longest = 0;
    for (const auto& [start, run] : runs_) longest = std::max(longest, run);
    return longest;
  }

  const std::map<uint32_t, uint32_t>& runs() const { return runs_; }
  uint32_t granules() const { return granules_; }

 private:
  const uint32_t granules_;
  std::map<uint32_t, uint32_t> runs_;
};

void ExpectAlike(const RunTree& tree, const Model& model) {
  ASSERT_EQ(tree.longest(), model.Longest());
  for (const auto& [start, length] : model.runs()) {
    ASSERT_EQ(tree.LengthAt(start), length);
    ASSERT_EQ(tree.LengthAt(start + length - 1), length);
  }
  for (uint32_t length = 1; length <= model.Longest() + 1; length += 3) {
    ASSERT_EQ(tree.FindSpaced(length), model.Find(length, RunTree::kSpacing))
        << length << " granules at a place of their own";
    for (uint32_t alignment = 1; alignment <= 64; alignment *= 2) {
      ASSERT_EQ(tree.Find(length, alignment), model.Find(length, alignment))
          << length << " granules at a multiple of " << alignment;
    }
  }
}

TEST(RunTreeTest, AnEmptyTreeHasNothing) {
  RunTree tree;
  std::vector<RunTree::Node> nodes(8);
  tree.Init(nodes.data());
  EXPECT_EQ(tree.Find(1, 1), 0u);
  EXPECT_EQ(tree.FindSpaced(1), 0u);
  EXPECT_EQ(tree.longest(), 0u);
}

TEST(RunTreeTest, FindsTheLowestRunWithRoomAfterAligning) {
  RunTree tree;
  std::vector<RunTree::Node> nodes(256);
  tree.Init(nodes.data());
  tree.Insert(1, 3);     // 1 to 3
  tree.Insert(30, 10);   // 30 to 39: eight from 32 on
  tree.Insert(64, 100);  // 64 to 163
  EXPECT_EQ(tree.Find(3, 1), 1u);
  EXPECT_EQ(tree.Find(4, 1), 30u);
  EXPECT_EQ(tree.Find(3, 4), 30u);
  EXPECT_EQ(tree.Find(8, 32), 30u);
  EXPECT_EQ(tree.Find(9, 32), 64u);
  EXPECT_EQ(tree.Find(10, 1), 30u);
  EXPECT_EQ(tree.Find(36, 128), 64u);
  EXPECT_EQ(tree.Find(37, 128), 0u);
  EXPECT_EQ(tree.Find(101, 1), 0u);
}

TEST(RunTreeTest, AgreesWithASimpleModel) {
  constexpr uint32_t kGranules = 2000;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    std::mt19937 random(seed);
    RunTree tree;
    std::vector<RunTree::Node> nodes(kGranules);
    tree.Init(nodes.data());
    Model model(kGranules);
    for (int step = 0; step < 3000; ++step) {
      // Grows to begin with, shrinks towards the end.
      const bool insert = random() % 3000 > static_cast<uint32_t>(step) / 2;
      if (random() % 3 == 0 && !model.runs().empty()) {
        const uint32_t start = model.ResizeAny(random);
        tree.Resize(start, model.LengthAt(start));
      } else if (insert || model.runs().empty()) {
        const uint32_t longest = random() % 8 == 0 ? 90 : 9;
        const uint32_t length = 1 + random() % longest;
        const uint32_t start = 1 + random() % (kGranules - length - 1);
        if (!model.HasRoom(start, length)) continue;
        tree.Insert(start, length);
        model.Insert(start, length);
      } else {
        tree.Remove(model.RemoveAny(random));
      }
      if (step % 64 == 0) {
        ASSERT_NO_FATAL_FAILURE(ExpectAlike(tree, model));
      }
    }
    ASSERT_NO_FATAL_FAILURE(ExpectAlike(tree, model));
    while (!model.runs().empty()) tree.Remove(model.RemoveAny(random));
    ASSERT_NO_FATAL_FAILURE(ExpectAlike(tree, model));
  }
}

}  // namespace
}  // namespace hakmem
