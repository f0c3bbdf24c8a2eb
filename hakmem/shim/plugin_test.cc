// Libraries that come and go at run time, and allocate wherever they can.

#include <dlfcn.h>
#include <stdlib.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

const char* PluginPath() { return std::getenv("PLUGIN"); }

void LoadRunUnload() {
  void* const library = dlopen(PluginPath(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  auto* const run = reinterpret_cast<void* (*)()>(dlsym(library, "PluginRun"));
  ASSERT_NE(run, nullptr) << dlerror();
  void* const block = run();
  ASSERT_EQ(dlclose(library), 0) << dlerror();
  EXPECT_EQ(std::strlen(static_cast<char*>(block)), 1000u);
  free(block);
}

hak_stats Stats() {
  hak_release_memory(0);
  hak_stats stats;
  EXPECT_EQ(hak_stats_get(&stats, sizeof(stats)), 0);
  return stats;
}

// Each round in a thread of its own: where a thread's objects are destroyed,
// the library goes only after them.
void Rounds(int rounds) {
  for (int i = 0; i < rounds; ++i) std::thread(&LoadRunUnload).join();
}

TEST(PluginTest, ItsBlocksAreOfThisHeap) {
  void* const library = dlopen(PluginPath(), RTLD_NOW);
  ASSERT_NE(library, nullptr) << dlerror();
  auto* const run = reinterpret_cast<void* (*)()>(dlsym(library, "PluginRun"));
  const size_t before = Stats().large_bytes;
  // Its thread's objects: the largest is 2 MB.
  std::thread([run, before] {
    free(run());
    EXPECT_GE(Stats().large_bytes, before + 2000000);
  }).join();
  EXPECT_EQ(Stats().large_bytes, before);
  EXPECT_EQ(dlclose(library), 0);
}

TEST(PluginTest, LoadingAndUnloadingLosesNothing) {
  Rounds(20);
  const hak_stats warm = Stats();
  Rounds(200);
  const hak_stats end = Stats();
  EXPECT_EQ(end.large_bytes, warm.large_bytes);
  EXPECT_LE(end.slab_bytes, warm.slab_bytes + kMiB);
}

TEST(PluginTest, SeveralThreadsAtOnce) {
  Rounds(20);
  const hak_stats warm = Stats();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(&Rounds, 50);
  for (std::thread& thread : threads) thread.join();
  const hak_stats end = Stats();
  EXPECT_EQ(end.large_bytes, warm.large_bytes);
  EXPECT_LE(end.slab_bytes, warm.slab_bytes + 4 * kMiB);
}

}  // namespace
