// In a sandbox that allows few system calls and ends who makes another.
//
// A program sets itself such a filter of system calls (seccomp(2)) when it has
// started, and its heap has to do with what is left from then on. Each test
// runs a part of this program in a process of its own: StartPart().

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <span>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"
#include "hakmem/shim/random_heap.h"
#include "hakmem/shim/start_process.h"

namespace hakmem {
namespace {

constexpr size_t kKiB = 1024;

// Exit statuses of the process.
constexpr int kDone = 0;
constexpr int kFailed = 1;  // and of CHECK()
constexpr int kNoSandbox = 2;
constexpr int kNotAllowed = 3;

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
      Workload workload(static_cast<uint64_t>(2 * i + 1));
      for (int round = 0; round < 3; ++round) {
        workload.Run(3000, false);
        workload.FreeAll();
        hak_release_memory(0);
      }
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
  const hak_stats stats = Stats();
  CHECK(stats.resident_bytes >= stats.slab_bytes);
}

// A program that needs little memory does not come to ask for more.
void Little() {
  EnterStrict();
  Workload workload(1, 4 * kKiB);
  workload.Run(100000, false);
  void* blocks[20];
  for (void*& block : blocks) {
    block = malloc(200 * kKiB);
    CHECK(block != nullptr);
  }
  for (void* const block : blocks) free(block);
  workload.FreeAll();
}

// More than a small program, all of which it uses.
void Grow() {
  EnterMild();
  std::vector<char*> blocks((48 * kKiB * kKiB) / (20 * kKiB));
  for (char*& block : blocks) {
    block = static_cast<char*>(malloc(20 * kKiB));
    CHECK(block != nullptr);
    std::memset(block, 1, 20 * kKiB);
  }
  for (char* const block : blocks) free(block);
}

void AllButWhatIsSeen() { Everything(EnterMild); }

void Exit() {
  EnterMild();
  exit(kDone);
}

constexpr Part kParts[] = {{"strict", &AllButMincore},
                           {"little", &Little},
                           {"grow", &Grow},
                           {"mild", &AllButWhatIsSeen},
                           {"exit", &Exit}};

[[gnu::constructor]] void RunThePart() { RunPart(kParts); }

TEST(SandboxTest, StrictOneWithTheOption) {
  EXPECT_EQ(StartPart("strict", {"HAKMEM_MINCORE=never"}), kDone);
}

TEST(SandboxTest, StrictOneOfASmallProgram) {
  EXPECT_EQ(StartPart("little"), kDone);
}

TEST(SandboxTest, OneThatMayBeSeen) { EXPECT_EQ(StartPart("mild"), kDone); }

TEST(SandboxTest, WhereGivingBackCostsMuch) {
  EXPECT_EQ(StartPart("grow", {"HAKMEM_PURGE=later"}), kDone);
}

TEST(SandboxTest, WithAReportAtExit) {
  EXPECT_EQ(
      StartPart("exit", {"HAKMEM_STATS=/dev/null", "HAKMEM_LEAKS=/dev/null"}),
      kDone);
}

// Or the tests above would show nothing.
TEST(SandboxTest, OtherwiseSomeCallIsMissing) {
  EXPECT_EQ(StartPart("strict"), kNotAllowed);
  EXPECT_EQ(StartPart("mild", {"HAKMEM_MINCORE=1"}), kNotAllowed);
  EXPECT_EQ(StartPart("grow", {"HAKMEM_MINCORE=1", "HAKMEM_PURGE=later"}),
            kNotAllowed);
}

}  // namespace
}  // namespace hakmem
