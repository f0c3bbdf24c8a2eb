// Signals that arrive in the middle of malloc and free. A handler that does not
// allocate, on a stack of its own, must change nothing: not the heap, not
// errno.

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"

namespace {

constexpr size_t kSizes[] = {16,    500,    1000,   4000,
                             30000, 100000, 800000, 3000000};

// Larger than what the handler uses and what the kernel saves there.
constexpr size_t kStackBytes = 256 * 1024;

std::atomic<uint64_t> handled{0};
std::atomic<uint64_t> on_wrong_stack{0};
sem_t was_handled;
thread_local char* stack_begin = nullptr;

void Handle(int) {
  const int saved_errno = errno;
  char here[2048];
  std::memset(here, 0x5a, sizeof(here));
  asm volatile("" : : "r"(here) : "memory");
  // Before a thread has its stack, signals come on the one it runs on.
  if (stack_begin != nullptr &&
      (here < stack_begin || here >= stack_begin + kStackBytes)) {
    on_wrong_stack.fetch_add(1, std::memory_order_relaxed);
  }
  handled.fetch_add(1, std::memory_order_relaxed);
  sem_post(&was_handled);
  errno = saved_errno;
}

// The calling thread's signal stack, for as long as the object lives.
class SignalStack {
 public:
  SignalStack() : memory_(kStackBytes) {
    const stack_t stack = {memory_.data(), 0, kStackBytes};
    if (sigaltstack(&stack, nullptr) != 0) abort();
    stack_begin = memory_.data();
  }
  ~SignalStack() {
    stack_begin = nullptr;
    const stack_t none = {nullptr, SS_DISABLE, 0};
    if (sigaltstack(&none, nullptr) != 0) abort();
  }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  std::vector<char> memory_;
};

void InstallHandler(int signal) {
  struct sigaction action = {};
  action.sa_handler = &Handle;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  ASSERT_EQ(sigaction(signal, &action, nullptr), 0);
}

// Blocks of all sizes, a few of each at a time so that every path is taken.
void UseHeap(unsigned char mark) {
  void* blocks[std::size(kSizes)][3];
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    for (void*& block : blocks[i]) {
      errno = EXDEV;
      block = i % 2 == 0 ? malloc(kSizes[i]) : calloc(1, kSizes[i]);
      if (block == nullptr || errno != EXDEV) abort();
      std::memset(block, mark, 64 < kSizes[i] ? 64 : kSizes[i]);
    }
  }
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    for (void*& block : blocks[i]) {
      if (i % 3 == 0) block = realloc(block, kSizes[i] + kSizes[i] / 2);
      if (block == nullptr || *static_cast<unsigned char*>(block) != mark) {
        abort();
      }
      free(block);
      if (errno != EXDEV) abort();
    }
  }
}

// Every thread is hit over and over, also while it waits for a lock or sets
// itself up.
TEST(SignalTest, HandlersInTheMiddleOfMallocChangeNothing) {
  InstallHandler(SIGUSR1);
  ASSERT_EQ(sem_init(&was_handled, 0, 0), 0);
  sem_t has_worked;
  ASSERT_EQ(sem_init(&has_worked, 0, 0), 0);
  const auto wait = [](sem_t* semaphore) {
    while (sem_wait(semaphore) != 0) ASSERT_EQ(errno, EINTR);
  };
  constexpr int kThreads = 4;
  constexpr uint64_t kSignals = 2000;
  std::atomic<int> running{kThreads};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const SignalStack stack;
      for (int round = 0; round < 300 || handled.load() < kSignals; ++round) {
        UseHeap(static_cast<unsigned char>(i * 16 + round % 16));
        sem_post(&has_worked);
      }
      running.fetch_sub(1);
      sem_post(&has_worked);
      // Is there to be sent signals until nobody sends any.
      stop.wait(false);
    });
  }
  while (running.load() > 0) {
    for (std::thread& thread : threads) {
      ASSERT_EQ(pthread_kill(thread.native_handle(), SIGUSR1), 0);
    }
    // No more than they can take: they are to get on as well. A sleep that
    // signals cut short at the rate of the kernel's timers never ends.
    for (int i = 0; i < kThreads; ++i) wait(&was_handled);
    wait(&has_worked);
  }
  stop.store(true);
  stop.notify_all();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(on_wrong_stack.load(), 0);
}

// By a timer, in a program of one thread: the moments are the kernel's choice.
TEST(SignalTest, ATimerThatFiresAllTheTime) {
  InstallHandler(SIGALRM);
  const SignalStack stack;
  const uint64_t before = handled.load();
  timer_t timer;
  struct sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGALRM;
  ASSERT_EQ(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer), 0);
  const struct itimerspec often = {{0, 50000}, {0, 50000}};
  ASSERT_EQ(timer_settime(timer, 0, &often, nullptr), 0);
  while (handled.load() < before + 100) UseHeap(7);
  ASSERT_EQ(timer_delete(timer), 0);
}

}  // namespace
