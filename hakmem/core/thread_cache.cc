#include "hakmem/core/thread_cache.h"

#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/base/attributes.h"
#include "absl/base/call_once.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/cached_pool.h"
#include "hakmem/core/parked_bins.h"

namespace hakmem {

namespace thread_cache_internal {

constinit NoMagazine no_magazine = {};

}  // namespace thread_cache_internal

constinit thread_local ThreadCache thread_cache;
constinit std::atomic<OwnThread*> ThreadCache::window_thread_{nullptr};

namespace {

// So many ended threads may have left their bins at a time. A program that
// replaces its threads one by one needs few: with 16, four threads at a time
// with short lives were no faster.
constexpr uint32_t kMostParked = 4;

}  // namespace

// All caches that are in use, and the counters of those that were.
class ThreadRegistry {
 public:
  constexpr ThreadRegistry() = default;

  void Add(ThreadCache* cache) {
    MutexLock lock(mu_);
    cache->next_ = first_;
    cache->previous_ = nullptr;
    if (first_ != nullptr) first_->previous_ = cache;
    first_ = cache;
    cache_budget.AddThread();
  }

  void Remove(ThreadCache* cache) {
    MutexLock lock(mu_);
    cache_budget.RemoveThread();
    if (cache->shares_budget_) cache_budget.RemoveSharer();
    (cache->previous_ != nullptr ? cache->previous_->next_ : first_) =
        cache->next_;
    if (cache->next_ != nullptr) cache->next_->previous_ = cache->previous_;
    for (uint32_t pool = 0; pool < kPools; ++pool) {
      cache->counters_[pool].AddTo(ended_[pool]);
    }
  }

  void Sum(uint32_t pool, CacheCounters& sum) {
    MutexLock lock(mu_);
    ended_[pool].AddTo(sum);
    for (ThreadCache* c = first_; c != nullptr; c = c->next_) {
      c->counters_[pool].AddTo(sum);
    }
  }

  void ForEach(void (*fn)(void*, const SiteCache&), void* context) {
    MutexLock lock(mu_);
    for (const ThreadCache* c = first_; c != nullptr; c = c->next_) {
      fn(context, c->site_cache_);
    }
    for (uint32_t i = 0; i < parked_sites_count_; ++i) {
      fn(context, parked_sites_[i].cache);
    }
  }

  size_t EndWindows() {
    MutexLock lock(mu_);
    size_t ended = 0;
    for (ThreadCache* c = first_; c != nullptr; c = c->next_) {
      ended += c->EndWindow() ? 1 : 0;
    }
    return ended;
  }

  bool HasOpenWindows() {
    MutexLock lock(mu_);
    for (const ThreadCache* c = first_; c != nullptr; c = c->next_) {
      if (c->in_window_.load(std::memory_order_seq_cst)) return true;
    }
    return false;
  }

  // As Park(), for a cache that has been flushed.
  void ParkSites(SiteCache& cache) {
    MutexLock lock(mu_);
    if (parked_sites_count_ == kMostParked) return;
    cache.CloseAll();
    parked_sites_[parked_sites_count_++] = {cache, false};
    cache = SiteCache();
  }

  // Puts one that was parked, or only a stale one, in the place of `cache`,
  // whose contents go to `before`. False, and the others are stale from then
  // on, when there is none.
  bool UnparkSites(SiteCache& cache, bool stale_only, SiteCache& before) {
    MutexLock lock(mu_);
    for (uint32_t i = parked_sites_count_; i-- > 0;) {
      ParkedSites& parked = parked_sites_[i];
      if (stale_only && !parked.stale) continue;
      cache.CloseAll();
      before = std::exchange(cache, parked.cache);
      parked = parked_sites_[--parked_sites_count_];
      return true;
    }
    for (uint32_t i = 0; i < parked_sites_count_; ++i) {
      parked_sites_[i].stale = true;
    }
    return false;
  }

  // Moves the bins of a cache to `parked` and keeps that. False, and nothing
  // moved, when there are enough. Under the lock, which a fork takes: in its
  // child the blocks are in one place or the other.
  bool Park(ThreadCache* cache, ParkedBins* parked) {
    MutexLock lock(mu_);
    if (parked_count_ == kMostParked) return false;
    cache->MoveBinsTo(parked);
    parked->stale = false;
    parked->next = parked_;
    parked_ = parked;
    ++parked_count_;
    return true;
  }

  // Gives bins that were parked to a cache that has none; returns their piece
  // of metadata, for the caller to free, or null when there are none.
  ParkedBins* Unpark(ThreadCache* cache) {
    MutexLock lock(mu_);
    ParkedBins* const parked = parked_;
    if (parked == nullptr) return nullptr;
    parked_ = parked->next;
    --parked_count_;
    cache->MoveBinsFrom(parked);
    return parked;
  }

  // Takes out one that is stale, or any where `which` is kAll; null when there
  // is none. The others are stale from the end of the search on.
  ParkedBins* TakeParked(ThreadCache::Parked which) {
    MutexLock lock(mu_);
    for (ParkedBins** link = &parked_; *link != nullptr;
         link = &(*link)->next) {
      ParkedBins* const parked = *link;
      if (which == ThreadCache::Parked::kAll || parked->stale) {
        *link = parked->next;
        --parked_count_;
        return parked;
      }
    }
    for (ParkedBins* p = parked_; p != nullptr; p = p->next) p->stale = true;
    return nullptr;
  }

  size_t CachedBytes() {
    MutexLock lock(mu_);
    size_t bytes = 0;
    for (const ThreadCache* c = first_; c != nullptr; c = c->next_) {
      for (SizeClass i = 1; i < kNumBins; ++i) bytes += c->BinBytes(i);
      bytes += HeldBytes(c->site_cache_);
    }
    for (uint32_t i = 0; i < parked_sites_count_; ++i) {
      bytes += HeldBytes(parked_sites_[i].cache);
    }
    for (const ParkedBins* p = parked_; p != nullptr; p = p->next) {
      for (SizeClass i = 1; i < kNumBins; ++i) {
        for (const Magazine* m : {p->bins[i].current, p->bins[i].previous}) {
          if (m != nullptr) bytes += m->count * ClassSize(i);
        }
      }
    }
    return bytes;
  }

  // Any cache but `own`, or null.
  ThreadCache* Other(const ThreadCache* own) {
    MutexLock lock(mu_);
    return first_ != own || first_ == nullptr ? first_ : first_->next_;
  }

  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }

 private:
  // What threads that have ended leave of sites.
  struct ParkedSites {
    SiteCache cache;
    bool stale = false;
  };

  static size_t HeldBytes(const SiteCache& cache) {
    size_t bytes = 0;
    cache.ForEachSlot([&bytes](const SiteCache::Counted& counted) {
      bytes += static_cast<size_t>(counted.held) *
               SiteTable::Cell(counted.cell).block_bytes;
    });
    return bytes;
  }

  Mutex mu_;
  ThreadCache* first_ ABSL_GUARDED_BY(mu_) = nullptr;
  ParkedBins* parked_ ABSL_GUARDED_BY(mu_) = nullptr;
  uint32_t parked_count_ ABSL_GUARDED_BY(mu_) = 0;
  std::array<ParkedSites, kMostParked> parked_sites_ ABSL_GUARDED_BY(mu_);
  uint32_t parked_sites_count_ ABSL_GUARDED_BY(mu_) = 0;
  std::array<CacheCounters, kPools> ended_ ABSL_GUARDED_BY(mu_);
};

namespace {

constinit ThreadRegistry registry;

// The key whose destructor flushes a thread's cache.
absl::once_flag exit_key_once;
pthread_key_t exit_key;
bool exit_key_made = false;

void** const kNoSlots = thread_cache_internal::no_magazine.slots;

}  // namespace

void CacheCounters::AddTo(CacheCounters& sum) const {
  const auto add = [](const std::atomic<uint64_t>& from,
                      std::atomic<uint64_t>& to) {
    Add(to, from.load(std::memory_order_relaxed));
  };
  add(alloc_misses, sum.alloc_misses);
  add(free_misses, sum.free_misses);
  add(refills, sum.refills);
  add(flushes, sum.flushes);
  add(blocks_loaded, sum.blocks_loaded);
  add(blocks_unloaded, sum.blocks_unloaded);
}

bool ThreadCache::Activate() {
  if (state_ != State::kNew || !arena.EnsureReady()) return false;
  // This is calloc() for another's pthread_setspecific(): next time.
  if (Mutex::in_thread_set_up()) return false;
  if (!MakeExitKey()) {
    state_ = State::kUncached;
    return false;
  }
  // Busy: pthread_setspecific() may allocate, and that call must not fill the
  // bin that the one which it comes back to has found empty.
  state_ = State::kBusy;
  view_ = arena.view();
  trimmed_at_ = os::CoarseMilliseconds();
  HelgrindIgnore(counters_.data(), sizeof(counters_));
  HelgrindIgnore(&small_table_, sizeof(small_table_));
  HelgrindIgnore(&l2_way_, sizeof(l2_way_));
  HelgrindIgnore(&in_window_, sizeof(in_window_));
  registry.Add(this);
  if (ParkedBins* const parked = registry.Unpark(this)) {
    JoinBudget();
    arena.FreeMetadata(parked, kParkedBinsBytes);
  }
  const bool will_be_told = [this] {
    const Mutex::ThreadSetUp scope;
    return pthread_setspecific(exit_key, this) == 0;
  }();
  if (!will_be_told) Retire();
  return will_be_told;
}

bool ThreadCache::MakeExitKey() {
  absl::call_once(exit_key_once, [] {
    exit_key_made = pthread_key_create(&exit_key, &OnThreadExit) == 0;
    HelgrindRelease(&exit_key_once);
  });
  HelgrindAcquire(&exit_key_once);
  return exit_key_made;
}

// Runs after the destructors of C++ thread_local objects, among those of
// pthread keys. What still allocates or frees on this thread after it is served
// by the locked pools: there may be no further round of destructors that could
// flush a cache again.
void ThreadCache::OnThreadExit(void* cache) {
  static_cast<ThreadCache*>(cache)->Park();
  static_cast<ThreadCache*>(cache)->Retire();
}

// Leaves the bins, and what there is of sites, to the next new thread.
void ThreadCache::Park() {
  state_ = State::kUncached;
  if (site_cache_.FlushCounts()) registry.ParkSites(site_cache_);
  void* const memory = arena.AllocateMetadata(kParkedBinsBytes);
  if (memory == nullptr) return;
  if (!registry.Park(this, static_cast<ParkedBins*>(memory))) {
    arena.FreeMetadata(memory, kParkedBinsBytes);
  }
}

void ThreadCache::MoveBinsTo(ParkedBins* parked) {
  parked->trimmed_at = trimmed_at_;
  parked->pools = pools_;
  parked->bins = {};
  for (CachedPool* pool : std::exchange(pools_, {})) {
    if (pool == nullptr) continue;
    const PoolGeometry& geometry = pool->geometry();
    std::atomic<uint64_t>& unloaded = counters_[geometry.index].blocks_unloaded;
    for (SizeClass number = 0; number < geometry.bins(); ++number) {
      const SizeClass c = geometry.ClassOfBin(number);
      Bin& bin = bins_[c];
      if (bin.capacity == 0) continue;
      Magazine* const current = Close(c);
      Magazine* const previous = bin.previous.load(std::memory_order_relaxed);
      for (const Magazine* magazine : {current, previous}) {
        if (magazine != nullptr) CacheCounters::Add(unloaded, magazine->count);
      }
      bin.forced = 0;  // counts as any cache's, from now on
      parked->bins[c] = {.current = current,
                         .previous = previous,
                         .capacity = std::exchange(bin.capacity, uint16_t{0}),
                         .drawn = std::exchange(bin.drawn, false)};
      bin.current.store(nullptr, std::memory_order_release);
      bin.previous.store(nullptr, std::memory_order_release);
    }
  }
}

void ThreadCache::MoveBinsFrom(const ParkedBins* parked) {
  trimmed_at_ = parked->trimmed_at;
  pools_ = parked->pools;
  for (CachedPool* pool : pools_) {
    if (pool == nullptr) continue;
    const PoolGeometry& geometry = pool->geometry();
    std::atomic<uint64_t>& loaded = counters_[geometry.index].blocks_loaded;
    for (SizeClass number = 0; number < geometry.bins(); ++number) {
      const SizeClass c = geometry.ClassOfBin(number);
      const ParkedBins::Bin& from = parked->bins[c];
      if (from.capacity == 0) continue;
      for (const Magazine* magazine : {from.current, from.previous}) {
        if (magazine != nullptr) CacheCounters::Add(loaded, magazine->count);
      }
      bins_[c].capacity = static_cast<uint16_t>(from.capacity);
      bins_[c].drawn = from.drawn;
      bins_[c].previous.store(from.previous, std::memory_order_release);
      if (from.current != nullptr) Open(c, from.current, from.capacity);
    }
  }
}

void ThreadCache::FlushParked(Parked which) {
  while (ParkedBins* const parked = registry.TakeParked(which)) {
    for (CachedPool* pool : parked->pools) {
      if (pool != nullptr) pool->FlushParked(*parked);
    }
    arena.FreeMetadata(parked, kParkedBinsBytes);
  }
  SiteCache sites;
  SiteCache none;
  while (registry.UnparkSites(sites, which == Parked::kStale, none)) {
    sites.Retire();
  }
}

bool ThreadCache::UnparkSites(SiteCache& cache, SiteCache& before) {
  return registry.UnparkSites(cache, false, before);
}

void ThreadCache::JoinBudget() {
  if (!std::exchange(shares_budget_, true)) cache_budget.AddSharer();
}

CachedPool* ThreadCache::PoolOf(SizeClass size_class) const {
  for (CachedPool* pool : pools_) {
    if (pool != nullptr && pool->geometry().Contains(size_class)) return pool;
  }
  return nullptr;
}

void ThreadCache::FlushBins() {
  // Busy, unless the bins are out of use already: a pool's lock may allocate
  // (see mutex.cc), and that call must not open a bin that is being given up.
  const State state = state_;
  if (state == State::kActive) state_ = State::kBusy;
  for (CachedPool* pool : pools_) {
    if (pool != nullptr) pool->Flush(*this);
  }
  for (Magazine*& spare : spares_) {
    if (spare != nullptr) magazine_store.Put(std::exchange(spare, nullptr));
  }
  pools_ = {};
  state_ = state;
}

void ThreadCache::TrimBins() {
  for (CachedPool* pool : pools_) {
    if (pool != nullptr) pool->Trim(*this);
  }
}

void ThreadCache::Retire() {
  state_ = State::kUncached;
  site_cache_.Retire();
  FlushBins();
  registry.Remove(this);
}

// Reads what another thread writes, which may be in the middle of it: a count
// that is none is left out. Magazines' memory stays mapped (Metadata), so
// reading one that has gone elsewhere is reading some number.
ABSL_ATTRIBUTE_NO_SANITIZE_THREAD size_t
ThreadCache::BinBytes(SizeClass size_class) const {
  const Bin& bin = bins_[size_class];
  size_t blocks = 0;
  if (const Magazine* const current =
          bin.current.load(std::memory_order_acquire)) {
    void** const* const top_address = &top_[size_class];
    void** const top = *const_cast<void** const volatile*>(top_address);
    const auto count = static_cast<size_t>(top - current->slots);
    if (top == kNoSlots) {
      blocks += *const_cast<const volatile uint16_t*>(&current->count);
    } else if (count <= MagazineCapacity(kMagazineFamilies - 1)) {
      blocks += count;
    }
  }
  if (const Magazine* const previous =
          bin.previous.load(std::memory_order_acquire)) {
    blocks += *const_cast<const volatile uint16_t*>(&previous->count);
  }
  return blocks * ClassSize(size_class);
}

void ThreadCache::AdoptOrphans() {
  while (ThreadCache* const orphan = registry.Other(&thread_cache)) {
    orphan->Retire();
  }
}

void ThreadCache::SumCounters(uint32_t pool, CacheCounters& sum) {
  registry.Sum(pool, sum);
}

void ThreadCache::ForEachSiteCache(void (*fn)(void*, const SiteCache&),
                                   void* context) {
  registry.ForEach(fn, context);
}

void ThreadCache::NextWindow() {
  OwnThread* const thread = window_thread_.load(std::memory_order_acquire);
  sampler_.NextWindow(thread != nullptr);
  missed_bytes_ = 0;
  const L2Way way = sampler_.counts() ? L2Way::kCounted : L2Way::kPlain;
  // Six of eight windows go on as the last one did, unless it was ended: also
  // by somebody who began with that before it was opened, and so left
  // in_window_. Where it is being ended, so is this one: nothing is written
  // over that.
  if (way == way_ && sampler_.divides() &&
      in_window_.load(std::memory_order_relaxed) && !WindowHasEnded(0) &&
      l2_way() == way) {
    return;
  }
  SetWay(way);
  if (!sampler_.divides()) {
    in_window_.store(false, std::memory_order_relaxed);
    return;
  }
  // After the table, which whoever sees this overwrites.
  in_window_.store(true, std::memory_order_seq_cst);
  thread->Wake();
}

// The thread may open the next window meanwhile, by itself. Then some of what
// it has written to the table is overwritten, or all, and that window ends
// early.
bool ThreadCache::EndWindow() {
  bool open = true;
  if (!in_window_.compare_exchange_strong(open, false)) return false;
  for (size_t i = 0; i < small_table_.size(); ++i) StoreEntry(i, kNoClass);
  StoreL2Way(L2Way::kMarked);
  return true;
}

size_t ThreadCache::EndWindows() { return registry.EndWindows(); }

bool ThreadCache::HasOpenWindows() { return registry.HasOpenWindows(); }

size_t ThreadCache::CachedBytes() { return registry.CachedBytes(); }

Mutex& ThreadCache::registry_mutex() { return registry.mutex(); }

}  // namespace hakmem
