#include "hakmem/core/cgroup.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "gtest/gtest.h"
#include "hakmem/core/arena.h"
#include "hakmem/core/os.h"

namespace hakmem {
namespace {

constexpr uint32_t kAllProcessors = UINT32_MAX;
constexpr size_t kAllMemory = SIZE_MAX;
constexpr size_t kMiB = size_t{1} << 20;

// A folder that has what is else in /proc and in /sys/fs/cgroup.
class CgroupTest : public testing::Test {
 protected:
  CgroupTest() {
    std::string folder = testing::TempDir() + "/cgroup_test-XXXXXX";
    if (mkdtemp(folder.data()) == nullptr) std::abort();
    folder_ = folder;
    std::filesystem::create_directory(root());
  }
  ~CgroupTest() override { std::filesystem::remove_all(folder_); }

  std::string root() const { return folder_ + "/fs"; }
  std::string memberships() const { return folder_ + "/cgroup"; }

  // A file below root(), with the folders that it is in.
  void Write(const std::string& path, std::string_view text) const {
    const std::filesystem::path file = root() + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  CgroupLimits Read(std::string_view text) const {
    std::ofstream(memberships()) << text;
    return ReadAgain();
  }
  CgroupLimits ReadAgain() const {
    return ReadCgroupLimits(memberships().c_str(), root().c_str());
  }

  // What the files of a container give, with `cpu_max` in one.
  uint32_t ProcessorsBy(std::string_view cpu_max) const {
    Write("cpu.max", cpu_max);
    return Read("0::/\n").processors;
  }
  size_t MemoryBy(std::string_view memory_max) const {
    Write("memory.max", memory_max);
    return Read("0::/\n").memory_bytes;
  }

  std::string folder_;
};

TEST_F(CgroupTest, WithoutFilesThereIsNoLimit) {
  errno = 77;
  for (const CgroupLimits& limits :
       {ReadAgain(), Read("0::/\n"), Read("2:memory:/\n1:cpu:/\n0::/a/b\n")}) {
    EXPECT_EQ(limits.processors, kAllProcessors);
    EXPECT_EQ(limits.memory_bytes, kAllMemory);
  }
  EXPECT_EQ(errno, 77);
}

TEST_F(CgroupTest, AContainerWithGroupsOfItsOwn) {
  Write("cpu.max", "200000 100000\n");
  Write("memory.max", "268435456\n");
  Write("memory.high", "max\n");
  const CgroupLimits limits = Read("0::/\n");
  EXPECT_EQ(limits.processors, 2u);
  EXPECT_EQ(limits.memory_bytes, 256 * kMiB);
}

TEST_F(CgroupTest, PartsOfAProcessorAreRoundedUp) {
  EXPECT_EQ(ProcessorsBy("150000 100000\n"), 2u);
  EXPECT_EQ(ProcessorsBy("100001 100000\n"), 2u);
  EXPECT_EQ(ProcessorsBy("100000 100000\n"), 1u);
  EXPECT_EQ(ProcessorsBy("50000 100000\n"), 1u);
  EXPECT_EQ(ProcessorsBy("1000 1000000\n"), 1u);
  EXPECT_EQ(ProcessorsBy("25000 10000\n"), 3u);
  EXPECT_EQ(ProcessorsBy("25000 10000"), 3u);
  EXPECT_EQ(ProcessorsBy("max 100000\n"), kAllProcessors);
}

TEST_F(CgroupTest, WhereMemoryBeginsToBeReclaimedCountsToo) {
  Write("memory.max", "268435456\n");
  Write("memory.high", "134217728\n");
  EXPECT_EQ(Read("0::/\n").memory_bytes, 128 * kMiB);
  EXPECT_EQ(MemoryBy("max\n"), 128 * kMiB);
  Write("memory.high", "max\n");
  EXPECT_EQ(MemoryBy("max\n"), kAllMemory);
}

// As the system itself has it, without a limit for all and with some for
// slices.
TEST_F(CgroupTest, TheLeastOfAllAncestorsCounts) {
  const std::string memberships = "0::/a.slice/b-a.slice/c.service\n";
  Write("a.slice/cpu.max", "300000 100000\n");
  Write("a.slice/memory.max", "1073741824\n");
  Write("a.slice/b-a.slice/cpu.max", "max 100000\n");
  Write("a.slice/b-a.slice/memory.max", "max\n");
  Write("a.slice/b-a.slice/memory.high", "536870912\n");
  Write("a.slice/b-a.slice/c.service/cpu.max", "400000 100000\n");
  Write("a.slice/b-a.slice/c.service/memory.max", "2147483648\n");
  // Others' groups.
  Write("d.slice/cpu.max", "100000 100000\n");
  Write("a.slice/b-a.slice/c.service/d/memory.max", "4096\n");
  CgroupLimits limits = Read(memberships);
  EXPECT_EQ(limits.processors, 3u);
  EXPECT_EQ(limits.memory_bytes, 512 * kMiB);
  Write("a.slice/b-a.slice/c.service/cpu.max", "100000 100000\n");
  Write("a.slice/b-a.slice/c.service/memory.max", "4194304\n");
  limits = Read(memberships);
  EXPECT_EQ(limits.processors, 1u);
  EXPECT_EQ(limits.memory_bytes, 4 * kMiB);
}

TEST_F(CgroupTest, WhatIsNotBelowTheMountIsPassedOver) {
  Write("cpu.max", "200000 100000\n");
  Write("memory.max", "268435456\n");
  CgroupLimits limits = Read("0::/docker/0123456789abcdef\n");
  EXPECT_EQ(limits.processors, 2u);
  EXPECT_EQ(limits.memory_bytes, 256 * kMiB);
  // Of a group of its own that has been removed the parent is left.
  Write("a/cpu.max", "100000 100000\n");
  limits = Read("0::/a/b (deleted)\n");
  EXPECT_EQ(limits.processors, 1u);
  EXPECT_EQ(limits.memory_bytes, 256 * kMiB);
}

TEST_F(CgroupTest, WhoIsOutsideOfWhatIsMountedHasNoneOfItsLimits) {
  Write("cpu.max", "200000 100000\n");
  EXPECT_EQ(Read("0::/..\n").processors, kAllProcessors);
  EXPECT_EQ(Read("0::/../a\n").processors, kAllProcessors);
  EXPECT_EQ(Read("0::/..a\n").processors, 2u);
}

TEST_F(CgroupTest, VersionOne) {
  Write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  Write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  Write("cpu,cpuacct/docker/a/cpu.cfs_quota_us", "150000\n");
  Write("cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000\n");
  Write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("memory/docker/memory.limit_in_bytes", "268435456\n");
  Write("memory/docker/a/memory.limit_in_bytes", "9223372036854771712\n");
  constexpr std::string_view kMemberships =
      "12:cpuset:/\n"
      "4:memory:/docker/a\n"
      "3:cpu,cpuacct:/docker/a\n"
      "1:name=systemd:/docker/a\n";
  CgroupLimits limits = Read(kMemberships);
  EXPECT_EQ(limits.processors, 2u);
  EXPECT_EQ(limits.memory_bytes, 256 * kMiB);
  EXPECT_EQ(Read("3:cpuacct,cpu:/docker/a\n").processors, kAllProcessors);
  // By the name that is there for that.
  std::filesystem::create_symlink("cpu,cpuacct", root() + "/cpu");
  EXPECT_EQ(Read("3:cpuacct,cpu:/docker/a\n").processors, 2u);
  EXPECT_EQ(Read("3:cpuacct:/docker/a\n").processors, kAllProcessors);
  Write("cpu/docker/cpu.cfs_quota_us", "10000\n");
  Write("cpu/docker/cpu.cfs_period_us", "20000\n");
  EXPECT_EQ(Read(kMemberships).processors, 1u);
  // No limit in a group that has none.
  limits = Read("4:memory:/\n3:cpu,cpuacct:/\n");
  EXPECT_EQ(limits.processors, kAllProcessors);
  EXPECT_GT(limits.memory_bytes, size_t{1} << 60);
}

TEST_F(CgroupTest, VersionOneOfWhichAContainersPartIsMounted) {
  Write("cpu/cpu.cfs_quota_us", "150000\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  Write("memory/memory.limit_in_bytes", "268435456\n");
  const CgroupLimits limits = Read("4:memory:/docker/a\n3:cpu:/docker/a\n");
  EXPECT_EQ(limits.processors, 2u);
  EXPECT_EQ(limits.memory_bytes, 256 * kMiB);
}

TEST_F(CgroupTest, BothVersions) {
  Write("unified/a/cpu.max", "100000 100000\n");
  Write("unified/a/memory.max", "4194304\n");
  Write("cpu/cpu.cfs_quota_us", "300000\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  Write("memory/b/memory.limit_in_bytes", "268435456\n");
  // The system has the files of a controller in one version only: here they are
  // in both, to see which are read.
  CgroupLimits limits = Read("5:memory:/b\n4:cpu:/b\n0::/a\n");
  EXPECT_EQ(limits.processors, 3u);
  EXPECT_EQ(limits.memory_bytes, 256 * kMiB);
  limits = Read("1:name=systemd:/a\n0::/a\n");
  EXPECT_EQ(limits.processors, 1u);
  EXPECT_EQ(limits.memory_bytes, 4 * kMiB);
  // Without hierarchies of version 1 that is a group as others.
  EXPECT_EQ(Read("0::/a\n").processors, kAllProcessors);
  // With version 2 at the root all the same.
  std::filesystem::remove_all(root() + "/unified");
  Write("a/cpu.max", "200000 100000\n");
  EXPECT_EQ(Read("1:name=elogind:/1\n0::/a\n").processors, 2u);
}

TEST_F(CgroupTest, WhatMakesNoSenseLimitsNothing) {
  for (const std::string_view text :
       {"", "\n", " ", "x", "max", "150000", "150000 ", "150000\n",
        "150000 x\n", "150000 0\n", "0 100000\n", "-150000 100000\n",
        "150000 -100000\n", "150000  100000\n", " 150000 100000\n",
        "150000x 100000\n", "1.5 1\n", "150000 100000 1\n", "150000\n100000\n",
        // 2 over 2^64 and more.
        "18446744073709551618 1\n", "1 18446744073709551618\n",
        "99999999999999999999999 1\n"}) {
    EXPECT_EQ(ProcessorsBy(text), kAllProcessors) << text;
  }
  EXPECT_EQ(ProcessorsBy({"2\0 1\n", 5}), kAllProcessors);
  EXPECT_EQ(ProcessorsBy(std::string(100000, '1')), kAllProcessors);
  EXPECT_EQ(ProcessorsBy("18446744073709551615 1\n"), UINT32_MAX);
  EXPECT_EQ(ProcessorsBy("18446744073709551615 18446744073709551614\n"), 2u);
  for (const std::string_view text :
       {"", "\n", "0\n", "-1\n", "x", "4096x\n", "4096 4096\n", "0x1000\n",
        "18446744073709551616\n", "36893488147419103232\n"}) {
    EXPECT_EQ(MemoryBy(text), kAllMemory) << text;
  }
  EXPECT_EQ(MemoryBy("4096"), 4096u);
  EXPECT_EQ(MemoryBy("18446744073709551614\n"), SIZE_MAX - 1);
  Write("cpu/cpu.cfs_quota_us", "150000\n");
  EXPECT_EQ(Read("1:cpu:/\n").processors, kAllProcessors) << "no period";
  Write("cpu/cpu.cfs_period_us", "0\n");
  EXPECT_EQ(Read("1:cpu:/\n").processors, kAllProcessors);
}

TEST_F(CgroupTest, MembershipsThatMakeNoSenseAreNone) {
  Write("cpu.max", "200000 100000\n");
  Write("cpu/cpu.cfs_quota_us", "150000\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  for (const std::string_view text :
       {"",           "\n",       ":",         "::",
        ":::",        "0",        "0:",        "0::",
        "0::\n",      "0::a\n",   "0:/\n",     "x",
        "1:cpu\n",    "1:cpu:\n", "1:cpu:x\n", "1:cpuset:/\n",
        "1:xcpu:/\n", "1::/\n",   ",:,:/",     "1:,,:/\n"}) {
    EXPECT_EQ(Read(text).processors, kAllProcessors) << text;
  }
  for (const std::string_view text :
       {"0::/", "\n\n0::/\n", "x\n0::/\n", "0::/x:y\n", "0::////\n",
        "0::/a//b/\n", "1:,cpu:/\n", "1:cpu:/\n0"}) {
    EXPECT_EQ(Read(text).processors, 2u) << text;
  }
}

TEST_F(CgroupTest, PathsThatAreTooLongAreIgnored) {
  Write("cpu.max", "200000 100000\n");
  std::string longest = "0::";
  while (longest.size() + root().size() < 4000) longest += "/abcdefghi";
  EXPECT_EQ(Read(longest + "\n").processors, 2u);
  // As long as the buffers, and a little more or less.
  for (size_t size = 4000; size < 4200; ++size) {
    for (const char* const end : {"", "\n", "/b\n"}) {
      const uint32_t processors =
          Read("0::/" + std::string(size, 'a') + end).processors;
      EXPECT_TRUE(processors == kAllProcessors ||
                  (processors == 2 && size < 4096));
    }
  }
  EXPECT_EQ(Read("0::/" + std::string(5000, '/')).processors, kAllProcessors);
  EXPECT_EQ(Read("0::/" + std::string(100000, 'a')).processors, kAllProcessors);
  // What stands before it counts.
  Write("cpu/cpu.cfs_quota_us", "300000\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Read("2:cpu:/\n1:a:/" + std::string(5000, 'a')).processors, 3u);
  // A root that leaves room for nothing.
  for (const size_t size : {4090u, 4095u, 4096u, 4097u, 9000u}) {
    const std::string root(size, '/');
    EXPECT_EQ(ReadCgroupLimits(memberships().c_str(), root.c_str()).processors,
              kAllProcessors);
  }
}

// Each costs what three system calls do, at the start of every program.
TEST_F(CgroupTest, FilesAreOpenedAndClosedOnce) {
  for (const char* const file : {"cpu.max", "memory.max", "memory.high"}) {
    Write(file, "1 1\n");
  }
  Write("cpu/cpu.cfs_quota_us", "-1\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  Write("memory/memory.limit_in_bytes", "4096\n");
  // Of how many files there were events.
  const auto opened = [this](std::string_view text) {
    const int fd = inotify_init1(IN_NONBLOCK);
    for (const char* const folder : {"", "/cpu", "/memory"}) {
      inotify_add_watch(fd, (root() + folder).c_str(),
                        IN_OPEN | IN_CLOSE_NOWRITE);
    }
    Read(text);
    alignas(inotify_event) char events[4096];
    const ssize_t size = read(fd, events, sizeof(events));
    close(fd);
    int opens = 0;
    int closes = 0;
    for (ssize_t at = 0; at < size;) {
      const auto* const event =
          reinterpret_cast<const inotify_event*>(events + at);
      ++((event->mask & IN_OPEN) != 0 ? opens : closes);
      at += static_cast<ssize_t>(sizeof(*event) + event->len);
    }
    EXPECT_EQ(opens, closes);
    return opens;
  };
  EXPECT_EQ(opened("0::/\n"), 3);
  EXPECT_EQ(opened("2:memory:/\n1:cpu:/\n0::/\n"), 2);
}

TEST_F(CgroupTest, FoldersInPlaceOfFilesLimitNothing) {
  std::filesystem::create_directory(root() + "/cpu.max");
  EXPECT_EQ(Read("0::/\n").processors, kAllProcessors);
  EXPECT_EQ(ReadCgroupLimits(root().c_str(), root().c_str()).processors,
            kAllProcessors);
}

TEST_F(CgroupTest, NoMoreMemoryIsUsableThanThereIs) {
  const size_t all = os::UsableMemory({});
  EXPECT_GT(all, 4096u);
  EXPECT_EQ(os::UsableMemory({.memory_bytes = 4096}), 4096u);
  EXPECT_EQ(os::UsableMemory({.memory_bytes = kAllMemory - 1}), all);
}

using CgroupDeathTest = CgroupTest;

TEST_F(CgroupDeathTest, WithoutPermissionThereIsNoLimit) {
  Write("cpu.max", "200000 100000\n");
  Write("memory.max", "268435456\n");
  chmod((root() + "/cpu.max").c_str(), 0);
  Read("0::/\n");
  const auto read = [this] {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[2] = {};
    if (syscall(SYS_capset, &header, none) != 0) _exit(2);
    const CgroupLimits limits = ReadAgain();
    _exit(limits.processors == kAllProcessors &&
                  limits.memory_bytes == 256 * kMiB
              ? 0
              : 1);
  };
  EXPECT_EXIT(read(), testing::ExitedWithCode(0), "^$");
}

TEST_F(CgroupDeathTest, WithoutFileDescriptorsThereIsNoLimit) {
  Write("cpu.max", "200000 100000\n");
  Read("0::/\n");
  const auto read = [this] {
    constexpr rlimit kNone = {0, 0};
    if (setrlimit(RLIMIT_NOFILE, &kNone) != 0) _exit(2);
    _exit(ReadAgain().processors == kAllProcessors ? 0 : 1);
  };
  EXPECT_EXIT(read(), testing::ExitedWithCode(0), "^$");
}

// What the arena has of a process that made prepare() true before its first
// allocation; nothing where it could not.
struct Seen {
  uint32_t processors;
  uint32_t parts;
  size_t cache_bytes;
};

template <typename Fn>
std::optional<Seen> InAChild(Fn prepare) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  constexpr int kNotPrepared = 1;
  const pid_t child = fork();
  if (child == 0) {
    if (!prepare()) _exit(kNotPrepared);
    static constinit Arena arena_of_child;
    if (!arena_of_child.EnsureReady()) _exit(2);
    const Seen seen = {arena_of_child.processors(), arena_of_child.parts(),
                       arena_of_child.cache_bytes()};
    _exit(write(ends[1], &seen, sizeof(seen)) == sizeof(seen) ? 0 : 3);
  }
  close(ends[1]);
  Seen seen = {};
  const ssize_t size = read(ends[0], &seen, sizeof(seen));
  close(ends[0]);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNotPrepared) {
    return std::nullopt;
  }
  EXPECT_EQ(status, 0);
  EXPECT_EQ(size, static_cast<ssize_t>(sizeof(seen)));
  return seen;
}

bool WriteText(const std::string& path, std::string_view text) {
  std::ofstream file(path);
  file << text;
  file.flush();
  return file.good();
}

// A group that the test makes below its own one, whose limits go on to hold; or
// below one that that is in, since version 2 gives limits only to the children
// of groups without processes. And one more inside, which a process can join.
class MachineCgroupTest : public testing::Test {
 protected:
  ~MachineCgroupTest() override {
    if (group_.empty()) return;
    // The last process may be on its way out.
    for (const std::string& group : {group_ + "/inner", group_}) {
      for (int i = 0; i < 100 && rmdir(group.c_str()) != 0 && errno == EBUSY;
           ++i) {
        usleep(10000);
      }
    }
  }

  // Whether there is such a group now, with the file `name` in it, in the
  // hierarchy of the controller or of all, for none.
  bool Make(std::string_view controller, std::string_view name) {
    std::ifstream memberships("/proc/self/cgroup");
    for (std::string line; std::getline(memberships, line);) {
      const size_t first = line.find(':') + 1;
      const size_t second = line.find(':', first);
      if (line.substr(first, second - first) != controller) continue;
      std::string mount = "/sys/fs/cgroup";
      if (!controller.empty()) mount.append("/").append(controller);
      std::string path = line.substr(second + 1);
      for (;;) {
        if (path == "/") path.clear();
        std::string group = mount + path + "/hakmem-test-XXXXXX";
        if (mkdtemp(group.data()) != nullptr) {
          group_ = group;
          if (std::filesystem::exists(group + "/" + std::string(name)) &&
              mkdir((group + "/inner").c_str(), 0755) == 0) {
            return true;
          }
          rmdir(group.c_str());
          group_.clear();
        }
        if (path.empty()) return false;
        path.resize(path.rfind('/'));
      }
    }
    return false;
  }

  bool Set(const std::string& name, std::string_view value) const {
    return WriteText(group_ + "/" + name, value);
  }

  std::optional<Seen> SeenInside() const {
    return InAChild([this] { return Set("inner/cgroup.procs", "0"); });
  }

  std::optional<Seen> SeenInsideWith(const char* option,
                                     const char* value) const {
    setenv(option, value, 1);
    const std::optional<Seen> seen = SeenInside();
    unsetenv(option);
    return seen;
  }

  std::string group_;
};

TEST_F(MachineCgroupTest, ProcessorsAndPartsFollowTheQuota) {
  const bool set =
      Make("cpu", "cpu.cfs_quota_us") || Make("cpu,cpuacct", "cpu.cfs_quota_us")
          ? Set("cpu.cfs_period_us", "100000") &&
                Set("cpu.cfs_quota_us", "50000")
          : Make("", "cpu.max") && Set("cpu.max", "50000 100000");
  if (!set) GTEST_SKIP() << "no group with a quota can be made here";
  const std::optional<Seen> seen = SeenInside();
  if (!seen) GTEST_SKIP() << "no process can be moved there";
  EXPECT_EQ(seen->processors, 1u);
  EXPECT_EQ(seen->parts, 1u);
  const std::optional<Seen> more = SeenInsideWith("HAKMEM_ARENA_PARTS", "4");
  ASSERT_TRUE(more);
  EXPECT_EQ(more->processors, 1u);
  EXPECT_EQ(more->parts, 4u);
}

TEST_F(MachineCgroupTest, CachesFollowTheLimitOfMemory) {
  const bool set =
      Make("memory", "memory.limit_in_bytes")
          ? Set("memory.limit_in_bytes", "134217728")
          : Make("", "memory.max") && Set("memory.max", "134217728");
  if (!set) GTEST_SKIP() << "no group with a limit of memory can be made here";
  const std::optional<Seen> seen = SeenInside();
  if (!seen) GTEST_SKIP() << "no process can be moved there";
  EXPECT_EQ(seen->cache_bytes, 2 * kMiB);
  const std::optional<Seen> more = SeenInsideWith("HAKMEM_CACHE_BYTES", "20M");
  ASSERT_TRUE(more);
  EXPECT_EQ(more->cache_bytes, 20 * kMiB);
}

// Files of the test's in the system's places, for one process: what is read is
// read there.
TEST_F(CgroupTest, AnArenaReadsTheSystemsFiles) {
  Write("a/cpu.max", "50000 100000\n");
  Write("a/memory.high", "134217728\n");
  Read("0::/a/b\n");
  const auto put_in_place = [this] {
    return unshare(CLONE_NEWNS) == 0 &&
           mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           mount(root().c_str(), "/sys/fs/cgroup", nullptr, MS_BIND, nullptr) ==
               0 &&
           mount(memberships().c_str(), "/proc/self/cgroup", nullptr, MS_BIND,
                 nullptr) == 0;
  };
  const std::optional<Seen> seen = InAChild(put_in_place);
  if (!seen) GTEST_SKIP() << "nothing can be mounted here";
  EXPECT_EQ(seen->processors, 1u);
  EXPECT_EQ(seen->parts, 1u);
  EXPECT_EQ(seen->cache_bytes, 2 * kMiB);
  Write("a/cpu.max", "max 100000\n");
  Write("a/memory.high", "max\n");
  const std::optional<Seen> without = InAChild(put_in_place);
  ASSERT_TRUE(without);
  EXPECT_EQ(without->processors, os::UsableProcessors({}));
  EXPECT_EQ(without->parts,
            std::bit_floor(std::min(without->processors, Arena::kMostParts)));
  EXPECT_EQ(without->cache_bytes, os::UsableMemory({}) / 64);
}

}  // namespace
}  // namespace hakmem
