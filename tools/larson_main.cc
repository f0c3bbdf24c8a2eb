// larson: measures, and with --verify checks, the allocator of this process.
// See larson.h for what it does.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "tools/common/process.h"
#include "tools/larson.h"
#include "tools/larson_report.h"

ABSL_FLAG(int, threads, hakmem::tools::LarsonOptions().threads,
          "threads that run at a time, each with an array of its own");
ABSL_FLAG(double, seconds, hakmem::tools::LarsonOptions().seconds,
          "how long the timed part takes");
ABSL_FLAG(int64_t, min_size, hakmem::tools::LarsonOptions().min_size,
          "the least size of a block, in bytes");
ABSL_FLAG(int64_t, max_size, hakmem::tools::LarsonOptions().max_size,
          "the greatest size of a block, in bytes");
ABSL_FLAG(int, blocks_per_thread,
          hakmem::tools::LarsonOptions().blocks_per_thread,
          "live blocks a thread");
ABSL_FLAG(int, rounds, hakmem::tools::LarsonOptions().rounds,
          "a thread replaces this many times --blocks_per_thread blocks before "
          "it hands its array to a new thread");
ABSL_FLAG(uint64_t, seed, hakmem::tools::LarsonOptions().seed,
          "seed of the random numbers");
ABSL_FLAG(std::string, format, "text", "text, or json: one object");
ABSL_FLAG(bool, verify, false,
          "fill every block with a pattern of its own and check all of it "
          "before freeing; exit with 1 if a block was changed");
ABSL_FLAG(
    bool, sites, false,
    "allocate every block for a site, by hak_alloc_at(); for hakmem only");

namespace hakmem::tools {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// Abseil ends the program with status 1 both for --help and for flags that it
// cannot read. While it parses, these turn the status into what this program
// promises: 0 for help, 2 for a mistake.
bool parsing = false;
int parse_exit_status = kExitUsage;

void FixExitStatus() {
  if (!parsing) return;
  std::fflush(nullptr);
  std::_Exit(parse_exit_status);
}

void ParseFlags(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Measures the allocator of this process as a server would see it, after "
      "Larson & Krishnan, ISMM 1998.\n\nUsage: larson [flags]\n"
      "To measure an allocator that is not linked in:\n"
      "  LD_PRELOAD=path/to/liballocator.so larson_libc --threads=4");
  // Abseil shows the flags of the file that is named as the program is, and
  // this file is part of several programs.
  absl::FlagsUsageConfig config;
  const auto is_this_file = [](absl::string_view file) {
    return absl::EndsWith(file, "larson_main.cc");
  };
  config.contains_help_flags = is_this_file;
  config.contains_helpshort_flags = is_this_file;
  absl::SetFlagsUsageConfig(config);
  for (int i = 1; i < argc; ++i) {
    if (absl::StartsWith(argv[i], "--help") ||
        absl::StartsWith(argv[i], "-help") ||
        absl::StartsWith(argv[i], "--version")) {
      parse_exit_status = 0;
    }
  }
  std::atexit(FixExitStatus);
  parsing = true;
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  parsing = false;
  if (rest.size() > 1) {
    std::fprintf(stderr, "larson: unexpected argument '%s'; see --help\n",
                 rest[1]);
    std::exit(kExitUsage);
  }
}

int UsageError(absl::string_view message) {
  std::fprintf(stderr, "larson: %s\n", std::string(message).c_str());
  return kExitUsage;
}

struct Readings {
  HeapCounters before;
  HeapCounters after;
};

int Main(int argc, char** argv) {
  ParseFlags(argc, argv);
  const std::string format = absl::GetFlag(FLAGS_format);
  if (format != "text" && format != "json") {
    return UsageError("--format is '" + format +
                      "'; it has to be text or json");
  }
  if (absl::GetFlag(FLAGS_min_size) < 1 || absl::GetFlag(FLAGS_max_size) < 1) {
    return UsageError("--min_size and --max_size have to be 1 or more");
  }
  LarsonOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  options.seconds = absl::GetFlag(FLAGS_seconds);
  options.min_size = static_cast<size_t>(absl::GetFlag(FLAGS_min_size));
  options.max_size = static_cast<size_t>(absl::GetFlag(FLAGS_max_size));
  options.blocks_per_thread = absl::GetFlag(FLAGS_blocks_per_thread);
  options.rounds = absl::GetFlag(FLAGS_rounds);
  options.seed = absl::GetFlag(FLAGS_seed);
  options.verify = absl::GetFlag(FLAGS_verify);
  const absl::Status valid = ValidateLarsonOptions(options);
  if (!valid.ok()) return UsageError(valid.message());
  const std::string config = HeapConfig();
  if (config == "unlocked" && options.threads > 1) {
    return UsageError(
        "this is hakmem built without locks (config unlocked), which serves "
        "one thread at a time only: use --threads=1, or another build");
  }

  LarsonHeap heap = SystemHeap();
  if (absl::GetFlag(FLAGS_sites)) {
    heap = SitesHeap();
    if (heap.allocate_at == nullptr) {
      return UsageError("--sites is for hakmem, which this malloc is not");
    }
  }

  Readings readings;
  LarsonObserver observer;
  observer.context = &readings;
  observer.begin = [](void* context) {
    static_cast<Readings*>(context)->before = ReadHeapCounters();
  };
  observer.end = [](void* context) {
    static_cast<Readings*>(context)->after = ReadHeapCounters();
  };
  const absl::StatusOr<LarsonResult> result =
      RunLarson(options, heap, observer);
  if (!result.ok()) {
    std::fprintf(stderr, "larson: error: %s\n",
                 std::string(result.status().message()).c_str());
    // Not through exit(): with a heap that is known to be broken, destructors
    // could crash and hide the message's meaning behind their own.
    std::fflush(nullptr);
    std::_Exit(kExitFailed);
  }
  const LarsonReport report =
      MakeLarsonReport(options, *result, readings.before, readings.after,
                       config, PeakResidentKib());
  const std::string text = format == "json"
                               ? FormatLarsonJson(report)
                               : FormatLarsonText(options, *result, report);
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    std::perror("larson: cannot write the result");
    return kExitFailed;
  }
  return 0;
}

}  // namespace
}  // namespace hakmem::tools

int main(int argc, char** argv) { return hakmem::tools::Main(argc, argv); }
