// A library to be loaded and unloaded while the program runs: allocates in its
// constructor, for each thread, in threads' and in its own destructors.

#include <string.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

constexpr size_t kSizes[] = {24, 700, 5000, 40000, 300000, 2000000};

// Blocks of all pools that hold what they should until they go.
class Blocks {
 public:
  Blocks() {
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      blocks_[i] = static_cast<char*>(std::malloc(kSizes[i]));
      if (blocks_[i] == nullptr) std::abort();
      std::memset(blocks_[i], static_cast<int>(i + 1), 24);
    }
  }
  ~Blocks() {
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      if (blocks_[i][23] != static_cast<char>(i + 1)) std::abort();
      // One more of each, so that the destructor allocates as well.
      void* const other = std::malloc(kSizes[i]);
      std::free(blocks_[i]);
      std::free(other);
    }
  }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

 private:
  char* blocks_[std::size(kSizes)];
};

const Blocks of_the_library;
thread_local const Blocks of_the_thread;
std::map<int, std::string> words = {{1, std::string(100, 'a')},
                                    {2, std::string(3000, 'b')}};

}  // namespace

// Returns a block that the caller frees, perhaps after the library is gone.
extern "C" void* PluginRun() {
  // Makes the thread's own, whose destructor runs when the thread ends.
  asm volatile("" : : "r"(&of_the_thread) : "memory");
  words[static_cast<int>(words.size()) + 1] = std::string(500, 'c');
  return strndup(words[2].c_str(), 1000);
}
