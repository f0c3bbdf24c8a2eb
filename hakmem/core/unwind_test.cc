// Stacks as CaptureStack() sees them, beside what the compiler's own unwinder
// (_Unwind_Backtrace) makes of the same ones.

#include "hakmem/core/unwind.h"

#include <alloca.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "hakmem/core/unwind_cache.h"

namespace hakmem {
namespace {

constexpr size_t kMost = 256;

// How often this thread has asked the system whether a page can be read.
thread_local uint64_t questions = 0;

// Two unwinders' views of one stack. Made without allocation.
struct Views {
  uintptr_t ours[kMost];
  size_t ours_count = 0;
  uintptr_t theirs[kMost];
  size_t theirs_count = 0;
};

_Unwind_Reason_Code NoteFrame(_Unwind_Context* context, void* views_pointer) {
  auto* const views = static_cast<Views*>(views_pointer);
  int before = 0;
  const uintptr_t ip = _Unwind_GetIPInfo(context, &before);
  if (ip == 0 || views->theirs_count == kMost) return _URC_END_OF_STACK;
  views->theirs[views->theirs_count++] = before != 0 ? ip : ip - 1;
  return _URC_NO_REASON;
}

[[gnu::noinline]] void Look(Views* views) {
  views->theirs_count = 0;
  _Unwind_Backtrace(&NoteFrame, views);
  views->ours_count = CaptureStack(views->ours, kMost, 0);
}

// Whether the two agree on everything above Look() itself.
bool Agree(const Views& views) {
  return views.ours_count > 1 && views.ours_count == views.theirs_count &&
         std::equal(views.ours + 1, views.ours + views.ours_count,
                    views.theirs + 1);
}

void ExpectAgreement(const Views& views) {
  EXPECT_TRUE(Agree(views));
  const std::vector<uintptr_t> ours(views.ours + 1,
                                    views.ours + views.ours_count);
  const std::vector<uintptr_t> theirs(views.theirs + 1,
                                      views.theirs + views.theirs_count);
  EXPECT_EQ(ours, theirs);
}

TEST(UnwindTest, AgreesInATest) {
  Views views;
  Look(&views);
  ExpectAgreement(views);
  EXPECT_GT(views.ours_count, 5u);
}

// Keeps calls from being tail calls, and arguments from being constants.
volatile int sink = 0;

[[gnu::noinline]] int WithAlloca(int bytes, Views* views) {
  auto* const memory = static_cast<char*>(alloca(static_cast<size_t>(bytes)));
  std::memset(memory, bytes, static_cast<size_t>(bytes));
  Look(views);
  return memory[bytes / 2] + sink;
}

[[gnu::noinline]] int WithAlignedLocal(int bytes, Views* views) {
  alignas(64) volatile char local[128];
  local[sink] = 1;
  return WithAlloca(bytes, views) + local[sink];
}

[[gnu::noinline]] int WithManyArguments(int a, int b, int c, int d, int e,
                                        int f, int g, int h, Views* views) {
  return WithAlignedLocal(a + b + c + d + e + f + g + h, views) + sink;
}

TEST(UnwindTest, AgreesInFunctionsWithOddFrames) {
  Views views;
  sink = WithManyArguments(1, 2, 3, 4, 5, 6, 7, 8, &views);
  ExpectAgreement(views);
}

[[gnu::noinline]] int Recurse(int depth, Views* views) {
  volatile char local[48];
  local[0] = static_cast<char>(depth);
  if (depth == 0) {
    Look(views);
    return 0;
  }
  return Recurse(depth - 1, views) + local[0];
}

TEST(UnwindTest, AgreesInARecursion) {
  Views views;
  sink = Recurse(100, &views);
  ExpectAgreement(views);
  EXPECT_GT(views.ours_count, 100u);
}

[[gnu::noinline]] size_t RecurseAndCount(int depth, std::span<uintptr_t> out) {
  const size_t count = depth == 0 ? CaptureStack(out.data(), out.size(), 0)
                                  : RecurseAndCount(depth - 1, out);
  sink = static_cast<int>(count);
  return count;
}

TEST(UnwindTest, TakesTheInnermostFramesOfADeepStack) {
  std::vector<uintptr_t> all(3000);
  std::vector<uintptr_t> some(10);
  EXPECT_GT(RecurseAndCount(2000, all), 2000u);
  EXPECT_EQ(RecurseAndCount(2000, some), 10u);
  EXPECT_EQ(some[8], all[8]);
  EXPECT_EQ(RecurseAndCount(3, std::span<uintptr_t>()), 0u);
}

[[gnu::noinline]] size_t CaptureFrom(uintptr_t caller, uintptr_t* frames) {
  const size_t count = CaptureStack(frames, kMost, caller);
  sink = static_cast<int>(count);
  return count;
}

[[gnu::noinline]] size_t CaptureOwnCaller(uintptr_t* frames,
                                          uintptr_t* caller) {
  *caller = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  const size_t count = CaptureFrom(*caller, frames);
  sink = static_cast<int>(count);
  return count;
}

TEST(UnwindTest, LeavesOutWhatIsAboveTheCaller) {
  uintptr_t frames[kMost];
  uintptr_t caller = 0;
  const size_t count = CaptureOwnCaller(frames, &caller);
  ASSERT_GT(count, 2u);
  EXPECT_EQ(frames[0], caller - 1);
  // All of them where the caller is not among them.
  uintptr_t all[kMost];
  EXPECT_EQ(CaptureFrom(1, all), count + 1);
}

TEST(UnwindTest, KeepsErrno) {
  uintptr_t frames[kMost];
  errno = 77;
  CaptureStack(frames, kMost, 0);
  EXPECT_EQ(errno, 77);
}

// As many rows as a deep stack has. Were there one place for each, some of
// these would take another's.
TEST(UnwindTest, RowsOfOneStackAreKeptTogether) {
  constexpr uint32_t kTag = 3;
  static constinit UnwindCache cache;
  std::mt19937 random(1);
  std::vector<uintptr_t> pcs(64);
  for (uintptr_t& pc : pcs) pc = 0x555500000000 + random();
  CompactRow row;
  for (int pass = 0; pass < 3; ++pass) {
    for (const uintptr_t pc : pcs) {
      if (!cache.Find(pc, kTag, &row)) cache.Put(pc, kTag, {pc + 1, pc + 2});
    }
  }
  for (const uintptr_t pc : pcs) {
    ASSERT_TRUE(cache.Find(pc, kTag, &row));
    EXPECT_EQ(row.shape, pc + 1);
    EXPECT_EQ(row.saved, pc + 2);
    EXPECT_FALSE(cache.Find(pc, kTag + 1, &row));
  }
  // Of another object in the same place.
  cache.Put(pcs[0], kTag + 1, {7, 7});
  EXPECT_TRUE(cache.Find(pcs[0], kTag + 1, &row));
  EXPECT_FALSE(cache.Find(pcs[0], kTag, &row));
}

// Each page of a stack that is read costs a question to the system, once.
TEST(UnwindTest, KnowsAStackFromTheCaptureBefore) {
  constexpr int kCaptures = 1000;
  std::thread([] {
    uintptr_t frames[kMost];
    const uint64_t before = questions;
    ASSERT_GT(CaptureStack(frames, kMost, 0), 2u);
    const uint64_t first = questions;
    EXPECT_GT(first, before);
    for (int i = 0; i < kCaptures; ++i) CaptureStack(frames, kMost, 0);
    // Once more every eighth of a second, under a slow tool too.
    EXPECT_LT(questions - first, kCaptures / 2);
  }).join();
}

TEST(UnwindTest, AgreesOnNewThreadsWhereTheStackEnds) {
  std::vector<Views> views(8);
  std::vector<std::thread> threads;
  for (Views& view : views) {
    threads.emplace_back([&view] {
      for (int i = 0; i < 200; ++i) Look(&view);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Views& view : views) ExpectAgreement(view);
}

Views* handler_views = nullptr;

void LookInHandler(int) { Look(handler_views); }

void Install(int signal, void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  ASSERT_EQ(sigaction(signal, &action, nullptr), 0);
}

class AlternateStack {
 public:
  AlternateStack() : memory_(size_t{256} << 10) {
    stack_t stack = {};
    stack.ss_sp = memory_.data();
    stack.ss_size = memory_.size();
    sigaltstack(&stack, &before_);
  }
  ~AlternateStack() { sigaltstack(&before_, nullptr); }

 private:
  std::vector<char> memory_;
  stack_t before_;
};

TEST(UnwindTest, AgreesInSignalHandlersOnEitherStack) {
  const AlternateStack stack;
  for (const int flags : {0, SA_ONSTACK}) {
    Views views;
    handler_views = &views;
    Install(SIGUSR1, &LookInHandler, flags);
    raise(SIGUSR1);
    ExpectAgreement(views);
  }
}

// A handler within a handler, on the stack that the first one is on already.
TEST(UnwindTest, AgreesInASignalThatInterruptsAHandler) {
  const AlternateStack stack;
  Views views;
  handler_views = &views;
  Install(SIGUSR1, &LookInHandler, SA_ONSTACK);
  Install(
      SIGUSR2, [](int) { raise(SIGUSR1); }, SA_ONSTACK);
  raise(SIGUSR2);
  ExpectAgreement(views);
}

// --- every instruction
// --------------------------------------------------------

// Hand-written: a state that is remembered, a CFA by an expression as entries
// of the procedure linkage table have it, a register that is saved where an
// expression says, and instructions that are passed over.
extern "C" int HandWritten(int count);
asm(R"(
  .text
  .type HandWritten, @function
HandWritten:
  .cfi_startproc
  pushq %rbx
  .cfi_def_cfa_offset 16
  .cfi_offset 3, -16
  movl %edi, %ebx
  .cfi_remember_state
  testl %edi, %edi
  jne 1f
  popq %rbx
  .cfi_def_cfa_offset 8
  .cfi_restore 3
  xorl %eax, %eax
  ret
1:
  .cfi_restore_state
  pushq %r12
  .cfi_def_cfa_offset 24
  .cfi_escape 0x10, 12, 2, 0x23, 0x68
  .cfi_escape 0x2e, 0x10
  xorl %r12d, %r12d
  pushq $7
  .cfi_escape 0x0f, 3, 0x77, 32, 0x96
  incl %r12d
  popq %rax
  .cfi_def_cfa 7, 24
  popq %r12
  .cfi_def_cfa_offset 16
  .cfi_same_value 12
  leal -1(%rbx), %edi
  call HandWritten
  incl %eax
  popq %rbx
  .cfi_def_cfa_offset 8
  .cfi_restore 3
  ret
  .cfi_endproc
  .size HandWritten, . - HandWritten
)");

struct Stepping {
  volatile bool ended = false;
  Views views;
  uint64_t steps = 0;
  uint64_t bad = 0;
  Views first_bad;
};
Stepping* stepping = nullptr;

// The processor's.
constexpr greg_t kTrapFlag = 0x100;

void OnStep(int, siginfo_t*, void* context) {
  if (stepping->ended) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
    return;
  }
  ++stepping->steps;
  Look(&stepping->views);
  if (!Agree(stepping->views) && stepping->bad++ == 0) {
    stepping->first_bad = stepping->views;
  }
}

// Where the frames are, for who does not have the machine that they were on.
std::string Places(const uintptr_t* frames, size_t count) {
  std::ostringstream places;
  for (const uintptr_t frame : std::span(frames, count)) {
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(frame), &info) == 0) {
      places << "  " << std::hex << frame;
      continue;
    }
    places << "  " << info.dli_fname << "+" << std::hex
           << frame - reinterpret_cast<uintptr_t>(info.dli_fbase);
    if (info.dli_sname != nullptr) places << " " << info.dli_sname;
  }
  return places.str();
}

// Keeps off the red zone, which the compiler may use. The first step is after
// all of this, where the stack is as the compiler's tables have it.
[[gnu::always_inline]] inline void BeginStepping() {
  asm volatile(
      "subq $128, %%rsp\n\tpushfq\n\torl %0, (%%rsp)\n\tpopfq\n\t"
      "addq $128, %%rsp" ::"i"(kTrapFlag)
      : "memory", "cc");
}

[[gnu::noinline]] double Leaf(double x) { return x * sink + 1; }

[[gnu::noinline]] int Touch(int bytes) {
  auto* const memory = static_cast<char*>(alloca(static_cast<size_t>(bytes)));
  std::memset(memory, bytes, static_cast<size_t>(bytes));
  alignas(64) volatile char local[64];
  local[sink & 1] = memory[bytes / 2];
  return local[sink & 1] + static_cast<int>(Leaf(bytes)) + sink;
}

[[gnu::noinline]] int TouchAll(int a, int b, int c, int d, int e, int f, int g,
                               int h) {
  int sum = 0;
  for (int i = 1; i < 3; ++i) sum += Touch(a + b + c + d + e + f + g + h + i);
  return sum;
}

TEST(UnwindTest, AgreesBeforeEveryInstruction) {
  Stepping state;
  stepping = &state;
  struct sigaction action = {};
  action.sa_sigaction = &OnStep;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(sigaction(SIGTRAP, &action, nullptr), 0);
  std::vector<int> numbers = {5, 3, 9, 1, 7, 2, 8, 6, 4, 0, 11, 10};
  BeginStepping();
  sink = TouchAll(1, 2, 3, 4, 5, 6, 7, 8) & 1;
  sink = HandWritten(3) & 1;
  std::sort(numbers.begin(), numbers.end());
  sink = getppid() & 1;  // by the linkage table, for the first time and again
  sink = getppid() & 1;
  void* volatile block = malloc(100);
  free(block);
  state.ended = true;
  EXPECT_GT(state.steps, 500u);
  const Views& bad = state.first_bad;
  EXPECT_EQ(state.bad, 0u) << "of " << state.steps << ", first where we find\n"
                           << Places(bad.ours, bad.ours_count) << "\nand they\n"
                           << Places(bad.theirs, bad.theirs_count);
}

// --- code without tables
// ------------------------------------------------------

// Calls its first argument with its second, with a frame pointer; as an
// interpreter may have made it.
constexpr unsigned char kMadeCode[] = {0x55,              // push rbp
                                       0x48, 0x89, 0xe5,  // mov rbp, rsp
                                       0x48, 0x89, 0xf8,  // mov rax, rdi
                                       0x48, 0x89, 0xf7,  // mov rdi, rsi
                                       0xff, 0xd0,        // call rax
                                       0x5d,              // pop rbp
                                       0xc3};             // ret
constexpr uintptr_t kAfterTheCall = 12;

TEST(UnwindTest, PassesCodeThatWasMadeAtRunTime) {
  void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  // UBSan looks at what stands before a function that is called.
  void* const code = static_cast<char*>(page) + 64;
  std::memcpy(code, kMadeCode, sizeof(kMadeCode));
  ASSERT_EQ(mprotect(page, 4096, PROT_READ | PROT_EXEC), 0);
  Views direct;
  Views through;
  Look(&direct);
  reinterpret_cast<void (*)(void (*)(Views*), Views*)>(code)(&Look, &through);
  // Look()'s own frame, that of the code, and from this function's caller on
  // the same ones.
  ASSERT_EQ(through.ours_count, direct.ours_count + 1);
  EXPECT_EQ(through.ours[1],
            reinterpret_cast<uintptr_t>(code) + kAfterTheCall - 1);
  EXPECT_TRUE(std::equal(through.ours + 3, through.ours + through.ours_count,
                         direct.ours + 2));
  EXPECT_LT(through.theirs_count, through.ours_count);
  munmap(page, 4096);
}

// --- what interrupts itself
// ---------------------------------------------------

std::atomic<int> ticks{0};
std::atomic<int> lost{0};
uintptr_t main_frame = 0;

bool EndsAt(const uintptr_t* frames, size_t count, uintptr_t frame) {
  return count > 2 &&
         std::find(frames, frames + count, frame) != frames + count;
}

void OnTick(int) {
  uintptr_t frames[kMost];
  const size_t count = CaptureStack(frames, kMost, 0);
  if (!EndsAt(frames, count, main_frame)) lost.fetch_add(1);
  ticks.fetch_add(1);
}

TEST(UnwindTest, MayBeInterruptedByItself) {
  uintptr_t frames[kMost];
  const size_t depth = CaptureStack(frames, kMost, 0);
  ASSERT_GT(depth, 3u);
  main_frame = frames[depth - 1];
  Install(SIGALRM, &OnTick, SA_RESTART);
  const itimerval every = {{0, 500}, {0, 500}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &every, nullptr), 0);
  int wrong = 0;
  while (ticks.load() < 200) {
    const size_t count = CaptureStack(frames, kMost, 0);
    if (count != depth || frames[count - 1] != main_frame) ++wrong;
  }
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(lost.load(), 0);
}

// --- broken stacks
// ------------------------------------------------------------

// Fills the caller's saved registers and return address with `words`, looks,
// and puts them back.
[[gnu::noinline]] size_t CaptureOver(uintptr_t* place,
                                     std::span<const uintptr_t> words,
                                     uintptr_t* frames) {
  uintptr_t kept[64];
  std::memcpy(kept, place, words.size_bytes());
  // Not memcpy(): it may return by what it has overwritten.
  for (size_t i = 0; i < words.size(); ++i) {
    reinterpret_cast<volatile uintptr_t*>(place)[i] = words[i];
  }
  const size_t count = CaptureStack(frames, kMost, 0);
  for (size_t i = 0; i < words.size(); ++i) {
    reinterpret_cast<volatile uintptr_t*>(place)[i] = kept[i];
  }
  return count;
}

[[gnu::noinline]] size_t Victim(std::span<const uintptr_t> words, size_t from,
                                uintptr_t* frames) {
  auto* const frame = static_cast<uintptr_t*>(__builtin_frame_address(0));
  const size_t count = CaptureOver(frame + from, words, frames);
  sink = static_cast<int>(count);
  return count;
}

#if !defined(__SANITIZE_ADDRESS__)

TEST(UnwindTest, ReturnsFromBrokenStacks) {
  auto* const guarded = static_cast<char*>(
      mmap(nullptr, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(guarded, MAP_FAILED);
  ASSERT_EQ(mprotect(guarded + 4096, 4096, PROT_READ | PROT_WRITE), 0);
  const auto island = reinterpret_cast<uintptr_t>(guarded + 4096);
  std::mt19937_64 random(1);
  uintptr_t frames[kMost];
  const auto here = reinterpret_cast<uintptr_t>(frames);
  const auto code = reinterpret_cast<uintptr_t>(&Recurse);
  const auto library = reinterpret_cast<uintptr_t>(&raise);
  const auto pick = [&]() -> uintptr_t {
    const uint64_t r = random();
    switch (r % 10) {
      case 0:
        return random();
      case 1:
        return r >> 32 & 0xffff;
      case 2:
        return here + (r >> 32 & 0xfff8);
      case 3:
        return here - (r >> 32 & 0xfff8);
      case 4:
        return island + 4096 - (r >> 32 & 0x1f);
      case 5:
        return island - (r >> 32 & 0x1f);
      case 6:
        return code + (r >> 32 & 0xffff);
      case 7:
        return library + (r >> 32 & 0xffff);
      case 8:
        return (r >> 32 & 0xff8) + 0x7ffffffff000 - 4096;
      default:
        return 0;
    }
  };
  size_t longest = 0;
  for (int i = 0; i < 20000; ++i) {
    uintptr_t words[24];
    for (uintptr_t& word : words) word = pick();
    const size_t size = 1 + random() % std::size(words);
    // From its own return address on, or from what is above it.
    const size_t count = Victim(std::span(words, size), random() % 4, frames);
    ASSERT_LE(count, kMost);
    longest = std::max(longest, count);
  }
  // Some ended nowhere, but some went on past what was broken.
  EXPECT_GT(longest, 1u);
  munmap(guarded, 3 * 4096);
}

#endif

}  // namespace
}  // namespace hakmem

extern "C" {

// The C library's, with the questions counted.
long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  if (number == SYS_rt_sigprocmask) ++hakmem::questions;
  register long fourth asm("r10") = arguments[3];
  register long fifth asm("r8") = arguments[4];
  register long sixth asm("r9") = arguments[5];
  long result = number;
  asm volatile("syscall"
               : "+a"(result)
               : "D"(arguments[0]), "S"(arguments[1]), "d"(arguments[2]),
                 "r"(fourth), "r"(fifth), "r"(sixth)
               : "rcx", "r11", "memory");
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // extern "C"
