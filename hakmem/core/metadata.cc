#include "hakmem/core/metadata.h"

#include <algorithm>
#include <bit>

#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// Small programs need a few dozen KiB of metadata; the system call costs about
// as much as filling a page.
constexpr size_t kCommitStep = 256 * 1024;

}  // namespace

void Metadata::Init(char* region, size_t bytes) {
  region_ = region;
  size_ = bytes;
  used_.store(kUnit, std::memory_order_relaxed);  // index 0 is no piece
}

void* Metadata::Allocate(size_t bytes) {
  MutexLock lock(mu_);
  FreePiece*& head = free_[bytes / kUnit];
  if (head != nullptr) {
    FreePiece* const piece = head;
    head = piece->next;
    return piece;
  }
  size_t start = used_.load(std::memory_order_relaxed);
  // Powers of two are aligned to themselves, so that a small magazine does not
  // lie across two cache lines or a large one across two pages; what is passed
  // over is at most one piece of each smaller size.
  const size_t alignment = std::has_single_bit(bytes) ? bytes : kUnit;
  start = (start + alignment - 1) & ~(alignment - 1);
  const size_t end = start + bytes;
  if (end > size_) return nullptr;
  if (end > committed_) {
    const size_t target = std::min(size_, committed_ + kCommitStep);
    if (!os::Commit(region_ + committed_, target - committed_)) return nullptr;
    committed_ = target;
  }
  used_.store(end, std::memory_order_relaxed);
  return region_ + start;
}

void Metadata::Free(void* piece, size_t bytes) {
  MutexLock lock(mu_);
  auto* const free_piece = static_cast<FreePiece*>(piece);
  free_piece->next = free_[bytes / kUnit];
  free_[bytes / kUnit] = free_piece;
}

}  // namespace hakmem
