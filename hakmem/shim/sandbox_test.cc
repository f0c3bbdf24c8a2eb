// In a sandbox that allows few system calls and ends who makes another.
//
// A program sets itself such a filter of system calls (seccomp(2)) when it has
// started, and its heap has to do with what is left from then on. Each test
// runs a part of this program in a process of its own: what is named there as
// SANDBOX_PART runs in place of main().

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/start_process.h"

namespace hakmem {
namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = size_t{1} << 20;

// Exit statuses of the process.
constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kNoSandbox = 2;
constexpr int kNotAllowed = 3;

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      std::fprintf(stderr, "sandbox_test.cc:%d: %s\n", __LINE__, #condition); \
      _exit(kFailed);                                                         \
    }                                                                         \
  } while (false)

// What docs/sandbox.md promises, and what the test and its threads need to end.
constexpr uint32_t kAllowed[] = {
    SYS_mmap,          SYS_munmap,     SYS_mprotect,    SYS_mremap,
    SYS_madvise,       SYS_futex,      SYS_sched_yield, SYS_clock_nanosleep,
    SYS_exit,          SYS_exit_group, SYS_write,       SYS_rt_sigreturn,
    SYS_rt_sigprocmask};

// Such as the filters of services, which have lists of what is harmless.
constexpr uint32_t kNotListed[] = {SYS_mincore};

void SayWhichCall(int, siginfo_t* info, void*) {
  char text[] = "system call 0000 is not allowed\n";
  auto number = static_cast<unsigned>(info->si_syscall);
  for (int i = 15; i >= 12; --i, number /= 10) {
    text[i] = static_cast<char>('0' + number % 10);
  }
  if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) _exit(kFailed);
  _exit(kNotAllowed);
}

// For all threads of the process: `calls` are `action`, others are `otherwise`.
// A call that is not allowed ends it.
void EnterSandbox(std::span<const uint32_t> calls, uint32_t action,
                  uint32_t otherwise) {
  struct sigaction on_call = {};
  on_call.sa_sigaction = &SayWhichCall;
  on_call.sa_flags = SA_SIGINFO;
  CHECK(sigaction(SIGSYS, &on_call, nullptr) == 0);
  std::array<sock_filter, 2 * std::size(kAllowed) + 2> filter;
  size_t at = 0;
  filter[at++] = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
  for (const uint32_t call : calls) {
    filter[at++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
    filter[at++] = BPF_STMT(BPF_RET | BPF_K, action);
  }
  filter[at++] = BPF_STMT(BPF_RET | BPF_K, otherwise);
  const sock_fprog program = {static_cast<uint16_t>(at), filter.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
              &program) != 0) {
    std::perror("sandbox_test: seccomp");
    _exit(kNoSandbox);
  }
}

void EnterStrict() {
  EnterSandbox(kAllowed, SECCOMP_RET_ALLOW, SECCOMP_RET_TRAP);
}

void EnterMild() {
  EnterSandbox(kNotListed, SECCOMP_RET_TRAP, SECCOMP_RET_ALLOW);
}

// Blocks of all sizes that come and go at random, looked at when they go.
class Churn {
 public:
  // Sizes of up to `most` bytes.
  Churn(uint64_t seed, size_t most) : state_(seed), most_(most) {}

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      Block& block = blocks_[Next() % std::size(blocks_)];
      const uint64_t kind = Next() % 8;
      if (kind == 0 && block.data != nullptr) {
        const size_t size = NextSize();
        Keep(block, realloc(block.data, size), size);
      } else {
        Drop(block);
        const size_t size = NextSize();
        Keep(block,
             kind == 1   ? calloc(1, size)
             : kind == 2 ? memalign(std::min(kMiB, most_) >> Next() % 8, size)
                         : malloc(size),
             size);
      }
    }
  }

  void DropAll() {
    for (Block& block : blocks_) Drop(block);
  }

 private:
  struct Block {
    unsigned char* data = nullptr;
    size_t size = 0;
  };

  uint64_t Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return state_ >> 33;
  }

  // As often below a KiB as from there to 32 times as much, and so on.
  size_t NextSize() {
    constexpr size_t kLimits[] = {kKiB, 32 * kKiB, kMiB, 4 * kMiB};
    const size_t limit = kLimits[Next() % std::size(kLimits)];
    return 1 + Next() % std::min(limit, most_);
  }

  // Every byte says what the size is.
  static unsigned char Fill(size_t size) {
    return static_cast<unsigned char>(size * 7 + 1);
  }

  static void Keep(Block& block, void* data, size_t size) {
    CHECK(data != nullptr);
    block = {static_cast<unsigned char*>(data), size};
    std::memset(data, Fill(size), size);
  }

  static void Drop(Block& block) {
    if (block.data == nullptr) return;
    for (const size_t at : {size_t{0}, block.size / 2, block.size - 1}) {
      CHECK(block.data[at] == Fill(block.size));
    }
    free(block.data);
    block = Block();
  }

  uint64_t state_;
  const size_t most_;
  Block blocks_[200];
};

// A heap that grows and shrinks, by threads that wait for each other.
void Everything(void (*enter)()) {
  constexpr int kThreads = 4;
  std::latch all_started(kThreads + 1);
  std::latch in_sandbox(1);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      all_started.arrive_and_wait();
      in_sandbox.wait();
      Churn churn(static_cast<uint64_t>(i), 4 * kMiB);
      for (int round = 0; round < 3; ++round) {
        churn.Run(1000);
        churn.DropAll();
        hak_release_memory(0);
      }
      // Small blocks by the hundred thousand are where threads wait.
      Churn(static_cast<uint64_t>(i), 2 * kKiB).Run(300000);
    });
  }
  all_started.arrive_and_wait();
  enter();
  in_sandbox.count_down();
  for (std::thread& thread : threads) thread.join();
  malloc_trim(0);
  CHECK(malloc(SIZE_MAX / 4) == nullptr);
}

// With HAKMEM_MINCORE=never not even figures make that call.
void AllButMincore() {
  Everything(EnterStrict);
  hak_stats stats;
  CHECK(hak_stats_get(&stats, sizeof(stats)) == 0);
  CHECK(stats.resident_bytes >= stats.slab_bytes);
}

// A program that needs little memory does not come to ask for more.
void Little() {
  EnterStrict();
  Churn churn(1, 4 * kKiB);
  churn.Run(100000);
  for (int i = 0; i < 20; ++i) {
    void* const block = malloc(200 * kKiB);
    CHECK(block != nullptr);
    free(block);
  }
  churn.DropAll();
}

[[gnu::constructor]] void RunPart() {
  const char* const text = getenv("SANDBOX_PART");
  if (text == nullptr) return;
  const std::string_view part = text;
  if (part == "little") {
    Little();
  } else if (part == "exit") {
    EnterMild();
    exit(kDone);
  } else if (part == "strict") {
    AllButMincore();
  } else {
    Everything(EnterMild);
  }
  _exit(kDone);
}

TEST(SandboxTest, StrictOneWithTheOption) {
  EXPECT_EQ(StartProcess({"SANDBOX_PART=strict", "HAKMEM_MINCORE=never"}),
            kDone);
}

TEST(SandboxTest, StrictOneOfASmallProgram) {
  EXPECT_EQ(StartProcess({"SANDBOX_PART=little"}), kDone);
}

TEST(SandboxTest, OneThatMayBeSeen) {
  EXPECT_EQ(StartProcess({"SANDBOX_PART=mild"}), kDone);
}

TEST(SandboxTest, WithAReportAtExit) {
  EXPECT_EQ(StartProcess({"SANDBOX_PART=exit", "HAKMEM_STATS=/dev/null",
                          "HAKMEM_LEAKS=/dev/null"}),
            kDone);
}

// Or the tests above would show nothing.
TEST(SandboxTest, OtherwiseSomeCallIsMissing) {
  EXPECT_EQ(StartProcess({"SANDBOX_PART=strict"}), kNotAllowed);
  EXPECT_EQ(StartProcess({"SANDBOX_PART=mild", "HAKMEM_MINCORE=1"}),
            kNotAllowed);
}

}  // namespace
}  // namespace hakmem
