#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tools/common/random.h"
#include "tools/workloads/block.h"
#include "tools/workloads/threads_util.h"
#include "tools/workloads/workload.h"

namespace hakmem::tools {
namespace {

// A buffer that grows by realloc to exactly what it needs, as C programs have
// them.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  void Append(const char* text, size_t length) {
    char* const data = static_cast<char*>(std::realloc(data_, size_ + length));
    if (data == nullptr) OutOfMemory(size_ + length);
    data_ = data;
    std::memcpy(data_ + size_, text, length);
    size_ += length;
  }
  void Clear() {
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
  }
  size_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
};

uint64_t Grow(Random random, const Params& params) {
  const size_t live = params["live"];
  const size_t longest = params["max_size"];
  const size_t chunk_most = params["chunk"];
  const uint64_t appends = params["appends"];
  const std::string text(chunk_most, 'x');
  std::vector<std::string> strings(live);
  std::vector<std::vector<uint32_t>> vectors(live);
  std::vector<Buffer> buffers(live);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < appends; ++i) {
    const size_t at = random.Below(live);
    const size_t length = random.Between(1, chunk_most);
    switch (i % 3) {
      case 0:
        if (strings[at].size() + length > longest) {
          sum += strings[at].size();
          std::string().swap(strings[at]);
        }
        strings[at].append(text, 0, length);
        break;
      case 1:
        if ((vectors[at].size() + 1) * sizeof(uint32_t) > longest) {
          sum += vectors[at].size();
          std::vector<uint32_t>().swap(vectors[at]);
        }
        for (size_t j = 0; j <= length / sizeof(uint32_t); ++j) {
          vectors[at].push_back(static_cast<uint32_t>(j));
        }
        break;
      default:
        if (buffers[at].size() + length > longest) {
          sum += buffers[at].size();
          buffers[at].Clear();
        }
        buffers[at].Append(text.data(), length);
    }
  }
  for (const std::string& string : strings) sum += string.size();
  for (const auto& vector : vectors) sum += vector.size();
  for (const Buffer& buffer : buffers) sum += buffer.size();
  return sum;
}

Figures Run(const Params& params) {
  const int threads = params.Int("threads");
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  RunThreads(threads, [&](int index) {
    sums[static_cast<size_t>(index)] =
        Grow(Random(params["seed"], static_cast<uint64_t>(index)), params);
  });
  Figures figures;
  figures.operations = params["appends"] * static_cast<uint64_t>(threads);
  for (const uint64_t sum : sums) figures.checksum += sum;
  return figures;
}

}  // namespace

Workload StringsWorkload() {
  return {"strings",
          "grows std::string, std::vector and realloc buffers side by side; an "
          "operation is an append",
          {ThreadsParam(1),
           {"live", 1000, 1, 10000000, "of each kind, live at a time"},
           {"chunk", 64, 1, 1 << 20, "most bytes appended at a time"},
           {"max_size", 8192, 1, 1 << 30,
            "what would grow beyond is dropped and starts anew, in bytes"},
           {"appends", 8000000, 1, UINT64_MAX, "appends a thread", true},
           SeedParam()},
          &Run,
          {{"chunk", "max_size"}}};
}

}  // namespace hakmem::tools
