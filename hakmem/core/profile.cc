#include "hakmem/core/profile.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <new>
#include <string_view>

#include "hakmem/core/code_maps.h"
#include "hakmem/core/gzip_file.h"
#include "hakmem/core/os.h"
#include "hakmem/core/proto_message.h"
#include "hakmem/core/sampling.h"

namespace hakmem {
namespace {

// Numbers of fields in profile.proto.
constexpr uint32_t kSampleType = 1, kSample = 2, kMapping = 3, kLocation = 4,
                   kString = 6, kTime = 9, kDuration = 10, kPeriodType = 11,
                   kPeriod = 12, kDefaultSampleType = 14;
constexpr uint32_t kTypeName = 1, kTypeUnit = 2;
constexpr uint32_t kSampleLocations = 1, kSampleValues = 2;
constexpr uint32_t kMappingId = 1, kMappingStart = 2, kMappingEnd = 3,
                   kMappingOffset = 4, kMappingFile = 5, kMappingBuildId = 6;
constexpr uint32_t kLocationId = 1, kLocationMapping = 2, kLocationAddress = 3;

// The strings that every profile has, in this order; those of mappings follow.
constexpr std::array<std::string_view, 8> kStrings = {
    "",      "alloc_objects", "count",         "alloc_space",
    "bytes", "space",         "inuse_objects", "inuse_space"};
constexpr uint64_t kCount = 2, kBytes = 4, kSpace = 5, kInuseSpace = 7;
constexpr uint64_t kTypes[][2] = {
    {1, kCount}, {3, kBytes}, {6, kCount}, {kInuseSpace, kBytes}};
constexpr uint64_t kFirstMapString = kStrings.size();

// A stack of more frames is cut.
constexpr uint32_t kMostFrames = 512;

// Process id of who is writing; not a flag, since a fork may leave the child
// without the thread that would clear it.
constinit std::atomic<int> writer{0};

// The figures of one stack, scaled up.
struct Figures {
  double alloc_objects = 0;
  double alloc_bytes = 0;
  double inuse_objects = 0;
  double inuse_bytes = 0;
};

uint64_t Round(double value) {
  return value > 0 ? static_cast<uint64_t>(value + 0.5) : 0;
}

// All that one profile needs meanwhile, in a mapping of its own: a signal
// handler's stack is small.
class ProfileFile {
 public:
  static size_t BytesFor(size_t frames) {
    return sizeof(ProfileFile) + TableSize(frames) * sizeof(Place);
  }

  // In a mapping of zeros of BytesFor(frames) bytes.
  ProfileFile(const Observed& observed, uint64_t interval, size_t frames)
      : observed_(observed),
        interval_(static_cast<double>(interval)),
        places_(reinterpret_cast<Place*>(this + 1)),
        mask_(TableSize(frames) - 1) {}

  int Write(const char* path);

 private:
  // A location: an address among the frames, and the number that it got. A
  // table by open addressing, never more than half full.
  struct Place {
    uint64_t address;  // 0: none
    uint64_t id;
  };

  static size_t TableSize(size_t frames) {
    return std::bit_ceil(std::max<size_t>(2 * frames, 64));
  }

  void WriteTypes();
  void WriteSamples();
  bool WriteSample(const ObservedSite& site);
  void WriteLocations();
  void WriteMaps();
  void WriteStrings();
  Figures FiguresOf(const ObservedSite& site) const;
  uint64_t IdOf(uint64_t address);
  void PutType(uint32_t field, uint64_t name, uint64_t unit);

  // Adds the field `field` with the message that was built.
  void Put(uint32_t field, const ProtoMessage& message) {
    if (!message.fits()) return;
    head_.Clear();
    head_.Message(field, message);
    if (head_.fits()) file_.Put(head_.data(), head_.size());
  }
  void PutNumber(uint32_t field, uint64_t value) {
    head_.Clear();
    head_.Number(field, value);
    file_.Put(head_.data(), head_.size());
  }
  void PutString(std::string_view text) {
    head_.Clear();
    head_.Bytes(kString, text);
    if (!head_.fits()) return PutString("");
    file_.Put(head_.data(), head_.size());
  }

  const Observed& observed_;
  const double interval_;
  Place* const places_;
  const size_t mask_;
  uint64_t place_count_ = 0;
  std::array<char, GzipFile::kBufferBytes> buffer_;
  GzipFile file_{buffer_.data()};
  ProtoMessage message_;
  ProtoMessage packed_;
  ProtoMessage head_;
  CodeMaps maps_;
};

template <typename T>
const T* ElementAt(const ObservedRegion& region, uint64_t index) {
  return reinterpret_cast<const T*>(
      region.address.load(std::memory_order_relaxed) +
      index * region.element_bytes);
}

int ProfileFile::Write(const char* path) {
  if (const int error = file_.Open(path); error != 0) return error;
  maps_.Read();  // without it, addresses are better than nothing
  WriteTypes();
  WriteSamples();
  WriteLocations();
  WriteMaps();
  WriteStrings();
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  PutNumber(kTime, static_cast<uint64_t>(now.tv_sec) * 1000000000 +
                       static_cast<uint64_t>(now.tv_nsec));
  const int64_t ran = os::CoarseMilliseconds() - observed_.start_milliseconds;
  PutNumber(kDuration,
            static_cast<uint64_t>(std::max<int64_t>(ran, 0)) * 1000000);
  PutNumber(kPeriod, static_cast<uint64_t>(interval_));
  PutNumber(kDefaultSampleType, kInuseSpace);
  return file_.Close();
}

void ProfileFile::PutType(uint32_t field, uint64_t name, uint64_t unit) {
  message_.Clear();
  message_.Number(kTypeName, name);
  message_.Number(kTypeUnit, unit);
  Put(field, message_);
}

void ProfileFile::WriteTypes() {
  for (const auto& [name, unit] : kTypes) PutType(kSampleType, name, unit);
  PutType(kPeriodType, kSpace, kBytes);
}

void ProfileFile::WriteSamples() {
  const uint64_t count = observed_.sites.count.load(std::memory_order_acquire);
  for (uint64_t i = 0; i < count; ++i) {
    const auto& site = *ElementAt<ObservedSite>(observed_.sites, i);
    if (site.kind.load(std::memory_order_acquire) != SiteKind::kStack) continue;
    // What does not fit into the table came after it was made.
    if (!WriteSample(site)) return;
  }
}

Figures ProfileFile::FiguresOf(const ObservedSite& site) const {
  Figures sum;
  const auto interval = static_cast<double>(IntervalOf(site.module_offset));
  const double counted =
      1 / static_cast<double>(uint64_t{1} << ShareShiftOf(site.module_offset));
  uint32_t index = site.first_cell.load(std::memory_order_acquire);
  while (index != 0) {
    const auto& cell = *ElementAt<ObservedCell>(observed_.cells, index - 1);
    index = cell.next;
    // Frees first: a block that is freed was allocated before.
    const uint64_t frees = cell.frees.load(std::memory_order_acquire);
    const uint64_t free_bytes = cell.free_bytes.load(std::memory_order_acquire);
    const uint64_t allocs = cell.allocs.load(std::memory_order_relaxed);
    const uint64_t alloc_bytes =
        cell.alloc_bytes.load(std::memory_order_relaxed);
    const auto add = [&](uint64_t blocks, uint64_t large_bytes, double* objects,
                         double* bytes) {
      if (blocks == 0) return;
      const double count = static_cast<double>(blocks);
      // Large blocks of one cell differ, by less than two times.
      const double each = cell.block_bytes != 0
                              ? cell.block_bytes
                              : static_cast<double>(large_bytes) / count;
      const double scaled =
          count / (counted * SampleProbability(each, interval));
      *objects += scaled;
      *bytes += scaled * each;
    };
    add(allocs, alloc_bytes, &sum.alloc_objects, &sum.alloc_bytes);
    if (allocs > frees) {
      add(allocs - frees, alloc_bytes - std::min(alloc_bytes, free_bytes),
          &sum.inuse_objects, &sum.inuse_bytes);
    }
  }
  return sum;
}

// The number of the address among the locations, or 0 when they are full.
uint64_t ProfileFile::IdOf(uint64_t address) {
  for (size_t i = static_cast<size_t>(address * 0x9E3779B97F4A7C15u >> 20);;
       ++i) {
    Place& place = places_[i & mask_];
    if (place.address == address) return place.id;
    if (place.address != 0) continue;
    if (place_count_ > mask_ / 2) return 0;
    place.address = address;
    return place.id = ++place_count_;
  }
}

bool ProfileFile::WriteSample(const ObservedSite& site) {
  const Figures figures = FiguresOf(site);
  if (Round(figures.alloc_objects) == 0) return true;
  const uint64_t known = observed_.frames.count.load(std::memory_order_acquire);
  if (site.frames > known || site.frame_count > known - site.frames) {
    return true;
  }
  message_.Clear();
  packed_.Clear();
  for (uint32_t i = 0; i < std::min(site.frame_count, kMostFrames); ++i) {
    // A return address may be where the next function begins already.
    const uint64_t id =
        IdOf(*ElementAt<uint64_t>(observed_.frames, site.frames + i) - 1);
    if (id == 0) return false;
    packed_.Varint(id);
  }
  message_.Message(kSampleLocations, packed_);
  packed_.Clear();
  for (const double value : {figures.alloc_objects, figures.alloc_bytes,
                             figures.inuse_objects, figures.inuse_bytes}) {
    packed_.Varint(Round(value));
  }
  message_.Message(kSampleValues, packed_);
  Put(kSample, message_);
  return true;
}

void ProfileFile::WriteLocations() {
  for (size_t i = 0; i <= mask_; ++i) {
    const Place& place = places_[i];
    if (place.address == 0) continue;
    const size_t map = maps_.Find(place.address);
    message_.Clear();
    message_.Number(kLocationId, place.id);
    if (map != maps_.maps().size()) message_.Number(kLocationMapping, map + 1);
    message_.Number(kLocationAddress, place.address);
    Put(kLocation, message_);
  }
}

void ProfileFile::WriteMaps() {
  uint64_t id = 0;
  for (const CodeMap& map : maps_.maps()) {
    message_.Clear();
    message_.Number(kMappingId, id + 1);
    message_.Number(kMappingStart, map.start);
    message_.Number(kMappingEnd, map.end);
    message_.Number(kMappingOffset, map.file_offset);
    message_.Number(kMappingFile, kFirstMapString + 2 * id);
    message_.Number(kMappingBuildId, kFirstMapString + 2 * id + 1);
    Put(kMapping, message_);
    ++id;
  }
}

void ProfileFile::WriteStrings() {
  for (const std::string_view text : kStrings) PutString(text);
  for (const CodeMap& map : maps_.maps()) {
    PutString({maps_.names() + map.name, map.name_size});
    std::array<char, 2 * sizeof(map.build_id)> digits;
    size_t size = 0;
    for (uint32_t i = 0; i < map.build_id_bytes; ++i) {
      digits[size++] = "0123456789abcdef"[map.build_id[i] >> 4];
      digits[size++] = "0123456789abcdef"[map.build_id[i] & 15];
    }
    PutString({digits.data(), size});
  }
}

int WriteFile(const char* path, const Observed& observed, uint64_t interval) {
  const size_t frames = observed.frames.count.load(std::memory_order_acquire);
  const size_t bytes = (ProfileFile::BytesFor(frames) + os::kPageSize - 1) &
                       ~(os::kPageSize - 1);
  void* const memory = os::Map(bytes, os::kPageSize);
  if (memory == nullptr) return ENOMEM;
  auto* const file = new (memory) ProfileFile(observed, interval, frames);
  const int error = file->Write(path);
  file->~ProfileFile();
  os::Unmap(memory, bytes);
  return error;
}

// exp(-x) - 1 for x >= 0. The C library's is in a library of its own.
double NegativeExponential(double x) {
  if (x > 40) return -1;
  int halved = 0;
  for (; x > 0.25; x /= 2) ++halved;
  double term = -x;
  double sum = term;
  for (int i = 2; i < 12; ++i) {
    term *= -x / i;
    sum += term;
  }
  // exp(2y) - 1 = (exp(y) - 1) * (exp(y) + 1)
  for (; halved != 0; --halved) sum *= sum + 2;
  return sum;
}

// False while this process has one: a writer that a fork's child has from its
// parent is not there.
bool BecomeWriter() {
  const int self = getpid();
  int expected = writer.load(std::memory_order_relaxed);
  return expected != self && writer.compare_exchange_strong(
                                 expected, self, std::memory_order_acquire);
}

}  // namespace

bool StopProfiles() { return BecomeWriter(); }

double SampleProbability(double bytes, double interval) {
  return -NegativeExponential(bytes / interval);
}

int WriteProfile(const char* path, const Observed& observed,
                 uint64_t interval) {
  const ErrnoKeeper keeper;
  if (!BecomeWriter()) return EBUSY;
  const int error = WriteFile(path, observed, interval);
  writer.store(0, std::memory_order_release);
  return error;
}

}  // namespace hakmem
