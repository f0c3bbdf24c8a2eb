#include "hakmem/core/metadata.h"

#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

class MetadataTest : public testing::Test {
 protected:
  void Init(size_t bytes) {
    Mutex::DetectValgrind();  // as the arena does before there is metadata
    bytes_ = bytes;
    region_ = static_cast<char*>(os::Reserve(bytes, os::kPageSize));
    ASSERT_NE(region_, nullptr);
    metadata_.Init(region_, bytes);
  }
  void TearDown() override {
    if (region_ != nullptr) os::Unmap(region_, bytes_);
  }

  Metadata metadata_;
  char* region_ = nullptr;
  size_t bytes_ = 0;
};

TEST_F(MetadataTest, PiecesAreAlignedApartAndNamedByTheirIndex) {
  Init(size_t{4} << 20);
  struct Piece {
    char* start;
    size_t bytes;
  };
  std::vector<Piece> pieces;
  for (int round = 0; round < 8; ++round) {
    for (size_t bytes = Metadata::kUnit; bytes <= Metadata::kMaxPiece;
         bytes += Metadata::kUnit * 5) {
      auto* const piece = static_cast<char*>(metadata_.Allocate(bytes));
      ASSERT_NE(piece, nullptr);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(piece) % Metadata::kUnit, 0u);
      ASSERT_GE(piece, region_);
      ASSERT_LE(piece + bytes, region_ + bytes_);
      ASSERT_NE(metadata_.IndexOf(piece), 0u);
      ASSERT_EQ(metadata_.FromIndex(metadata_.IndexOf(piece)), piece);
      std::memset(piece, static_cast<int>(pieces.size()), bytes);
      pieces.push_back({piece, bytes});
    }
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (size_t b = 0; b < pieces[i].bytes; ++b) {
      ASSERT_EQ(pieces[i].start[b], static_cast<char>(i)) << "piece " << i;
    }
  }
}

TEST_F(MetadataTest, PowersOfTwoAreAlignedToThemselves) {
  Init(size_t{1} << 20);
  for (size_t bytes = Metadata::kUnit; bytes <= Metadata::kMaxPiece;
       bytes *= 2) {
    ASSERT_NE(metadata_.Allocate(Metadata::kUnit), nullptr);  // off by one unit
    void* const piece = metadata_.Allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(piece) % bytes, 0u) << bytes;
  }
}

TEST_F(MetadataTest, AFreedPieceServesItsOwnSizeAgain) {
  Init(size_t{1} << 20);
  void* const small = metadata_.Allocate(64);
  void* const large = metadata_.Allocate(192);
  const size_t used = metadata_.used_bytes();
  metadata_.Free(small, 64);
  metadata_.Free(large, 192);
  EXPECT_EQ(metadata_.Allocate(192), large);
  EXPECT_EQ(metadata_.Allocate(64), small);
  EXPECT_EQ(metadata_.used_bytes(), used);
  metadata_.Free(small, 64);
  EXPECT_NE(metadata_.Allocate(128), small);
  EXPECT_GT(metadata_.used_bytes(), used);
}

TEST_F(MetadataTest, AnExhaustedRegionSaysNullAndRecovers) {
  Init(size_t{600} << 10);  // two commit steps and a bit
  std::vector<void*> pieces;
  while (void* const piece = metadata_.Allocate(1024)) pieces.push_back(piece);
  EXPECT_EQ(pieces.size(), 599u);  // index 0 costs the first place
  EXPECT_EQ(metadata_.Allocate(2048), nullptr);
  EXPECT_EQ(metadata_.Allocate(64), nullptr);
  EXPECT_LE(metadata_.used_bytes(), bytes_);
  std::set<void*> free;
  for (const size_t i : {7, 8, 300}) {
    metadata_.Free(pieces[i], 1024);
    free.insert(pieces[i]);
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(free.erase(metadata_.Allocate(1024)), 1u);
  }
  EXPECT_EQ(metadata_.Allocate(1024), nullptr);
}

TEST_F(MetadataTest, ThreadsGetPiecesOfTheirOwn) {
  Init(size_t{4} << 20);
  constexpr int kThreads = 4;
  constexpr int kRounds = 300;
  std::vector<std::vector<char*>> kept(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &kept] {
      for (int i = 0; i < kRounds; ++i) {
        auto* const a = static_cast<char*>(metadata_.Allocate(128));
        auto* const b = static_cast<char*>(metadata_.Allocate(128));
        std::memset(a, t, 128);
        std::memset(b, t, 128);
        metadata_.Free(a, 128);
        kept[t].push_back(b);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<char*> all;
  for (int t = 0; t < kThreads; ++t) {
    for (char* const piece : kept[t]) {
      EXPECT_TRUE(all.insert(piece).second);
      for (int b = 0; b < 128; ++b) ASSERT_EQ(piece[b], t);
    }
  }
}

}  // namespace
}  // namespace hakmem
