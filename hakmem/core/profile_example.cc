// Writes a profile of tables that it makes up: `STACKS FRAMES FILE...`, that
// many stacks of that many frames each, to each of the files in turn. Prints
// what WriteProfile() returned for each.
//
// Stack i has the cells: 64-byte blocks, 10 + i allocated, 3 of them freed; and
// large ones, 2 of together 5,000,000 bytes, of which 1 with 2,000,000 is
// freed. Frame 0 of every stack is in this program; the others are addresses
// that differ from stack to stack. They were sampled at twice the profile's
// interval. One more stack has no cell yet.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "hakmem/core/observed.h"
#include "hakmem/core/os.h"
#include "hakmem/core/profile.h"

namespace {

constexpr uint64_t kInterval = 4096;

void SetRegion(hakmem::ObservedRegion& region, void* elements, size_t count,
               size_t element_bytes) {
  region.address = reinterpret_cast<uintptr_t>(elements);
  region.count = count;
  region.element_bytes = static_cast<uint32_t>(element_bytes);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto stacks = static_cast<size_t>(std::atol(argv[1]));
  const auto depth = static_cast<size_t>(std::atol(argv[2]));
  // One site before them that is not a stack, and the one without a cell.
  std::vector<hakmem::ObservedSite> sites(stacks + 2);
  std::vector<hakmem::ObservedCell> cells(2 * stacks);
  std::vector<uint64_t> frames(stacks * depth);
  sites[0].kind = hakmem::SiteKind::kOther;
  sites[stacks + 1].kind = hakmem::SiteKind::kStack;
  sites[stacks + 1].module_offset = kInterval;
  for (size_t i = 0; i < stacks; ++i) {
    hakmem::ObservedSite& site = sites[i + 1];
    site.kind = hakmem::SiteKind::kStack;
    site.frames = i * depth;
    site.module_offset = 2 * kInterval;
    site.frame_count = static_cast<uint32_t>(depth);
    site.first_cell = static_cast<uint32_t>(2 * i + 1);
    for (size_t j = 0; j < depth; ++j) {
      frames[i * depth + j] =
          j == 0 ? reinterpret_cast<uintptr_t>(&main) + 1 + i % 16
                 : 0x100000 + (i * depth + j) * 16;
    }
    hakmem::ObservedCell& small = cells[2 * i];
    small.next = static_cast<uint32_t>(2 * i + 2);
    small.block_bytes = 64;
    small.allocs = 10 + i;
    small.frees = 3;
    hakmem::ObservedCell& large = cells[2 * i + 1];
    large.allocs = 2;
    large.frees = 1;
    large.alloc_bytes = 5000000;
    large.free_bytes = 2000000;
  }
  static hakmem::Observed observed;
  SetRegion(observed.sites, sites.data(), sites.size(), sizeof(sites[0]));
  SetRegion(observed.cells, cells.data(), cells.size(), sizeof(cells[0]));
  SetRegion(observed.frames, frames.data(), frames.size(), sizeof(frames[0]));
  observed.start_milliseconds = hakmem::os::CoarseMilliseconds() - 2000;
  for (int i = 3; i < argc; ++i) {
    std::printf("%d\n", hakmem::WriteProfile(argv[i], observed, kInterval));
  }
  std::printf("%.17g\n", hakmem::SampleProbability(1e-3, 1e6));
  std::printf("%.17g\n", hakmem::SampleProbability(1000, 1000));
  std::printf("%.17g\n", hakmem::SampleProbability(1e9, 1));
  return 0;
}
