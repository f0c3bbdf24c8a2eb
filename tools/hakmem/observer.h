// Reads the tables of a process that runs on hakmem: see
// hakmem/core/observed.h. The process goes on meanwhile and knows nothing of
// it, so that the figures of one snapshot need not be of one instant.

#ifndef TOOLS_HAKMEM_OBSERVER_H_
#define TOOLS_HAKMEM_OBSERVER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/hakmem/process.h"
#include "tools/hakmem/snapshot.h"

namespace hakmem::tools {

// Not thread-safe.
class Observer {
 public:
  // FailedPrecondition if the process does not run on hakmem, Unavailable if it
  // has not allocated anything yet, Unimplemented if its hakmem has tables of
  // another version, PermissionDenied if the caller may not look, NotFound if
  // the process has ended.
  static absl::StatusOr<Observer> Attach(const Process& process);

  const Process& process() const { return process_; }
  // "tls_full" and so on.
  const std::string& stage() const { return stage_; }
  // By how old they were: below the first of these many milliseconds, below the
  // second, …, and older.
  const std::vector<uint64_t>& age_bounds() const { return age_bounds_; }

  // Errors as above; DataLoss if the tables make no sense. After Unavailable or
  // FailedPrecondition the process has become another program by execve(2), and
  // Attach() may find out about that.
  absl::StatusOr<Snapshot> Read();

  // The name of a site that a snapshot had.
  const SiteName& Name(SiteNumber site) const { return names_.at(site); }

 private:
  struct Region {
    uint64_t address = 0;
    uint64_t count = 0;
    size_t element_bytes = 0;
  };

  Observer(const Process& process, uint64_t address)
      : process_(process), address_(address) {}

  absl::StatusOr<Snapshot> ReadTables();
  absl::Status ReadHeader();
  absl::StatusOr<Region> ReadRegion(size_t offset, size_t least_bytes) const;
  absl::StatusOr<std::string> ReadElements(const Region& region,
                                           uint64_t first) const;
  // Bytes of free blocks in the slabs of the pool whose region stands at
  // `offset`.
  absl::StatusOr<uint64_t> ReadFreeBlocks(size_t offset) const;
  absl::Status ReadTexts();
  absl::Status NameSites(const Region& region, const std::string& sites);
  // Gives the name of a stack its innermost frame outside of the libraries that
  // every program has.
  absl::Status NameStack(uint64_t first, uint32_t count, SiteName* name);
  // Sets module and offset to where an address of code comes from.
  absl::Status SetModule(uint64_t address, SiteName* name);
  std::string Text(uint64_t offset) const;
  const std::string& BuildId(const std::string& module);
  template <typename T>
  T HeaderField(size_t offset) const;

  Process process_;
  uint64_t address_;    // of hak_observed
  std::string header_;  // its bytes, as read last
  std::string stage_;
  std::vector<uint64_t> age_bounds_;
  std::string texts_;  // all names so far; what stands there never changes
  std::map<SiteNumber, SiteName> names_;
  std::map<std::string, std::string> build_ids_;  // by path of the module
  std::vector<Mapping> mappings_;  // as of when an address was in none of them
};

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_OBSERVER_H_
