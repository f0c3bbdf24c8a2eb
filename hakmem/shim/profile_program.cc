// A program whose heap is known, for profile_output_test.py.
//
//     profile_program MODE ARGUMENT...
//
// five THREADS FILE: each thread allocates at five places, with short-lived
// blocks between, and keeps some at each; writes a profile to FILE, and a line
// for each place: its function's address, and what it has in use and has
// allocated, in blocks and bytes, all sizes as the heap rounds them up.
// exact FILE: a few blocks of each way to allocate; the same lines.
// write PATH...: prints what hak_profile_write() returns for each.
// raise SIGNAL TIMES: allocates, raises the signal, as often as that.
// busy SECONDS: allocates and frees for that long.
// until FILE: allocates, and ends as soon as that is there.
// fork: allocates, and so does its child.
// busiest FILE KEPT AGAIN: allocates all it can, keeps much, then nothing,
//    blocks of these sizes; as five.
// beside THREADS MEGABYTES TIMES FILE: threads keep so much together at each of
//    five places, and for each block allocate and free so many at a sixth, of
//    the same sizes; as five.
// idle: allocates, and does nothing from then on until its stdin ends.
// threads: prints how many threads it has, and how many its child has.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <thread>
#include <vector>

#include "hakmem/shim/hakmem.h"

namespace {

struct Count {
  std::atomic<uint64_t> alloc_objects{0};
  std::atomic<uint64_t> alloc_bytes{0};
  std::atomic<uint64_t> inuse_objects{0};
  std::atomic<uint64_t> inuse_bytes{0};
};

constexpr int kPlaces = 10;  // of which number 5 keeps nothing
Count counts[kPlaces];

[[gnu::noinline]] void* Note(Count& count, void* block) {
  if (block == nullptr) abort();
  count.alloc_objects += 1;
  count.alloc_bytes += hak_usable_size(block);
  count.inuse_objects += 1;
  count.inuse_bytes += hak_usable_size(block);
  return block;
}

void Release(int place, void* block) {
  counts[place].inuse_objects -= 1;
  counts[place].inuse_bytes -= hak_usable_size(block);
  free(block);
}

[[gnu::noinline]] void* AllocateSmall() { return Note(counts[0], malloc(48)); }
[[gnu::noinline]] void* AllocateNew() {
  return Note(counts[1], ::operator new(400));
}
[[gnu::noinline]] void* AllocateMedium() {
  return Note(counts[2], calloc(5, 1000));
}
[[gnu::noinline]] void* AllocateAligned() {
  return Note(counts[3], aligned_alloc(4096, 40960));
}
[[gnu::noinline]] void* AllocateLarge() {
  return Note(counts[4], malloc(1500000));
}
[[gnu::noinline]] void* AllocateShort(size_t size) {
  return Note(counts[5], malloc(size));
}

[[gnu::noinline]] void* AllocateAlignedSmall() {
  return Note(counts[6], aligned_alloc(64, 192));
}
[[gnu::noinline]] void* AllocateZeroedLarge() {
  return Note(counts[7], calloc(1500, 2000));
}
[[gnu::noinline]] void* AllocateToResize() {
  return Note(counts[8], malloc(100));
}
[[gnu::noinline]] void* Resize(void* block) {
  counts[8].inuse_objects -= 1;
  counts[8].inuse_bytes -= hak_usable_size(block);
  return Note(counts[9], realloc(block, 5000));
}

// A line of the output: see above.
template <typename Function>
void PrintPlace(Function* place, uint64_t alloc_objects, uint64_t alloc_bytes,
                uint64_t inuse_objects, uint64_t inuse_bytes) {
  std::printf("%" PRIuPTR " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
              reinterpret_cast<uintptr_t>(place), alloc_objects, alloc_bytes,
              inuse_objects, inuse_bytes);
}

void PrintCounts() {
  const auto print = [](auto* place, const Count& count) {
    PrintPlace(place, count.alloc_objects, count.alloc_bytes,
               count.inuse_objects, count.inuse_bytes);
  };
  print(&AllocateSmall, counts[0]);
  print(&AllocateNew, counts[1]);
  print(&AllocateMedium, counts[2]);
  print(&AllocateAligned, counts[3]);
  print(&AllocateLarge, counts[4]);
  print(&AllocateShort, counts[5]);
  print(&AllocateAlignedSmall, counts[6]);
  print(&AllocateZeroedLarge, counts[7]);
  print(&AllocateToResize, counts[8]);
  print(&Resize, counts[9]);
}

// What keeps the call before it from being the function's last, and so no call.
[[gnu::always_inline]] inline void* Here(void* block) {
  asm volatile("" : "+r"(block));
  return block;
}

// Places that are counted all at once.
template <int kPlace>
[[gnu::noinline]] void* AllocateAt(size_t size) {
  return Here(malloc(size));
}

uint64_t UsableSize(size_t size) {
  void* const block = malloc(size);
  const uint64_t usable = hak_usable_size(block);
  free(block);
  return usable;
}

// The second phase of such a program allocates only what it has just freed.
int Busiest(const char* path, size_t kept_size, size_t again_size) {
  constexpr uint64_t kKeptBytes = 192000000;
  constexpr uint64_t kMeanwhile = 40000000;
  constexpr uint64_t kAgain = 40000000;
  const auto allocate_kept = &AllocateAt<0>;
  const auto allocate_again = &AllocateAt<1>;
  const uint64_t kept_bytes = UsableSize(kept_size);
  const uint64_t again_bytes = UsableSize(again_size);
  std::vector<void*> kept(kKeptBytes / kept_bytes);
  uint64_t again = 0;
  for (void*& block : kept) {
    block = allocate_kept(kept_size);
    for (uint64_t i = 0; i < kMeanwhile / kept.size(); ++i, ++again) {
      free(allocate_again(again_size));
    }
  }
  for (uint64_t i = 0; i < kAgain; ++i, ++again) {
    free(allocate_again(again_size));
  }
  const int error = hak_profile_write(path);
  PrintPlace(allocate_kept, kept.size(), kept_bytes * kept.size(), kept.size(),
             kept_bytes * kept.size());
  PrintPlace(allocate_again, again, again_bytes * again, 0, 0);
  for (void* const block : kept) free(block);
  return error;
}

constexpr struct {
  void* (*allocate)(size_t size);
  size_t least;
  size_t most;
} kKept[] = {{AllocateAt<0>, 24, 64},
             {AllocateAt<1>, 100, 300},
             {AllocateAt<2>, 300, 1500},
             {AllocateAt<3>, 2000, 12000},
             {AllocateAt<4>, 40000, 200000}};
constexpr size_t kKeptPlaces = std::size(kKept);

// By turns, so that all are through at the same time.
void RunBeside(uint64_t random, uint64_t keep, int times, Count* sums,
               std::vector<void*>* blocks) {
  constexpr size_t kMostBeside = 1500;
  const auto next = [&random](size_t least, size_t most) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return least + (random >> 33) % (most - least);
  };
  uint64_t objects[kKeptPlaces + 1] = {};
  uint64_t bytes[kKeptPlaces + 1] = {};
  const auto note = [&](size_t place, void* block) {
    ++objects[place];
    bytes[place] += hak_usable_size(block);
  };
  constexpr uint64_t kSteps = 1000;
  for (uint64_t step = 1; step <= kSteps; ++step) {
    for (size_t place = 0; place < kKeptPlaces; ++place) {
      const auto& kept = kKept[place];
      while (bytes[place] < keep * step / kSteps) {
        void* const block = kept.allocate(next(kept.least, kept.most));
        note(place, block);
        blocks->push_back(block);
        for (int i = 0; i < times; ++i) {
          void* const gone = AllocateAt<kKeptPlaces>(next(16, kMostBeside));
          note(kKeptPlaces, gone);
          free(gone);
        }
      }
    }
  }
  for (size_t place = 0; place <= kKeptPlaces; ++place) {
    sums[place].alloc_objects += objects[place];
    sums[place].alloc_bytes += bytes[place];
  }
}

int Beside(int threads, uint64_t megabytes, int times, const char* path) {
  Count sums[kKeptPlaces + 1];
  std::vector<std::vector<void*>> blocks(static_cast<size_t>(threads));
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    running.emplace_back(RunBeside, static_cast<uint64_t>(i) + 1,
                         megabytes * 1000000 / static_cast<uint64_t>(threads),
                         times, sums, &blocks[static_cast<size_t>(i)]);
  }
  for (std::thread& thread : running) thread.join();
  const int error = hak_profile_write(path);
  for (size_t place = 0; place < kKeptPlaces; ++place) {
    const uint64_t objects = sums[place].alloc_objects;
    const uint64_t bytes = sums[place].alloc_bytes;
    PrintPlace(kKept[place].allocate, objects, bytes, objects, bytes);
  }
  PrintPlace(&AllocateAt<kKeptPlaces>, sums[kKeptPlaces].alloc_objects,
             sums[kKeptPlaces].alloc_bytes, 0, 0);
  return error;
}

void PrintThreads() {
  std::FILE* const status = std::fopen("/proc/self/status", "r");
  char line[256];
  while (std::fgets(line, sizeof(line), status) != nullptr) {
    if (std::strncmp(line, "Threads:", 8) == 0) {
      std::printf("%d\n", std::atoi(line + 8));
    }
  }
  std::fclose(status);
  std::fflush(stdout);
}

// Short-lived blocks of the sizes that others keep, so that mostly these calls
// find bins full and empty.
void Churn(uint64_t* random) {
  const auto next = [random] {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    constexpr size_t kSizes[] = {48, 48, 48, 400, 400, 5000, 48, 400};
    return AllocateShort(kSizes[*random >> 61]);
  };
  void* blocks[8];
  for (void*& block : blocks) block = next();
  for (int i = 0; i < 16; ++i) {
    Release(5, blocks[i % 8]);
    blocks[i % 8] = next();
  }
  for (void* const block : blocks) Release(5, block);
}

void RunFive(int thread, std::vector<void*>* kept) {
  uint64_t random = static_cast<uint64_t>(thread) + 1;
  for (int i = 0; i < 40000; ++i) {
    Churn(&random);
    kept->push_back(AllocateSmall());
    void* const gone = AllocateSmall();
    kept->push_back(AllocateSmall());
    Release(0, gone);
    if (i % 2 == 0) kept->push_back(AllocateNew());
    if (i % 8 == 0) kept->push_back(AllocateMedium());
    if (i % 64 == 0) kept->push_back(AllocateAligned());
    if (i % 2000 == 0) kept->push_back(AllocateLarge());
  }
}

int Five(int threads, const char* path) {
  std::vector<std::vector<void*>> kept(static_cast<size_t>(threads));
  for (std::vector<void*>& blocks : kept) blocks.reserve(200000);
  std::vector<std::thread> running;
  for (int i = 1; i < threads; ++i) {
    running.emplace_back(RunFive, i, &kept[static_cast<size_t>(i)]);
  }
  RunFive(0, kept.data());
  for (std::thread& thread : running) thread.join();
  const int error = hak_profile_write(path);
  PrintCounts();
  return error;
}

int Exact(const char* path) {
  void* const blocks[] = {AllocateSmall(),
                          AllocateSmall(),
                          AllocateNew(),
                          AllocateMedium(),
                          AllocateAligned(),
                          AllocateLarge(),
                          AllocateAlignedSmall(),
                          AllocateZeroedLarge(),
                          Resize(AllocateToResize())};
  Release(0, AllocateSmall());
  const int error = hak_profile_write(path);
  PrintCounts();
  return blocks[0] == nullptr ? 1 : error;
}

void Allocate() {
  for (int i = 0; i < 1000; ++i) Release(5, AllocateShort(400));
}

}  // namespace

int main(int argc, char** argv) {
  const char* const mode = argc > 1 ? argv[1] : "";
  if (std::strcmp(mode, "five") == 0) {
    return Five(std::atoi(argv[2]), argv[3]);
  }
  if (std::strcmp(mode, "exact") == 0) return Exact(argv[2]);
  if (std::strcmp(mode, "write") == 0) {
    for (int i = 2; i < argc; ++i) {
      std::printf("%d\n", hak_profile_write(argv[i]));
    }
  } else if (std::strcmp(mode, "raise") == 0) {
    for (int i = std::atoi(argv[3]); i != 0; --i) {
      Allocate();
      raise(std::atoi(argv[2]));
    }
  } else if (std::strcmp(mode, "busy") == 0) {
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::seconds(std::atoi(argv[2]));
    while (std::chrono::steady_clock::now() < end) Allocate();
  } else if (std::strcmp(mode, "until") == 0) {
    Allocate();
    while (access(argv[2], F_OK) != 0) {
    }
  } else if (std::strcmp(mode, "fork") == 0) {
    Allocate();
    const pid_t child = fork();
    Allocate();
    std::printf("%d\n", getpid());
    if (child != 0) waitpid(child, nullptr, 0);
  } else if (std::strcmp(mode, "busiest") == 0) {
    return Busiest(argv[2], static_cast<size_t>(std::atoi(argv[3])),
                   static_cast<size_t>(std::atoi(argv[4])));
  } else if (std::strcmp(mode, "beside") == 0) {
    return Beside(std::atoi(argv[2]), static_cast<uint64_t>(std::atoi(argv[3])),
                  std::atoi(argv[4]), argv[5]);
  } else if (std::strcmp(mode, "idle") == 0) {
    Allocate();
    while (std::getchar() != EOF) {
    }
  } else if (std::strcmp(mode, "threads") == 0) {
    PrintThreads();
    const pid_t child = fork();
    if (child == 0) PrintThreads();
    if (child != 0) waitpid(child, nullptr, 0);
  } else {
    return 2;
  }
  return 0;
}
