#include "hakmem/core/metadata.h"

#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/mutex.h"
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

TEST_F(MetadataTest, PiecesAreAlignedAndApart) {
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
      ASSERT_GT(piece, region_);
      ASSERT_LE(piece + bytes, region_ + bytes_);
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

TEST_F(MetadataTest, CountsWhatIsInUse) {
  Init(size_t{1} << 20);
  EXPECT_EQ(metadata_.used_bytes(), 0u);
  void* const small = metadata_.Allocate(64);
  void* const large = metadata_.Allocate(192);
  EXPECT_EQ(metadata_.used_bytes(), 256u);
  EXPECT_LE(metadata_.resident_bytes(), 8192u);  // the table and a page
  metadata_.Free(small, 64);
  EXPECT_EQ(metadata_.used_bytes(), 192u);
  metadata_.Free(large, 192);
  EXPECT_EQ(metadata_.used_bytes(), 0u);
}

TEST_F(MetadataTest, AnExhaustedRegionSaysNullAndRecovers) {
  Init(size_t{600} << 10);  // two commit steps and a bit
  std::vector<void*> pieces;
  while (void* const piece = metadata_.Allocate(1024)) pieces.push_back(piece);
  EXPECT_EQ(pieces.size(), 596u);  // the table of pages has the first
  EXPECT_EQ(metadata_.Allocate(2048), nullptr);
  EXPECT_EQ(metadata_.Allocate(64), nullptr);
  EXPECT_LE(metadata_.resident_bytes(), bytes_);
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

TEST_F(MetadataTest, WhatOneSizeGaveBackServesEveryOther) {
  Init(size_t{600} << 10);
  constexpr size_t kPages = 149;
  std::vector<void*> pieces;
  for (size_t bytes = Metadata::kUnit; bytes <= Metadata::kMaxPiece;
       bytes += Metadata::kUnit) {
    while (void* const piece = metadata_.Allocate(bytes)) {
      ASSERT_EQ(reinterpret_cast<uintptr_t>(piece) % Metadata::kUnit, 0u);
      pieces.push_back(piece);
    }
    // A page holds as many as the holes of the next power of two.
    EXPECT_EQ(pieces.size(), kPages * (64 / std::bit_ceil(bytes / 64)))
        << bytes;
    for (void* const piece : pieces) metadata_.Free(piece, bytes);
    EXPECT_EQ(metadata_.used_bytes(), 0u);
    pieces.clear();
  }
}

// Random pieces against a map of which bytes are whose.
TEST_F(MetadataTest, NeighboursAreOneHoleAgain) {
  Init(size_t{400} << 10);
  std::mt19937 random(7);
  struct Piece {
    char* start;
    size_t bytes;
    char mark;
  };
  std::vector<Piece> pieces;
  size_t used = 0;
  for (int step = 0; step < 200000; ++step) {
    const size_t bytes = (random() % (random() % 2 ? 64 : 4) + 1) * 64;
    void* const memory = random() % 2 ? metadata_.Allocate(bytes) : nullptr;
    if (memory != nullptr) {
      const auto mark = static_cast<char>(random());
      pieces.push_back({static_cast<char*>(memory), bytes, mark});
      std::memset(memory, mark, bytes);
      used += bytes;
    } else if (!pieces.empty()) {
      std::swap(pieces[random() % pieces.size()], pieces.back());
      const Piece piece = pieces.back();
      pieces.pop_back();
      for (size_t b = 0; b < piece.bytes; b += 8) {
        ASSERT_EQ(piece.start[b], piece.mark) << "has another owner";
      }
      metadata_.Free(piece.start, piece.bytes);
      used -= piece.bytes;
    }
    ASSERT_EQ(metadata_.used_bytes(), used);
  }
  for (const Piece& piece : pieces) metadata_.Free(piece.start, piece.bytes);
  size_t whole = 0;
  while (metadata_.Allocate(Metadata::kMaxPiece) != nullptr) ++whole;
  EXPECT_EQ(whole, 99u);
}

TEST_F(MetadataTest, PagesWithoutAPieceGoBackToTheSystem) {
  Init(size_t{8} << 20);
  constexpr int kPieces = 1600;
  std::vector<void*> pieces;
  for (int i = 0; i < kPieces; ++i) {
    pieces.push_back(metadata_.Allocate(4096));
    std::memset(pieces.back(), 1, 4096);
  }
  EXPECT_GE(metadata_.resident_bytes(), kPieces * size_t{4096});
  void* const kept = metadata_.Allocate(64);
  std::memset(kept, 2, 64);
  for (void* const piece : pieces) metadata_.Free(piece, 4096);
  // Some at once, the rest when told.
  EXPECT_LT(metadata_.resident_bytes(), kPieces * size_t{4096} / 4);
  const size_t before = metadata_.resident_bytes();
  const size_t purged = metadata_.Purge();
  EXPECT_GT(purged, 0u);
  EXPECT_EQ(metadata_.resident_bytes(), before - purged);
  EXPECT_LE(metadata_.resident_bytes(), size_t{36} << 10);  // table and `kept`
  for (void* const piece : pieces) {
    unsigned char resident = 0;
    ASSERT_EQ(mincore(piece, 4096, &resident), 0);
    ASSERT_EQ(resident & 1, 0);
  }
  for (int b = 0; b < 64; ++b) ASSERT_EQ(static_cast<char*>(kept)[b], 2);
}

}  // namespace
}  // namespace hakmem
