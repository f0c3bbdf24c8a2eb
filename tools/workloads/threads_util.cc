#include "tools/workloads/threads_util.h"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include "tools/workloads/block.h"

namespace hakmem::tools {

void OutOfMemory(size_t size) {
  std::fprintf(stderr, "workloads: malloc(%zu) returned a null pointer\n",
               size);
  std::fflush(nullptr);
  std::_Exit(1);
}

void RunThreads(int count, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

void RunChains(int count, int lives,
               const std::function<void(int, int)>& body) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<int> ended;  // chains whose thread is about to end
  ended.reserve(static_cast<size_t>(count));
  std::vector<int> lived(static_cast<size_t>(count), 0);
  std::vector<std::thread> threads(static_cast<size_t>(count));
  const auto start = [&](int chain) {
    const size_t index = static_cast<size_t>(chain);
    threads[index] = std::thread([&, chain, life = lived[index]] {
      body(chain, life);
      std::lock_guard<std::mutex> lock(mutex);
      ended.push_back(chain);
      changed.notify_one();
    });
    ++lived[index];
  };
  for (int chain = 0; chain < count; ++chain) start(chain);
  for (int running = count; running > 0;) {
    int chain;
    {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait(lock, [&ended] { return !ended.empty(); });
      chain = ended.back();
      ended.pop_back();
    }
    threads[static_cast<size_t>(chain)].join();
    if (lived[static_cast<size_t>(chain)] < lives) {
      start(chain);
    } else {
      --running;
    }
  }
}

}  // namespace hakmem::tools
