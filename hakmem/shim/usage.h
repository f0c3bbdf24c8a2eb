// Where the heap's memory is: what hak_stats_get(), mallinfo() and
// malloc_info() say of it.

#ifndef HAKMEM_SHIM_USAGE_H_
#define HAKMEM_SHIM_USAGE_H_

#include <cstddef>

namespace hakmem::heap {

// All in bytes. Read one after another while other threads go on; where none
// does, they add up:
//   small_live + thread_cached + depot_cached + slab_free + slab_tails = slabs
//   slabs + large + free_runs = committed
//   committed + direct + tables = mapped
struct Usage {
  size_t small_live;     // blocks of the program's, as large as their class
  size_t thread_cached;  // free blocks in the magazines of threads
  size_t depot_cached;   // free blocks in the depots
  size_t slab_free;      // free blocks in slabs
  size_t slab_tails;     // the ends of slabs, which no block fits
  size_t slabs;          // granules that slabs hold
  size_t large;          // granules that large blocks hold
  size_t free_runs;      // granules that nobody holds
  size_t free_dirty;     // of these, what the system still backs
  size_t committed;      // of the arena, what has been made accessible
  size_t reserved;       // address space of the arena
  size_t direct;         // mappings outside of the arena
  size_t direct_count;
  size_t metadata;  // of hakmem's own tables, what is handed out
  size_t tables;    // of the same, what is accessible
  size_t mapped;

  size_t live() const { return small_live + large + direct; }
};
Usage GetUsage();

// What of it the system backs with memory: in pages, asked of the system, which
// takes time for every page that is mapped. In bytes.
struct Residency {
  size_t slabs;
  size_t large;
  size_t free_runs;
  size_t direct;
  size_t tables;

  size_t total() const { return slabs + large + free_runs + direct + tables; }
};
Residency GetResidency();

}  // namespace hakmem::heap

#endif  // HAKMEM_SHIM_USAGE_H_
