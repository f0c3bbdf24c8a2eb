#include "hakmem/shim/sampled.h"

#include <array>

#include "hakmem/core/unwind.h"
#include "hakmem/shim/heap.h"
#include "hakmem/shim/profile_output.h"

namespace hakmem::heap {
namespace {

// The frames of a stack that are kept, from the innermost.
constexpr size_t kMostFrames = 64;

// The site of the calling thread's stack, from `caller` on, for a sample that
// is due, by what the sampler has said; kNoSite when it is not to become one,
// and when there is no table for it.
uint32_t StackSite(SizeClass size_class, const void* caller, uint64_t due) {
  const auto first = reinterpret_cast<uintptr_t>(caller);
  const uint64_t sampled_at =
      thread_cache.sampler().Thin(first, size_class, due);
  if (sampled_at == 0) return kNoSite;
  const ErrnoKeeper keeper;
  WriteProfileIfDue();
  std::array<uintptr_t, kMostFrames> frames;
  size_t count = CaptureStack(frames.data(), frames.size(), first);
  // Whose sample it is has to be told by the stack: see CountFreedSample().
  if (count == 0 || frames[0] + 1 != first) {
    frames[0] = first - 1;
    count = 1;
  }
  // The table has return addresses.
  std::array<uint64_t, kMostFrames> addresses;
  for (size_t i = 0; i < count; ++i) addresses[i] = frames[i] + 1;
  return site_table.Stack(addresses.data(), static_cast<uint32_t>(count),
                          sampled_at);
}

// Takes the sample that is due of a counted class. Where so many are counted
// that it pays, a thread begins with windows then.
uint64_t TakeBlock(SizeClass size_class) {
  Sampler& sampler = thread_cache.sampler();
  const uint64_t taken = sampler.TakeBlock(size_class);
  if (sampler.WantsWindows() && ThreadCache::MayDivide()) {
    thread_cache.NextWindow();
  }
  return taken;
}

// A block of a counted class of which a sample is due.
void* AllocateDue(SizeClass size_class, size_t size, const void* caller) {
  const uint32_t site = StackSite(size_class, caller, TakeBlock(size_class));
  return site != kNoSite ? AllocateTracked(size, 1, site)
                         : AllocateUntrackedOf(size_class, size, 1);
}

}  // namespace

[[gnu::noinline]] void* AllocateCounted(size_t size, const void* caller) {
  const SizeClass size_class = SmallSizeToClass(size);
  Sampler& sampler = thread_cache.sampler();
  if (thread_cache.WindowHasEnded(size)) {
    // The block is the next one's.
    thread_cache.NextWindow();
    sampler.PassBlock(size_class);
  }
  if (sampler.IsDue(size_class)) {
    return AllocateDue(size_class, size, caller);
  }
  return AllocateUntrackedOf(size_class, size, 1);
}

[[gnu::noinline]] void* AllocateCountedL2(size_t size, const void* caller) {
  const SizeClass size_class = L2SizeToClass(size);
  if (thread_cache.sampler().IsDue(size_class)) {
    return AllocateDue(size_class, size, caller);
  }
  return AllocateUntrackedOf(size_class, size, 1);
}

uint32_t SampledSite(size_t size, size_t alignment, const void* caller) {
  const SizeClass size_class = ClassFor(size, alignment);
  Sampler& sampler = thread_cache.sampler();
  uint64_t due = 0;
  if (size_class == kNoClass) {
    due = sampler.Take(
        size_class, (size + kGranuleSize - 1) & ~(uint64_t{kGranuleSize} - 1));
  } else if (size_class > Sampler::kLastCounted) {
    due = sampler.Take(size_class, ClassSize(size_class));
  } else {
    if (thread_cache.WindowHasEnded(0)) thread_cache.NextWindow();
    if (!sampler.PassBlock(size_class)) due = TakeBlock(size_class);
  }
  return due != 0 ? StackSite(size_class, caller, due) : kNoSite;
}

}  // namespace hakmem::heap
