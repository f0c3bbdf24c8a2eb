// The calling thread's free blocks: one bin a size class.
//
// A bin is two magazines, of which the fast path sees the current one as a pair
// of pointers, top and limit. Both stand in static thread-local storage in
// arrays of their own, so that a class is an index and nothing has to be
// multiplied. Every thread's bins start at one shared magazine without room,
// which is empty and full at once: a first call takes the slow path like any
// other, and needs no test of its own.

#ifndef HAKMEM_CORE_THREAD_CACHE_H_
#define HAKMEM_CORE_THREAD_CACHE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/base/config.h"
#include "absl/base/thread_annotations.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/magazine.h"
#include "hakmem/core/mutex.h"
#include "hakmem/core/own_thread.h"
#include "hakmem/core/pool_geometry.h"
#include "hakmem/core/sampler.h"
#include "hakmem/core/site_cache.h"
#include "hakmem/core/size_class.h"

namespace hakmem {

class CachedPool;
struct ParkedBins;

namespace thread_cache_internal {

// The shared magazine without room. `floor` is never anything but null.
struct NoMagazine {
  void* floor;
  void* slots[1];
};
extern constinit NoMagazine no_magazine;

}  // namespace thread_cache_internal

// Counters of one pool in one thread; written by the thread alone, read by
// anybody.
struct CacheCounters {
  std::atomic<uint64_t> alloc_misses{0};
  std::atomic<uint64_t> free_misses{0};
  std::atomic<uint64_t> refills{0};
  std::atomic<uint64_t> flushes{0};
  std::atomic<uint64_t> blocks_loaded{0};
  std::atomic<uint64_t> blocks_unloaded{0};

  void AddTo(CacheCounters& sum) const;
  // An increment by the only writer: no locked instruction.
  static void Add(std::atomic<uint64_t>& counter, uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n,
                  std::memory_order_relaxed);
  }
};

// Where a magazine is, or null, in half a pointer's room: as its index in the
// metadata. Reading it costs a shift and an addition more.
//
// Thread safety: as an atomic pointer.
class MagazinePlace {
 public:
  constexpr MagazinePlace() = default;

  Magazine* load(std::memory_order order) const {
    const uint32_t index = index_.load(order);
    if (index == 0) return nullptr;
    return static_cast<Magazine*>(arena.PieceAt(index));
  }
  void store(Magazine* magazine, std::memory_order order) {
    index_.store(magazine == nullptr ? 0 : arena.IndexOf(magazine), order);
  }

 private:
  std::atomic<uint32_t> index_{0};
};

// Thread safety: belongs to its thread. Others read the counters, and the child
// of a fork takes over the caches of threads that it does not have: therefore
// every step leaves a block in one place at most (invariant 3). Invariants:
//  1. top[c][-1] is a block of class c, or null when the bin is empty.
//  2. limit[c] - top[c] is the room in the current magazine.
//  3. A magazine is taken out of its bin before it is put anywhere else, and a
//     slot is written before top includes it.
//  4. Class 0 is always empty and always full, and so are the doors of tracked
//     classes: so is everything that has to see a free.
//  5. An owner's own bin has the blocks of this thread's slot for it while that
//     is open (site_cache.h), and is empty and full otherwise.
class ThreadCache {
 public:
  enum class State : uint8_t {
    kNew,      // registered nowhere
    kActive,   // has bins; will be parked or flushed at the thread's end
    kBusy,     // active, and inside a slow path
    kUncached  // is ending, or cannot be told when it ends: has no bins
  };

  // 16 bytes: all threads have all bins in their static thread-local storage,
  // idle or not, and with pointers and whole words it was a page more of it.
  struct Bin {
    MagazinePlace current;
    MagazinePlace previous;
    uint16_t capacity = 0;     // blocks a magazine; 0 until it is first used
    uint16_t misses : 15 = 0;  // since it last grew
    uint16_t forced : 1 = 0;   // whether it began without a budget
    uint16_t last_top = 0;     // when IsIdle() was last asked
    uint8_t swaps_left = 0;    // until the slow path may let it grow
    bool drawn = false;        // current ran empty since it was last trimmed
  };
  static_assert(sizeof(Bin) == 16);

  constexpr ThreadCache();

  // Where the fast path of allocation finds blocks of `size` bytes, at most
  // kMaxTinySize, for this thread: the size's class, the class's door while the
  // thread counts what it allocates, or class 0 while the slow path is to see
  // all of it.
  size_t SmallBin(size_t size) const {
    const size_t index = (size + 7) >> 3;
    // EndWindow() of another thread may write there: each entry is the old one
    // or the new one. To say so costs two instructions (g++ 12).
#ifdef ABSL_HAVE_THREAD_SANITIZER
    return __atomic_load_n(&small_table_[index], __ATOMIC_RELAXED);
#else
    return small_table_[index];
#endif
  }

  // The same for the sizes of L2, whose classes have no table of this thread's:
  // their blocks are found in their bins, or there once they are counted, or
  // the slow path is to see all of them.
  enum class L2Way : uint8_t { kPlain, kCounted, kMarked };
  L2Way l2_way() const {
#ifdef ABSL_HAVE_THREAD_SANITIZER
    return static_cast<L2Way>(__atomic_load_n(&l2_way_, __ATOMIC_RELAXED));
#else
    return static_cast<L2Way>(l2_way_);
#endif
  }

  // The fast path: a block of a class, or null when the slow path has to be
  // taken.
  void* Pop(size_t size_class) {
    void** const top = top_[size_class] - 1;
    void* const block = *top;
    if (block == nullptr) [[unlikely]]
      return nullptr;
    top_[size_class] = top;
    return block;
  }

  // The path of a thread that takes samples, for what SmallBin() gave where
  // Pop() found nothing: counts the block, and takes it from the bin of the
  // class whose door this is. False when the slow path has to be taken, because
  // it is no door, the block is a sample (Sampler::IsDue()) or the bin is
  // empty.
  //
  // Its seven instructions come in front of the fast path's last two, and are
  // part of the same functions: see docs/profiling.md for what they cost.
  bool PopCounted(size_t bin, void** block) {
    if (!sampler_.PassByDoor(bin)) [[unlikely]]
      return false;
    // Keeps the compiler from making a register of the class's number.
    asm("" : "+r"(bin));
    void** const top = top_[bin - kDoorDistance] - 1;
    *block = *top;
    if (*block == nullptr) [[unlikely]]
      return false;
    asm("" : "+r"(bin));
    top_[bin - kDoorDistance] = top;
    // And this from merging it with the fast path, which would be an
    // instruction longer then.
    asm("" : "+r"(*block));
    return true;
  }

  // The fast path of free: false when the slow path has to be taken.
  bool Push(void* block) { return Push(view_.ClassOf(block), block); }

  // The same for a block whose class is known.
  bool Push(SizeClass size_class, void* block) {
    void** const top = top_[size_class];
    if (top == limit_[size_class]) [[unlikely]]
      return false;
    *top = block;
    // It is the next to be handed out, and written to by whoever gets it; who
    // freed it may never have touched it. Larson on four threads is 10 % faster
    // with it, and level with the best peer only then. Fetching the next block
    // at every allocation instead gained 6 %.
    __builtin_prefetch(block, 1);
    // Invariant 3. On x86 this keeps the compiler from swapping the two and
    // costs nothing.
    std::atomic_thread_fence(std::memory_order_release);
    top_[size_class] = top + 1;
    return true;
  }

  // The second path: the same for a class whose bin Pop() found empty, by
  // exchanging the bin's two magazines. Null when the slow path has to be
  // taken.
  //
  // A program that allocates and frees blocks of some KiB at random, whose
  // magazines are short, comes here with every tenth call: larson with 2-32 KiB
  // on four threads is 7 % faster with it than by the slow path.
  void* SwapAndPop(SizeClass size_class) {
    Bin& bin = bins_[size_class];
    Magazine* const full = bin.previous.load(std::memory_order_relaxed);
    if (full == nullptr || full->count == 0 || !MaySwap(bin)) return nullptr;
    bin.drawn = true;
    Swap(size_class, full);
    return Pop(size_class);
  }

  // The same for a class whose bin Push() found full: false when the slow path
  // has to be taken.
  bool SwapAndPush(SizeClass size_class, void* block) {
    Bin& bin = bins_[size_class];
    Magazine* const empty = bin.previous.load(std::memory_order_relaxed);
    if (empty == nullptr || empty->count != 0 ||
        empty->capacity() < bin.capacity || !MaySwap(bin)) {
      return false;
    }
    Swap(size_class, empty);
    return Push(size_class, block);
  }

  // For the length of a slow path that works on bins. A lock that has to wait
  // may set itself up by allocating (see mutex.cc), in the middle of one: that
  // inner call finds the bins busy, and the pools' locks serve it.
  class Use {
   public:
    explicit Use(ThreadCache& cache)
        : cache_(cache), granted_(cache.EnsureActive()) {
      if (granted_) cache_.state_ = State::kBusy;
    }
    ~Use() {
      if (granted_) cache_.state_ = State::kActive;
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    // False when this thread may not use bins, for now or for ever.
    bool granted() const { return granted_; }

   private:
    ThreadCache& cache_;
    const bool granted_;
  };

  Bin& bin(SizeClass size_class) { return bins_[size_class]; }
  CacheCounters& counters(uint32_t pool) { return counters_[pool]; }

  // Whether this thread may keep things until its end, when they are taken from
  // it.
  bool MayKeep() {
    if (state_ != State::kActive) {
      const Use use(*this);
      return use.granted();
    }
    return true;
  }

  // Whether this thread has bins.
  bool is_active() const {
    return state_ == State::kActive || state_ == State::kBusy;
  }

  SiteCache& site_cache() { return site_cache_; }

  // Where the slots that are open have their blocks, by the number of their
  // bin.
  OwnBins own_bins() { return {top_.data(), limit_.data()}; }

  // Puts what an ended thread has left of sites in the place of `cache`, whose
  // contents go to `before`. False, and nothing done, when there is none.
  static bool UnparkSites(SiteCache& cache, SiteCache& before);

  // Which site the plain allocations of this thread belong to: none, one, each
  // its caller's, or some of them their stack's. While all belong to any, the
  // size table leads to class 0, so that Pop() fails and the slow path sees
  // them all; while some do, it leads to doors, which Pop() finds empty as
  // well, and from there PopCounted() goes on. l2_way() goes with it.
  static constexpr uint32_t kByCaller = kNoSite + 1;
  static constexpr uint32_t kBySample = kNoSite + 2;
  static constexpr uint32_t kNotMarked = kNoSite + 3;
  static constexpr uint32_t kMarkNotKnown = kNoSite + 4;  // not asked yet
  uint32_t mark() const { return mark_; }
  // From kBySample only to a site and back, where windows may be ended:
  // somebody who began before this may still write kMarked.
  void SetMark(uint32_t mark) {
    // A thread that counts in windows begins the next one.
    const L2Way way =
        mark <= kByCaller || (mark == kBySample && sampler_.divides())
            ? L2Way::kMarked
        : mark == kBySample ? L2Way::kCounted
                            : L2Way::kPlain;
    // Where this thread takes samples, others may have written there since.
    if (way_ != way || mark_ == kBySample || mark_ == kMarkNotKnown)
      SetWay(way);
    mark_ = mark;
  }

  // While the mark is kBySample: whether the window that this thread was in
  // (count_windows.h) has been ended by another, or by a mark of another kind.
  bool WindowHasEnded(size_t size) const { return SmallBin(size) == kNoClass; }

  // Counts an allocation of a class that the bin could not serve, as the bytes
  // that it may get now; true when that ends the window too. To be asked
  // wherever one is not for a site. A window in which what is in use grows has
  // to be short beside all of that growth.
  bool CountMiss(SizeClass size_class) {
    constexpr uint32_t kBytes = 1 << 20;
    if (mark_ != kBySample || !sampler_.divides()) [[likely]]
      return false;
    if (size_class > Sampler::kLastCounted) return false;
    const uint32_t blocks = std::max<uint32_t>(bins_[size_class].capacity, 1);
    missed_bytes_ += blocks * static_cast<uint32_t>(ClassSize(size_class));
    return missed_bytes_ >= kBytes;
  }

  // Begins the next window, or the first one.
  void NextWindow();

  // Whether a thread that wants to count in windows may.
  static bool MayDivide() {
    return window_thread_.load(std::memory_order_relaxed) != nullptr;
  }

  // Says which thread calls EndWindows() every few milliseconds while
  // HasOpenWindows(), and is woken where there is the first one; null for none.
  static void SetWindowThread(OwnThread* thread) {
    window_thread_.store(thread, std::memory_order_release);
  }

  // Ends the windows that other threads are in: whatever each of them allocates
  // next begins another. How many there were.
  static size_t EndWindows();
  static bool HasOpenWindows();

  // Ends this thread's.
  bool EndWindow();

  // Which allocations are samples, while the mark is kBySample.
  Sampler& sampler() { return sampler_; }

  // This thread's copy of the arena's view: see view_.
  const ArenaView& view() const { return view_; }

  // Calls fn(context, cache) for the site caches of all threads. Under the
  // registry's lock.
  static void ForEachSiteCache(void (*fn)(void* context,
                                          const SiteCache& cache),
                               void* context);

  // What a thread may hold whatever the others hold, in bytes: 1,000 threads
  // that have cached once and wait for ever are not to hold much.
  static constexpr size_t kMostForced = 8 << 10;

  // Makes this thread one of those that share the caches' limit.
  void JoinBudget();

  // Bytes that bins hold without a budget.
  size_t& forced() { return forced_; }

  // Notes that `pool` has bins here.
  void Join(CachedPool* pool, uint32_t index) { pools_[index] = pool; }

  // Takes the current magazine off the fast path, with its count up to date,
  // and returns it; null when there is none. The bin keeps it as current.
  Magazine* Close(SizeClass size_class) {
    void** const none = thread_cache_internal::no_magazine.slots;
    Magazine* const magazine =
        bins_[size_class].current.load(std::memory_order_relaxed);
    void** const top = top_[size_class];
    if (magazine == nullptr || top == none) return magazine;
    magazine->count = static_cast<uint16_t>(top - magazine->slots);
    std::atomic_thread_fence(std::memory_order_release);
    limit_[size_class] = none;
    top_[size_class] = none;
    return magazine;
  }

  // Puts `magazine` on the fast path as current, with room for at least
  // `capacity` blocks if it has that.
  void Open(SizeClass size_class, Magazine* magazine, uint32_t capacity) {
    const uint32_t room = std::max<uint32_t>(
        magazine->count, std::min(capacity, magazine->capacity()));
    bins_[size_class].current.store(magazine, std::memory_order_release);
    limit_[size_class] = magazine->slots + room;
    top_[size_class] = magazine->slots + magazine->count;
  }

  // Opens the bin's previous magazine, `other`, in place of the current one.
  void Swap(SizeClass size_class, Magazine* other) {
    Bin& bin = bins_[size_class];
    Magazine* const current = Close(size_class);
    // Neither magazine is in two places while they change theirs.
    bin.previous.store(nullptr, std::memory_order_release);
    bin.current.store(nullptr, std::memory_order_release);
    bin.previous.store(current, std::memory_order_release);
    Open(size_class, other, bin.capacity);
  }

  // The pool that serves a class, if it has bins here.
  CachedPool* PoolOf(SizeClass size_class) const;

  // What the calls that the bins could not serve have moved, in bytes or so;
  // CountWork() returns how much it was before.
  uint64_t work() const { return work_; }
  uint64_t CountWork(uint64_t bytes) {
    return std::exchange(work_, work_ + bytes);
  }

  // Counts bytes of blocks that the program is about to get, for Arena::work().
  void CountLoaded(size_t bytes) {
    constexpr size_t kStep = 256 << 10;  // so that threads rarely meet there
    loaded_ += bytes;
    if (loaded_ < kStep) return;
    arena.CountWork(std::exchange(loaded_, 0));
  }

  // An empty magazine of the family, or null when metadata has run out. Keeps a
  // small one in hand: most that a thread puts away it wants back with a miss
  // or two, and the store is everybody's.
  Magazine* GetMagazine(uint32_t family) {
    if (family >= kSpareFamilies || spares_[family] == nullptr) {
      return magazine_store.Get(family);
    }
    Magazine* const magazine = std::exchange(spares_[family], nullptr);
    magazine->count = 0;
    return magazine;
  }

  // Takes one that is empty; its count need not be up to date.
  void PutMagazine(Magazine* magazine) {
    const uint32_t family = magazine->family;
    if (family >= kSpareFamilies || spares_[family] != nullptr) {
      magazine_store.Put(magazine);
    } else {
      spares_[family] = magazine;
    }
  }

  // Whether the bin stands where it stood when this was last asked: a bin in
  // use is there by chance only, and then is given up and begins anew.
  bool IsIdle(SizeClass size_class) {
    const auto top = static_cast<uint16_t>(
        reinterpret_cast<uintptr_t>(top_[size_class]) / sizeof(void*));
    return std::exchange(bins_[size_class].last_top, top) == top;
  }

  // Whether the bin has a magazine on the fast path.
  bool IsOpen(SizeClass size_class) const {
    return limit_[size_class] != thread_cache_internal::no_magazine.slots;
  }

  // Gives up the bins that stand where they stood at the last call, and of the
  // others the blocks that nobody took since then.
  void TrimBins();

  // Whether `period` milliseconds have passed since this was last true.
  bool TrimIsDue(int64_t period, int64_t now) {
    if (now - trimmed_at_ < period) return false;
    trimmed_at_ = now;
    return true;
  }

  // Gives the blocks of all bins back to their pools. The bins start anew.
  void FlushBins();

  // FlushBins(), and no bins again.
  void Retire();

  // Gives the blocks back that ended threads have left to new ones: all, or
  // what was left before the last call and is there still.
  enum class Parked : uint8_t { kAll, kStale };
  static void FlushParked(Parked which);

  // In the child of a fork: takes the blocks of all other threads over. Their
  // threads do not exist here.
  static void AdoptOrphans();

  // The sums over all threads, those that have ended included.
  static void SumCounters(uint32_t pool, CacheCounters& sum);

  // Bytes of the blocks that all threads have cached. Of threads that go on
  // meanwhile, of about now.
  static size_t CachedBytes();

  static Mutex& registry_mutex();

  // Makes the pthread key whose destructor flushes a thread's cache. Early, so
  // that it is among the first 32: a value of a later one may be lost when the
  // program's own pthread_setspecific() is a thread's first allocation. False
  // when there are no keys left.
  static bool MakeExitKey();

 private:
  template <size_t... kTop, size_t... kLimit>
  constexpr ThreadCache(std::index_sequence<kTop...>,
                        std::index_sequence<kLimit...>);

  // Whether the bin may be changed without notice to its pool, which takes no
  // lock and so needs no Use.
  bool MaySwap(Bin& bin) {
    if (bin.swaps_left == 0 || state_ != State::kActive) return false;
    --bin.swaps_left;
    return true;
  }

  void SetWay(L2Way way) {
    const size_class_internal::SmallTable& table =
        way == L2Way::kPlain     ? size_class_internal::kSmallTable
        : way == L2Way::kCounted ? size_class_internal::kSmallDoorTable
                                 : size_class_internal::kEmptySmallTable;
#ifdef ABSL_HAVE_THREAD_SANITIZER
    for (size_t i = 0; i < table.size(); ++i) StoreEntry(i, table[i]);
#else
    small_table_ = table;
#endif
    StoreL2Way(way);
    way_ = way;
  }
  void StoreL2Way(L2Way way) {
    __atomic_store_n(&l2_way_, static_cast<uint8_t>(way), __ATOMIC_RELAXED);
  }
  void StoreEntry(size_t index, uint8_t value) {
    __atomic_store_n(&small_table_[index], value, __ATOMIC_RELAXED);
  }

  size_t BinBytes(SizeClass size_class) const;
  bool EnsureActive() { return state_ == State::kActive || Activate(); }
  bool Activate();
  void Park();
  void MoveBinsTo(ParkedBins* parked);
  void MoveBinsFrom(const ParkedBins* parked);
  static void OnThreadExit(void* cache);

  // What the fast paths read stands together, so that they need one base
  // register: also this thread's own copies of the size table and of the
  // arena's view, which is empty before the thread is active.
  std::array<void**, kNumMapValues> top_;
  std::array<void**, kNumMapValues> limit_;
  ArenaView view_;
  size_class_internal::SmallTable small_table_ =
      size_class_internal::kSmallTable;
  uint8_t l2_way_ = static_cast<uint8_t>(L2Way::kMarked);

  // What this thread wrote there and into the table last, if it did.
  L2Way way_ = L2Way::kMarked;
  uint32_t mark_ = kMarkNotKnown;
  // Whether this thread is in a window that it was not told the end of. It
  // opens windows, others end them.
  std::atomic<bool> in_window_{false};
  uint32_t missed_bytes_ = 0;  // in this window: see CountMiss()
  Sampler sampler_;
  SiteCache site_cache_;

  State state_ = State::kNew;
  uint64_t work_ = 0;
  int64_t trimmed_at_ = 0;
  size_t forced_ = 0;
  bool shares_budget_ = false;
  size_t loaded_ = 0;
  static constexpr uint32_t kSpareFamilies = 4;  // 960 bytes together
  std::array<Magazine*, kSpareFamilies> spares_{};
  std::array<CachedPool*, kPools> pools_{};
  ThreadCache* next_ = nullptr;
  ThreadCache* previous_ = nullptr;
  std::array<Bin, kNumBins> bins_;
  std::array<CacheCounters, kPools> counters_;

  static constinit std::atomic<OwnThread*> window_thread_;

  friend class ThreadRegistry;
};

template <size_t... kTop, size_t... kLimit>
constexpr ThreadCache::ThreadCache(std::index_sequence<kTop...>,
                                   std::index_sequence<kLimit...>)
    : top_{((void)kTop, thread_cache_internal::no_magazine.slots)...},
      limit_{((void)kLimit, thread_cache_internal::no_magazine.slots)...} {}

constexpr ThreadCache::ThreadCache()
    : ThreadCache(std::make_index_sequence<kNumMapValues>(),
                  std::make_index_sequence<kNumMapValues>()) {}

// The calling thread's. Initial-exec: hakmem is linked or preloaded, so its
// thread-local storage is there from the start, and reaching it takes no call.
extern constinit thread_local ThreadCache thread_cache
    __attribute__((tls_model("initial-exec")));

}  // namespace hakmem

#endif  // HAKMEM_CORE_THREAD_CACHE_H_
