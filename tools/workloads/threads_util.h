// Running functions on threads.

#ifndef TOOLS_WORKLOADS_THREADS_UTIL_H_
#define TOOLS_WORKLOADS_THREADS_UTIL_H_

#include <functional>

namespace hakmem::tools {

// Runs body(0) … body(count - 1), each on a thread of its own, all at once, and
// waits for them.
void RunThreads(int count, const std::function<void(int index)>& body);

// Runs `count` chains side by side. A chain is `lives` threads one after the
// other: body(chain, life) for life 0 … lives - 1, each on a new thread that is
// started when the one before has ended.
void RunChains(int count, int lives,
               const std::function<void(int chain, int life)>& body);

}  // namespace hakmem::tools

#endif  // TOOLS_WORKLOADS_THREADS_UTIL_H_
