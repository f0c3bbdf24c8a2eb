// What a part of the arena does where memory comes in huge pages, of 2 MiB:
// what is touched at one place becomes resident all around it.

#include <algorithm>
#include <cstdint>

#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

static_assert(kHugeGranules == 32, "half of a word of GranuleBits");

// The half of one of the words of 64 granules that stands for a huge page.
uint32_t HalfOf(uint64_t GranuleBits::*mark, const GranuleBits* bits,
                uint32_t page) {
  return static_cast<uint32_t>(bits[page / 2].*mark >>
                               (page % 2 * kHugeGranules));
}

}  // namespace

// If there are any: from here on free granules count as dirty where a
// huge page may back them. Small programs do without.
void ArenaPart::MindHugePages() {
  if (huge_pages_ || !arena_->gives_huge_pages()) return;
  huge_pages_ = true;
  for (uint32_t page = begin_ / kHugeGranules; page * kHugeGranules < frontier_;
       ++page) {
    if (HalfOf(&GranuleBits::dirty, bits_, page) != 0 || !HugePageIsFree(page))
      MarkHugePage(page);
  }
}

bool ArenaPart::HugePageIsFree(uint32_t page) const {
  if (HalfOf(&GranuleBits::dirty, bits_, page) == ~uint32_t{0}) return true;
  const uint32_t end = std::min((page + 1) * kHugeGranules, frontier_);
  uint32_t granule = page * kHugeGranules;
  while (granule < end && maps().IsFree(granule)) ++granule;
  return granule == end;
}

// Whether nothing of it is free once [start, end) is taken.
bool ArenaPart::IsFullWith(uint32_t page, uint32_t start, uint32_t end) const {
  const uint32_t page_end = std::min((page + 1) * kHugeGranules, frontier_);
  uint32_t granule = page * kHugeGranules;
  while (granule < page_end &&
         ((granule >= start && granule < end) || !maps().IsFree(granule))) {
    ++granule;
  }
  return granule == page_end;
}

// Marks all that is free of a huge page as dirty, and what was not as clean.
void ArenaPart::MarkHugePage(uint32_t page) {
  const uint32_t end = std::min((page + 1) * kHugeGranules, frontier_);
  for (uint32_t granule = page * kHugeGranules; granule < end; ++granule) {
    const uint64_t bit = uint64_t{1} << (granule % 64);
    GranuleBits& of = bits_[granule / 64];
    if (!maps().IsFree(granule) || (of.dirty & bit) != 0) continue;
    of.clean |= bit;
    of.dirty |= bit;
    ++dirty_granules_;
  }
  dirty_end_ = std::max(dirty_end_, end);
}

// The system has a thread, khugepaged, that makes parts into huge pages again:
// also of a single small page among others that went back. So where huge pages
// were asked for, that is taken back for those of which a part has gone, until
// they are free as a whole or in use as a whole.
//
// Each of them may be a mapping more, two with what is behind it, of the 65,530
// that a process may have. So many all parts may have together.
constexpr uint32_t kMostSmallPages = 4096;

void ArenaPart::KeepSmall(uint32_t start, uint32_t end) {
  if (arena_->options().huge_pages != kHugePagesAsked) return;
  const uint32_t most = kMostSmallPages / arena_->parts();
  for (uint32_t page = start / kHugeGranules;
       page <= (end - 1) / kHugeGranules && small_pages_ < most; ++page) {
    if (HalfOf(&GranuleBits::small, bits_, page) != 0 || HugePageIsFree(page))
      continue;
    const uint32_t first = page * kHugeGranules;
    if (first + kHugeGranules > frontier_) continue;
    os::RefuseHugePages(maps().AddressOf(first), os::kHugePageSize);
    bits_[first / 64].small |= uint64_t{1} << (first % 64);
    ++small_pages_;
  }
}

void ArenaPart::MakeHugeAgain(uint32_t page) {
  if (HalfOf(&GranuleBits::small, bits_, page) == 0) return;
  const uint32_t first = page * kHugeGranules;
  os::AskForHugePages(maps().AddressOf(first), os::kHugePageSize);
  bits_[first / 64].small &= ~(uint64_t{1} << (first % 64));
  --small_pages_;
}

void ArenaPart::NotePurgedParts(const Span* span) {
  if (arena_->options().huge_pages != kHugePagesAsked) return;
  Lock lock(*this);
  if (huge_pages_) KeepSmall(span->start, span->start + span->granules);
}

// Before [start, end) is handed out: a huge page that nothing is resident of
// becomes so as a whole when a part of it is touched. One of which a part was
// resident already gets the rest in small pages.
void ArenaPart::MarkWhatIsTouched(uint32_t start, uint32_t end) {
  const uint32_t first = start / kHugeGranules;
  const uint32_t last = (end - 1) / kHugeGranules;
  const auto mark = [this](uint32_t page) {
    mu_.AssertHeld();
    if (HalfOf(&GranuleBits::dirty, bits_, page) == 0 && HugePageIsFree(page))
      MarkHugePage(page);
  };
  if (start % kHugeGranules != 0 || first == last) mark(first);
  if (end % kHugeGranules != 0 && first != last) mark(last);
  for (uint32_t page = first; small_pages_ != 0 && page <= last; ++page) {
    // Free until now, or full from now on.
    if (HugePageIsFree(page) || IsFullWith(page, start, end)) {
      MakeHugeAgain(page);
    }
  }
}

// Returns whole huge pages to the system until no more than `keep` granules are
// dirty, or there are no more. From the top down, as PurgeRuns().
void ArenaPart::PurgeHugePages(Kept keep) {
  for (uint32_t page = (dirty_end_ + kHugeGranules - 1) / kHugeGranules;
       page-- > begin_ / kHugeGranules && Beyond(keep) != 0;) {
    if (HalfOf(&GranuleBits::dirty, bits_, page) == 0 || !HugePageIsFree(page))
      continue;
    const uint32_t start = page * kHugeGranules;
    if (!PurgeRun(start, std::min(start + kHugeGranules, frontier_))) return;
    if (small_pages_ != 0) MakeHugeAgain(page);
  }
}

}  // namespace hakmem
