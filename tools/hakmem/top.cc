// hakmem top: the sites of a running program, live.

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/hakmem/clock.h"
#include "tools/hakmem/command.h"
#include "tools/hakmem/flags.h"
#include "tools/hakmem/observer.h"
#include "tools/hakmem/screen.h"
#include "tools/hakmem/symbolizer.h"
#include "tools/hakmem/top_view.h"

namespace hakmem::tools {
namespace {

constexpr int64_t kUsualInterval = 1000;  // milliseconds

// How many sites are listed where no window says it.
constexpr size_t kUsualLimit = 20;

constexpr char kKeys[] =
    "l live  g growth  b blocks  p peak  a allocs  r restart growth  q quit";

struct Settings {
  int pid = 0;
  int64_t interval = kUsualInterval;
  uint64_t count = std::numeric_limits<uint64_t>::max();  // of snapshots
  std::optional<size_t> limit;
  SortKey sort = SortKey::kLive;
};

int Fail(int exit_status, absl::string_view message) {
  std::fflush(stdout);
  std::fprintf(stderr, "hakmem: top: %s\n", std::string(message).c_str());
  return exit_status;
}

absl::StatusOr<uint64_t> ParseCount(const Flag& flag) {
  uint64_t count = 0;
  if (!absl::SimpleAtoi(*flag.value, &count) || count == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag.name, ": '", *flag.value, "' is not a number above 0"));
  }
  return count;
}

absl::StatusOr<Settings> ParseSettings(std::span<char* const> arguments) {
  Flag flags[] = {{"--interval", "-i", true, {}},
                  {"--once", "", false, {}},
                  {"--number", "-n", true, {}},
                  {"--sort", "-s", true, {}},
                  {"--limit", "-l", true, {}}};
  const absl::StatusOr<std::vector<std::string>> rest =
      ParseFlags(arguments, flags);
  if (!rest.ok()) return rest.status();
  if (rest->size() != 1) {
    return absl::InvalidArgumentError(
        "takes the number of one process; see `hakmem help top`");
  }
  Settings settings;
  const absl::StatusOr<int> pid = ParsePid((*rest)[0]);
  if (!pid.ok()) return pid.status();
  settings.pid = *pid;
  const auto& [interval, once, number, sort, limit] = flags;
  if (interval.value.has_value()) {
    const absl::StatusOr<int64_t> parsed = ParseSeconds(*interval.value);
    if (!parsed.ok()) return parsed.status();
    settings.interval = *parsed;
  }
  if (number.value.has_value()) {
    const absl::StatusOr<uint64_t> parsed = ParseCount(number);
    if (!parsed.ok()) return parsed.status();
    settings.count = *parsed;
  }
  if (once.value.has_value()) settings.count = 1;
  if (limit.value.has_value()) {
    const absl::StatusOr<uint64_t> parsed = ParseCount(limit);
    if (!parsed.ok()) return parsed.status();
    settings.limit = *parsed;
  }
  if (sort.value.has_value()) {
    const std::optional<SortKey> key = FindSortKey(*sort.value);
    if (!key.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--sort: '", *sort.value, "' is none of ", SortKeyNames()));
    }
    settings.sort = *key;
  }
  return settings;
}

// What is shown, and where it comes from.
class Top {
 public:
  Top(Observer observer, const Settings& settings)
      : observer_(std::move(observer)), settings_(settings) {
    target_.program = observer_.process().CommandLine()[0];
    target_.pid = observer_.process().pid();
  }

  // Lines as they come.
  int RunPlain();
  // The terminal, until somebody has seen enough.
  int RunScreen();

 private:
  absl::Status Look();
  std::vector<std::string> Lines(size_t columns, size_t limit, bool wait,
                                 const std::string& note);
  void Show(Screen& screen);
  // True if the key asks to quit.
  bool Press(char key);

  Observer observer_;
  const Settings settings_;
  TopTarget target_;
  TopView view_;
  SortKey sort_ = settings_.sort;
  Symbolizer symbolizer_;
  std::map<SiteNumber, CodeName> code_names_;
};

absl::Status Top::Look() {
  absl::StatusOr<Snapshot> snapshot = observer_.Read();
  if (absl::IsFailedPrecondition(snapshot.status()) ||
      absl::IsUnavailable(snapshot.status())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "process ", target_.pid, " has become another program by execve(2)"));
  }
  if (!snapshot.ok()) return snapshot.status();
  target_.stage = observer_.stage();
  view_.Add(*snapshot, static_cast<double>(MonotonicMilliseconds()) / 1000);
  return absl::OkStatus();
}

std::vector<std::string> Top::Lines(size_t columns, size_t limit, bool wait,
                                    const std::string& note) {
  const std::vector<SiteNumber> sites = view_.Sorted(sort_, limit);
  // Only what is shown gets a name: the others may be many.
  for (const SiteNumber site : sites) {
    const SiteName& name = observer_.Name(site);
    if (name.module.empty()) continue;
    symbolizer_.Ask(site, observer_.process().PathOutside(name.module),
                    name.offset);
  }
  if (wait) symbolizer_.Wait();
  code_names_.merge(symbolizer_.Take());
  TopView::Layout layout;
  layout.columns = columns;
  layout.uptime = observer_.process().UptimeSeconds();
  layout.sort = sort_;
  layout.colours = columns != 0;
  layout.note = note;
  return view_.Lines(target_, layout, sites, [this](SiteNumber site) {
    SiteName name = observer_.Name(site);
    const auto found = code_names_.find(site);
    if (found != code_names_.end()) SetCodeName(found->second, &name);
    return SiteTitle(name);
  });
}

int Top::RunPlain() {
  int64_t next = MonotonicMilliseconds();
  for (uint64_t i = 0; i < settings_.count; ++i) {
    if (i > 0) {
      next = std::max(next + settings_.interval, MonotonicMilliseconds());
      const timespec when = {next / 1000, next % 1000 * 1000000};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, nullptr);
    }
    const absl::Status looked = Look();
    if (!looked.ok()) return Fail(kExitFailed, looked.message());
    std::string text = i > 0 ? "\n" : "";
    for (const std::string& line :
         Lines(0, settings_.limit.value_or(kUsualLimit), true, "")) {
      absl::StrAppend(&text, line, "\n");
    }
    std::fputs(text.c_str(), stdout);
    // Whoever reads along reads it now; main() says if that fails.
    if (std::fflush(stdout) != 0) return kExitFailed;
  }
  return 0;
}

bool Top::Press(char key) {
  if (key == 'q' || key == 'Q' || key == '\x1b') return true;
  if (key == 'r') view_.Restart();
  const std::optional<SortKey> sort = FindSortKey(absl::string_view(&key, 1));
  if (sort.has_value()) sort_ = *sort;
  return false;
}

void Top::Show(Screen& screen) {
  // Above the table and its heading.
  constexpr size_t kHeaderLines = 5;
  const Screen::Size size = screen.GetSize();
  const size_t room = size.rows > kHeaderLines ? size.rows - kHeaderLines : 0;
  std::vector<std::string> lines =
      Lines(size.columns, std::min(room, settings_.limit.value_or(room)), false,
            kKeys);
  lines.resize(std::min(lines.size(), size.rows));
  screen.Show(lines);
}

int Top::RunScreen() {
  absl::Status looked = Look();
  if (!looked.ok()) return Fail(kExitFailed, looked.message());
  int by_signal = 0;
  {
    Screen screen;
    Show(screen);
    int64_t next = MonotonicMilliseconds() + settings_.interval;
    for (uint64_t seen = 1;;) {
      const int64_t left =
          std::clamp<int64_t>(next - MonotonicMilliseconds(), 0, 86400000);
      const Screen::Event event = screen.WaitFor(static_cast<int>(left));
      if (event.type == Screen::Event::Type::kHangup) break;
      if (event.type == Screen::Event::Type::kSignal) {
        by_signal = event.signal;
        break;
      }
      if (event.type == Screen::Event::Type::kKey && Press(event.key)) break;
      if (MonotonicMilliseconds() >= next) {
        if (seen == settings_.count) break;
        looked = Look();
        if (!looked.ok()) break;
        ++seen;
        next = std::max(next + settings_.interval, MonotonicMilliseconds());
      }
      Show(screen);
    }
  }
  if (by_signal != 0) EndBySignal(by_signal);
  if (!looked.ok()) return Fail(kExitFailed, looked.message());
  return 0;
}

int RunTop(std::span<char* const> arguments) {
  const absl::StatusOr<Settings> settings = ParseSettings(arguments);
  if (!settings.ok()) return Fail(kExitUsage, settings.status().message());
  const absl::StatusOr<Process> process = Process::Open(settings->pid);
  if (!process.ok()) return Fail(kExitFailed, process.status().message());
  absl::StatusOr<Observer> observer = Observer::Attach(*process);
  if (!observer.ok()) return Fail(kExitFailed, observer.status().message());
  Top top(*std::move(observer), *settings);
  const bool terminal = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
  return terminal && settings->count != 1 ? top.RunScreen() : top.RunPlain();
}

}  // namespace

const Command kTopCommand = {
    "top", "[--interval=SECONDS] [--sort=KEY] [--limit=N] [-n N] [--once] pid",
    "show which sites of a running program hold its memory",
    "Reads the tables of a program that runs on hakmem, every second, and "
    "shows\n"
    "its memory and its sites. The program goes on meanwhile and notices\n"
    "nothing. Looking takes the right to trace it: the same user, or root.\n"
    "\n"
    "--interval=SECONDS, -i  how often to look; 1\n"
    "--sort=KEY, -s          live, growth, blocks, peak or allocs; live\n"
    "--limit=N, -l           list so many sites at most\n"
    "--number=N, -n          end after so many looks\n"
    "--once                  the same as -n 1\n"
    "\n"
    "In a terminal these keys work: l, g, b, p, a sort by live bytes, growth,\n"
    "blocks, peak, allocations; r counts growth from now on; q quits. Where "
    "the\n"
    "output is no terminal, plain text is written, look after look.\n"
    "\n"
    "    hakmem top --sort=growth 4711\n",
    RunTop};

}  // namespace hakmem::tools
