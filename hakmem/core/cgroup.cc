#include "hakmem/core/cgroup.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

#include "hakmem/core/os.h"

namespace hakmem {
namespace {

// The file of memberships counts up to here, and a path that is as long cannot
// be opened.
constexpr size_t kMostBytes = 4096;

// What the file begins with, as much as `buffer` holds. False where it cannot
// be opened. One read: the system has these texts in one piece.
bool ReadText(const char* path, std::span<char> buffer,
              std::string_view* text) {
  const int fd = os::OpenFile(path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return false;
  const ptrdiff_t size = os::ReadFile(fd, buffer.data(), buffer.size());
  os::CloseFile(fd);
  *text = {buffer.data(), static_cast<size_t>(std::max<ptrdiff_t>(size, 0))};
  return true;
}

// Takes from `text` what is before `end`, and `end` itself; all if it has none.
std::string_view TakeUntil(std::string_view& text, char end) {
  const std::string_view taken = text.substr(0, text.find(end));
  text.remove_prefix(std::min(taken.size() + 1, text.size()));
  return taken;
}

// 0 for what is no number, as "max" and -1, and for what does not fit: no limit
// at all.
uint64_t NumberOf(std::string_view text) {
  uint64_t number = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return 0;
    if (__builtin_mul_overflow(number, 10, &number) ||
        __builtin_add_overflow(number, static_cast<uint64_t>(c - '0'),
                               &number)) {
      return 0;
    }
  }
  return number;
}

bool Names(std::string_view controllers, std::string_view name) {
  while (!controllers.empty()) {
    if (TakeUntil(controllers, ',') == name) return true;
  }
  return false;
}

// A group, and by ToParent() those that it is in, up to the one that is
// mounted. Where a container has no groups of its own but only its part of the
// machine's is mounted, the path is not below the mount, and that one alone is
// found.
class Group {
 public:
  Group(std::string_view root, std::string_view hierarchy,
        std::string_view path) {
    while (path.ends_with('/')) path.remove_suffix(1);
    fits_ = Append(root) &&
            (hierarchy.empty() || (Append("/") && Append(hierarchy)));
    mount_size_ = size_;
    fits_ = fits_ && Append(path);
  }

  // The line of a file; empty where there is none.
  std::string_view Read(std::string_view file) {
    const size_t size = size_;
    std::string_view text;
    if (fits_ && Append("/") && Append(file) && Append({"", 1}) &&
        ReadText(path_, value_, &text)) {
      found_ = true;
    }
    size_ = size;
    return TakeUntil(text, '\n');
  }

  bool ToParent() {
    if (size_ == mount_size_) return false;
    while (path_[--size_] != '/') continue;
    return true;
  }

  // Whether there was any of the files.
  bool found() const { return found_; }

 private:
  bool Append(std::string_view text) {
    if (text.size() > sizeof(path_) - size_) return false;
    std::memcpy(path_ + size_, text.data(), text.size());
    size_ += text.size();
    return true;
  }

  bool fits_;
  bool found_ = false;
  size_t mount_size_;
  size_t size_ = 0;
  char path_[kMostBytes];
  char value_[64];  // of two numbers: longer ones do not fit
};

void AddQuota(uint64_t quota, uint64_t period, CgroupLimits& limits) {
  if (quota == 0 || period == 0) return;
  const uint64_t processors = quota / period + (quota % period != 0 ? 1 : 0);
  limits.processors =
      static_cast<uint32_t>(std::min<uint64_t>(limits.processors, processors));
}

void AddMemory(uint64_t bytes, CgroupLimits& limits) {
  if (bytes != 0) limits.memory_bytes = std::min(limits.memory_bytes, bytes);
}

void ReadQuota(Group& group, CgroupLimits& limits) {
  const uint64_t quota = NumberOf(group.Read("cpu.cfs_quota_us"));
  if (quota == 0) return;
  AddQuota(quota, NumberOf(group.Read("cpu.cfs_period_us")), limits);
}

void ReadMemory(Group& group, CgroupLimits& limits) {
  AddMemory(NumberOf(group.Read("memory.limit_in_bytes")), limits);
}

void ReadUnified(Group& group, CgroupLimits& limits) {
  std::string_view line = group.Read("cpu.max");
  const uint64_t quota = NumberOf(TakeUntil(line, ' '));
  AddQuota(quota, NumberOf(line), limits);
  AddMemory(NumberOf(group.Read("memory.max")), limits);
  AddMemory(NumberOf(group.Read("memory.high")), limits);
}

// A hierarchy that is mounted by one of two names.
struct Hierarchy {
  std::string_view name;
  std::string_view other_name;
  std::string_view path;  // of the process's group; empty if it is in none
};

void ReadHierarchy(const char* root, const Hierarchy& hierarchy,
                   void (*read)(Group&, CgroupLimits&), CgroupLimits& limits) {
  if (hierarchy.path.empty()) return;
  for (const std::string_view name : {hierarchy.name, hierarchy.other_name}) {
    Group group(root, name, hierarchy.path);
    do {
      read(group, limits);
    } while (group.ToParent());
    if (group.found() || hierarchy.name == hierarchy.other_name) return;
  }
}

}  // namespace

CgroupLimits ReadCgroupLimits(const char* memberships, const char* root) {
  const ErrnoKeeper keeper;
  CgroupLimits limits;
  char buffer[kMostBytes];
  std::string_view text;
  if (!ReadText(memberships, buffer, &text)) return limits;
  // The last line may have been cut.
  if (text.size() == sizeof(buffer)) {
    text = text.substr(0, text.rfind('\n') + 1);
  }
  Hierarchy cpu;
  Hierarchy memory;
  Hierarchy unified;
  while (!text.empty()) {
    // NUMBER:CONTROLLERS:PATH, and of version 2 0::PATH.
    std::string_view path = TakeUntil(text, '\n');
    const std::string_view number = TakeUntil(path, ':');
    const std::string_view controllers = TakeUntil(path, ':');
    if (number != "0") unified.name = "unified";
    // A group outside of what is mounted here is in none that is.
    if (!path.starts_with('/') || path == "/.." || path.starts_with("/../")) {
      continue;
    }
    if (number == "0") unified.path = path;
    if (Names(controllers, "cpu")) cpu = {"cpu", controllers, path};
    if (Names(controllers, "memory")) memory = {"memory", controllers, path};
  }
  ReadHierarchy(root, cpu, ReadQuota, limits);
  ReadHierarchy(root, memory, ReadMemory, limits);
  // A controller is in one version only.
  if (cpu.path.empty() || memory.path.empty()) {
    ReadHierarchy(root, unified, ReadUnified, limits);
  }
  return limits;
}

}  // namespace hakmem
