// The native C interface of hakmem.
//
// Every function here may be called from any thread at any time, from C or
// C++, before the program's constructors have run and after its destructors
// have. None of them throws. Sizes and alignments are in bytes.
//
// A program that links hakmem, or runs with it preloaded, also gets malloc,
// free and the rest of that family, and operator new and delete, from the same
// heap: a block from any of them may be given back through any other. Which
// names those are, and what they leave open, docs/compatibility.md says.

#ifndef HAKMEM_SHIM_HAKMEM_H_
#define HAKMEM_SHIM_HAKMEM_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Returns a block of at least `size` bytes, aligned to 16 bytes (8 when `size`
// is 8 or less), or a null pointer with errno set to ENOMEM. A size of 0 gives
// a block that is distinct from every other live block and has to be freed.
void* hak_alloc(size_t size);

// As hak_alloc(). `site_id` names the place in the program that asks, and the
// block has to go back through hak_free_at() with the same id, or through any
// other function that frees.
void* hak_alloc_at(size_t size, uintptr_t site_id);

// As hak_alloc(count * size), with all bytes zero. A product that does not fit
// into size_t fails with ENOMEM.
void* hak_calloc(size_t count, size_t size);

// Resizes a block to `size` bytes, keeping its contents up to the lesser of the
// two sizes, and returns where it is now. On failure returns a null pointer
// with errno set to ENOMEM and leaves the block as it was. A null `ptr` is
// hak_alloc(size); a `size` of 0 with a non-null `ptr` frees the block and
// returns a null pointer, as glibc does.
void* hak_realloc(void* ptr, size_t size);

// As hak_alloc(), aligned to `alignment`, which has to be a power of two;
// otherwise returns a null pointer with errno set to EINVAL.
void* hak_aligned_alloc(size_t alignment, size_t size);

// Gives a block back. A null pointer is ignored; errno is left as it was. A
// pointer that this heap did not hand out, or that was given back already and
// whose second return is noticed, ends the program with one line on stderr.
void hak_free(void* ptr);
void hak_free_at(void* ptr, uintptr_t site_id);

// How many bytes of the block at `ptr` the program may use: at least what it
// asked for. 0 for a null pointer.
size_t hak_usable_size(const void* ptr);

// Returns to the system at least `bytes` bytes of the memory that only waits for
// reuse, if there is that much, what costs least to do without first: free runs,
// then what the calling thread and the depots have cached, empty slabs, free
// pages of the others. 0 stands for all of it, as malloc_trim(0) does. Memory
// that is in use stays, and so do other threads' caches, which
// HAKMEM_CACHE_BYTES bounds. Says how many bytes the system got.
size_t hak_release_memory(size_t bytes);

// Starts a thread that returns memory while the program does nothing, which
// otherwise waits for the next calls that do not end in a thread's cache. It
// wakes up four times a second, and ten times where something has happened.
// There is none unless this is called or HAKMEM_BACKGROUND is 1. Returns 0, also
// when there was one already, or an error number as pthread_create() does. The
// child of a fork has one if the parent had. Not from a signal handler.
int hak_background_start(void);

// Ends that thread, if there is one, and waits for its end.
void hak_background_stop(void);

// The stage this library was built as: "p0", "tls_tiny", "tls_l2", "tls_full"
// or "unlocked". A library built "unlocked" may be used by one thread at a time
// only.
const char* hak_config(void);

enum { HAK_POOL_TINY = 0, HAK_POOL_L2 = 1, HAK_POOL_L25 = 2, HAK_POOLS = 3 };

typedef struct hak_pool_stats {
  // 1 where the pool has thread caches, 0 where every call takes its lock; the
  // counters below stay 0 then.
  uint64_t cached;
  // Calls that the calling thread's own magazines could not serve, so that they
  // went on to the depot or to the slabs.
  uint64_t alloc_misses;
  uint64_t free_misses;
  // Those of the above that found nothing in the depot, or no room, and took
  // the pool's lock.
  uint64_t refills;
  uint64_t flushes;
  // Blocks that magazines brought to threads, or took away from them. Each was
  // a call that hit, so these are lower bounds of the hits; calls that only
  // move up and down within a thread's magazines are not counted anywhere.
  uint64_t blocks_loaded;
  uint64_t blocks_unloaded;
} hak_pool_stats;

typedef struct hak_stats {
  hak_pool_stats pools[HAK_POOLS];
  uint64_t reserved_bytes;    // address space set aside for the arena
  uint64_t committed_bytes;   // of it, what has been made accessible
  uint64_t slab_bytes;        // granules held by slabs of the three pools
  uint64_t large_bytes;       // granules held by live blocks above 1 MiB
  uint64_t direct_bytes;      // mappings made outside of the arena
  uint64_t free_dirty_bytes;  // free granules that the system still backs
  uint64_t cache_bytes;       // blocks in depots, room in threads' caches
  uint64_t metadata_bytes;    // hakmem's own tables, as far as handed out

  // Where the memory is. Blocks count as large as they were made, so a block of
  // 100 bytes as 112.
  uint64_t live_bytes;          // blocks of the program's, of every size
  uint64_t thread_cache_bytes;  // free blocks in the magazines of threads
  uint64_t depot_bytes;         // free blocks in the depots
  uint64_t slab_free_bytes;     // free blocks in slabs
  uint64_t slab_tail_bytes;     // the ends of slabs, which no block fits
  uint64_t free_run_bytes;      // granules of the arena that nobody holds
  uint64_t table_bytes;         // hakmem's own tables, as far as accessible
  uint64_t mapped_bytes;        // all memory that hakmem has accessible

  // What of it is resident: what the system backs with memory, in whole pages.
  uint64_t slab_resident_bytes;
  uint64_t large_resident_bytes;
  uint64_t direct_resident_bytes;
  uint64_t free_resident_bytes;  // of the granules that nobody holds
  uint64_t table_resident_bytes;
  uint64_t resident_bytes;  // the sum of these
} hak_stats;

// Where no other thread allocates or frees meanwhile:
//   live + thread_cache + depot + slab_free + slab_tail + free_run + table
//       = mapped
//   slab + large + free_run = committed
//   committed + direct + table = mapped
// The resident figures are asked of the system where they are asked for
// (stats_size covers them), which takes time for every page that is mapped:
// about a millisecond for 1 GiB.

// Fills in the first `stats_size` bytes of `*stats`, which is sizeof(hak_stats)
// as the caller was compiled, so that a newer library may append fields.
// Returns 0, or EINVAL when `stats` is null. The figures are read while other
// threads go on and so need not be of one instant.
int hak_stats_get(hak_stats* stats, size_t stats_size);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // HAKMEM_SHIM_HAKMEM_H_
