// Allocates and frees one 64-byte block many times, with ten others live: what
// pair_instructions_test.py counts the instructions of.

#include <stdlib.h>

enum { kLive = 10, kPairs = 100000 };

int main(void) {
  void* live[kLive];
  for (int i = 0; i < kLive; ++i) live[i] = malloc(64);
  for (int i = 0; i < kPairs; ++i) {
    void* volatile block = malloc(64);
    free(block);
  }
  for (int i = 0; i < kLive; ++i) free(live[i]);
  return 0;
}
