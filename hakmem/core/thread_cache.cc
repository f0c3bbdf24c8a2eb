#include "hakmem/core/thread_cache.h"

#include <pthread.h>

#include <algorithm>

#include "absl/base/attributes.h"
#include "absl/base/call_once.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/cached_pool.h"

namespace hakmem {

namespace thread_cache_internal {

constinit NoMagazine no_magazine = {};

}  // namespace thread_cache_internal

constinit thread_local ThreadCache thread_cache;

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

  size_t CachedBytes() {
    MutexLock lock(mu_);
    size_t bytes = 0;
    for (const ThreadCache* c = first_; c != nullptr; c = c->next_) {
      for (SizeClass i = 1; i < kNumClasses; ++i) bytes += c->BinBytes(i);
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
  Mutex mu_;
  ThreadCache* first_ ABSL_GUARDED_BY(mu_) = nullptr;
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
  HelgrindIgnore(counters_.data(), sizeof(counters_));
  registry.Add(this);
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
  static_cast<ThreadCache*>(cache)->Retire();
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

Magazine* ThreadCache::Close(SizeClass size_class) {
  Magazine* const magazine =
      bins_[size_class].current.load(std::memory_order_relaxed);
  void** const top = top_[size_class];
  if (magazine == nullptr || top == kNoSlots) return magazine;
  magazine->count = static_cast<uint16_t>(top - magazine->slots);
  std::atomic_thread_fence(std::memory_order_release);
  limit_[size_class] = kNoSlots;
  top_[size_class] = kNoSlots;
  return magazine;
}

void ThreadCache::Open(SizeClass size_class, Magazine* magazine,
                       uint32_t capacity) {
  const uint32_t room = std::max<uint32_t>(
      magazine->count, std::min(capacity, magazine->capacity()));
  bins_[size_class].current.store(magazine, std::memory_order_release);
  limit_[size_class] = magazine->slots + room;
  top_[size_class] = magazine->slots + magazine->count;
}

void ThreadCache::AdoptOrphans() {
  while (ThreadCache* const orphan = registry.Other(&thread_cache)) {
    orphan->Retire();
  }
}

void ThreadCache::SumCounters(uint32_t pool, CacheCounters& sum) {
  registry.Sum(pool, sum);
}

size_t ThreadCache::CachedBytes() { return registry.CachedBytes(); }

Mutex& ThreadCache::registry_mutex() { return registry.mutex(); }

}  // namespace hakmem
