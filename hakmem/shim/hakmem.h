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
// about a millisecond for 1 GiB. It takes mincore(), which sandboxes may refuse;
// with HAKMEM_MINCORE=never all that is mapped counts as resident.

// Fills in the first `stats_size` bytes of `*stats`, which is sizeof(hak_stats)
// as the caller was compiled, so that a newer library may append fields.
// Returns 0, or EINVAL when `stats` is null. The figures are read while other
// threads go on and so need not be of one instant.
int hak_stats_get(hak_stats* stats, size_t stats_size);

// Writes a heap profile to the file, in the format of pprof: which stacks have
// allocated how much, and have how much of it in use. A file that is there is
// replaced. The figures are estimates from samples, which are taken while
// HAKMEM_SAMPLE_BYTES or HAKMEM_PROFILE is set.
// Returns 0 or an errno value: that of the file; ENODATA when no samples are
// taken, EINVAL when `path` is null, EBUSY while another thread writes one, and
// ENOMEM. May be called from a signal handler. See docs/profiling.md.
int hak_profile_write(const char* path);

// Sites: which place of the program holds the memory.
//
// A site is named by an id: what hak_site() returned, or any other number that
// means something to the program. A block that is allocated for a site belongs
// to it until it is freed, by whatever function and thread, and is counted
// exactly. Blocks of no site cost nothing. There is room for 65,536 sites; the
// blocks of all others are counted together, under a site of kind
// HAK_SITE_OTHER, and one line on stderr says so when that begins.
// docs/statistics.md says more.

// The id of a site at a line of source. The texts are copied, and may be null;
// the same texts and line give the same id. 0 when memory has run out: a number
// like any other. A place need not ask twice: see HAK_ALLOC.
uintptr_t hak_site(const char* file, unsigned line, const char* label);

// As hak_alloc(), hak_calloc() and hak_aligned_alloc(), for a site. When the
// site cannot be counted, because memory for that has run out, the block
// belongs to none.
void* hak_alloc_at(size_t size, uintptr_t site_id);
void* hak_calloc_at(size_t count, size_t size, uintptr_t site_id);
void* hak_aligned_alloc_at(size_t alignment, size_t size, uintptr_t site_id);

// As hak_realloc(); the block that it returns belongs to `site_id`, whether it
// moved or not. hak_realloc() itself leaves a block with its site, except that
// a block which has to move within a scope goes to the scope's.
void* hak_realloc_at(void* ptr, size_t size, uintptr_t site_id);

// As hak_free(). The block may be any; a library that is built with
// --config=checked ends the program with one line when it does not belong to
// `site_id`.
void hak_free_at(void* ptr, uintptr_t site_id);

// From begin to end, what this thread allocates through malloc, new and all
// functions that name no site belongs to `site_id`; with an id that cannot be
// counted, nothing changes. Scopes nest; each ends, with what its begin
// returned, on the thread where it began, innermost first.
uintptr_t hak_scope_begin(uintptr_t site_id);
void hak_scope_end(uintptr_t token);

enum {
  HAK_SITE_OTHER = 0,   // what came when the table of sites was full
  HAK_SITE_PLACE = 1,   // made by hak_site()
  HAK_SITE_NUMBER = 2,  // a number that the program chose
  HAK_SITE_CALLER = 3,  // an address that called malloc: HAKMEM_SITES=caller
  HAK_SITE_SCOPE = 4,   // made by hak_site(), and a scope has begun with it
  HAK_SITE_STACK = 5    // sampled
};

enum { HAK_AGE_BUCKETS = 9, HAK_SIZE_BUCKETS = 48 };

typedef struct hak_site_stats {
  uintptr_t id;       // to be given to the functions above; but of a caller
                      // the address that its call returns to
  uint64_t kind;      // HAK_SITE_…
  const char* file;   // of a caller the program or library; "" when unknown.
                      // These two stay valid for ever
  const char* label;  // "" when there is none
  uint64_t line;      // 0 when unknown
  uint64_t offset;    // of a caller: the address as its file has it
  uint64_t live_blocks;
  uint64_t live_bytes;  // of blocks, which are rounded up to a size class
  uint64_t peak_bytes;  // the most that live_bytes was, but for what a thread
                        // counts late of a size: up to 192 KiB, 576 KiB above
                        // 1 KiB, and four blocks above 32 KiB
  uint64_t total_blocks;  // ever allocated
  uint64_t total_bytes;
  // Of those, by size: [i] has blocks of up to 2^i bytes, above 2^(i-1).
  uint64_t sizes[HAK_SIZE_BUCKETS];
  // Freed blocks by age: [i] up to 16 ms * 4^i, the last one all older ones.
  uint64_t ages[HAK_AGE_BUCKETS];
} hak_site_stats;

// Fills in the first `stats_size` bytes of `*stats`, as hak_stats_get() does,
// for one site. Returns 0, EINVAL when `stats` is null, or ENOENT when no block
// was ever allocated for the site and hak_site() did not make it. Exact as long
// as no other thread allocates or frees for the site.
int hak_site_stats_get(uintptr_t site_id, hak_site_stats* stats,
                       size_t stats_size);

// Calls visit(stats, arg) for every site, in no order, with what they were when
// this was called; `visit` may do anything. Returns 0 or ENOMEM.
int hak_sites_visit(void (*visit)(const hak_site_stats* stats, void* arg),
                    void* arg);

// Looks at every tracked block, one by one, and returns by how many bytes the
// sums of the sites are wrong: 0 at any moment when no other thread allocates
// or frees; -1 when memory has run out. For tests; other threads wait
// meanwhile.
int64_t hak_sites_check(void);

// The heap's statistics and those of all sites as a JSON object, a text ended
// by a zero; give it back by free(). Null, with errno set to ENOMEM, when
// memory has run out. docs/statistics.md explains each field.
char* hak_stats_json(void);

#ifdef __cplusplus
}  // extern "C"
#endif

// HAK_SITE("label"): the id of the place where it stands.
// HAK_ALLOC(size): hak_alloc_at(size) for that place.
// HAK_SCOPE("label"): from here to the end of the block, the allocations of
// this thread that name no site belong to this place. A declaration.
//
// Each asks for the id once and keeps it. They are for gcc and clang.
#define HAK_SITE(label)                                                     \
  __extension__({                                                           \
    static uintptr_t hak_site_here_;                                        \
    uintptr_t hak_id_ = __atomic_load_n(&hak_site_here_, __ATOMIC_RELAXED); \
    if (hak_id_ == 0) {                                                     \
      hak_id_ = hak_site(__FILE__, __LINE__, label);                        \
      __atomic_store_n(&hak_site_here_, hak_id_, __ATOMIC_RELAXED);         \
    }                                                                       \
    hak_id_;                                                                \
  })
#define HAK_ALLOC(size) hak_alloc_at(size, HAK_SITE(""))

#define HAK_CONCATENATE_INNER_(a, b) a##b
#define HAK_CONCATENATE_(a, b) HAK_CONCATENATE_INNER_(a, b)

#ifdef __cplusplus
namespace hakmem {

// A scope as an object: from its construction to its destruction.
class Scope {
 public:
  explicit Scope(uintptr_t site_id) : token_(hak_scope_begin(site_id)) {}
  ~Scope() { hak_scope_end(token_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  const uintptr_t token_;
};

}  // namespace hakmem

#define HAK_SCOPE(label) \
  const hakmem::Scope HAK_CONCATENATE_(hak_scope_, __LINE__)(HAK_SITE(label))
#else
static inline void hakmem_scope_leave_(const uintptr_t* token) {
  hak_scope_end(*token);
}
#define HAK_SCOPE(label)                                      \
  const uintptr_t HAK_CONCATENATE_(hak_scope_, __LINE__)      \
      __attribute__((cleanup(hakmem_scope_leave_), unused)) = \
          hak_scope_begin(HAK_SITE(label))
#endif

#endif  // HAKMEM_SHIM_HAKMEM_H_
