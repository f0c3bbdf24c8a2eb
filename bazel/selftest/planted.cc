// A program with one planted error a run, named by its argument: race,
// overflow (of the heap) or integer (overflow). Without Abseil, so that a
// sanitizer which only this test uses costs no build of it.
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

namespace {

int counter = 0;

void Race() {
  auto count = [] {
    for (int i = 0; i < 2000; ++i) {
      ++counter;
      if (i % 100 == 0) std::this_thread::yield();
    }
  };
  std::thread one(count);
  std::thread other(count);
  one.join();
  other.join();
}

void OverflowHeap() {
  volatile int size = 8;
  char* block = static_cast<char*>(malloc(size));
  if (block == nullptr) return;
  static_cast<volatile char*>(block)[size] = 1;
  free(block);
}

void OverflowInteger() {
  volatile int number = INT_MAX;
  number = number + 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view planted = argc == 2 ? argv[1] : "";
  if (planted == "race") {
    Race();
  } else if (planted == "overflow") {
    OverflowHeap();
  } else if (planted == "integer") {
    OverflowInteger();
  } else {
    fprintf(stderr, "usage: %s race|overflow|integer\n", argv[0]);
    return 2;
  }
  return 0;
}
