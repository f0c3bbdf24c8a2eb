#include "tools/workloads/command_line.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "tools/common/process.h"

namespace hakmem::tools {
namespace {

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

Param* Find(std::vector<Param>* params, std::string_view name) {
  for (Param& param : *params) {
    if (name == param.name) return &param;
  }
  return nullptr;
}

std::string Range(const Param& param) {
  return std::to_string(param.least) + " to " + std::to_string(param.most);
}

void Scale(double scale, std::vector<Param>* params) {
  for (Param& param : *params) {
    if (!param.scaled) continue;
    const double value = static_cast<double>(param.value) * scale;
    param.value = value >= static_cast<double>(param.most)
                      ? param.most
                      : std::max(param.least, static_cast<uint64_t>(value));
  }
}

// Takes one argument into `line`; what is wrong with it, or nothing.
std::string TakeArgument(std::string_view argument, CommandLine* line,
                         double* scale) {
  const std::string quoted = "'" + std::string(argument) + "'";
  const size_t equals = argument.find('=');
  if (argument.substr(0, 2) != "--" || equals == std::string_view::npos) {
    return "unexpected argument " + quoted + "; flags are --name=value";
  }
  const std::string_view name = argument.substr(2, equals - 2);
  const std::string_view value = argument.substr(equals + 1);
  if (name == "format") {
    if (value != "text" && value != "json") {
      return quoted + ": the format has to be text or json";
    }
    line->json = value == "json";
    return "";
  }
  if (name == "scale") {
    if (!ParseNumber(value, scale) || !(*scale > 0 && *scale <= 1e6)) {
      return quoted + ": the scale has to be a number above 0, up to 1000000";
    }
    return "";
  }
  Param* const param = Find(&line->params, name);
  if (param == nullptr) {
    return "workload " + std::string(line->workload->name) + " has no flag --" +
           std::string(name);
  }
  uint64_t number;
  if (!ParseNumber(value, &number) || number < param->least ||
      number > param->most) {
    return quoted + ": the value has to be a whole number, " + Range(*param);
  }
  param->value = number;
  return "";
}

}  // namespace

CommandLine ParseCommandLine(const std::vector<std::string>& arguments) {
  CommandLine line;
  for (const std::string& argument : arguments) {
    if (argument == "--help" || argument == "-h") line.help = true;
  }
  if (arguments.empty()) {
    line.error = "which workload? --help lists them";
    return line;
  }
  for (const Workload& workload : Workloads()) {
    if (arguments[0] == workload.name) line.workload = &workload;
  }
  if (line.help) return line;
  if (line.workload == nullptr) {
    line.error =
        "there is no workload '" + arguments[0] + "'; --help lists them";
    return line;
  }
  line.params = line.workload->params;
  double scale = 1;
  for (size_t i = 1; i < arguments.size(); ++i) {
    line.error = TakeArgument(arguments[i], &line, &scale);
    if (!line.error.empty()) return line;
  }
  for (const auto& [low, high] : line.workload->ordered) {
    if (Find(&line.params, low)->value > Find(&line.params, high)->value) {
      line.error = "--" + std::string(low) + " is more than --" + high;
      return line;
    }
  }
  Scale(scale, &line.params);
  return line;
}

std::string HelpText(const Workload* workload) {
  std::string text;
  char row[512];
  if (workload == nullptr) {
    text =
        "Usage: workloads NAME [--flag=value ...]\n"
        "Does a fixed amount of work on the malloc of this process, so that "
        "any allocator\ncan be preloaded under it. Workloads:\n\n";
    for (const Workload& each : Workloads()) {
      std::snprintf(row, sizeof(row), "  %-10s %s\n", each.name, each.summary);
      text += row;
    }
    return text +
           "\nEach takes --scale=FACTOR (more or less of the same work), "
           "--format=text|json and\nflags of its own: workloads NAME "
           "--help.\n";
  }
  text = "workloads " + std::string(workload->name) + ": " + workload->summary +
         ".\n\n";
  for (const Param& param : workload->params) {
    std::snprintf(row, sizeof(row), "  --%-16s %-10" PRIu64 " %s%s\n",
                  param.name, param.value, param.help,
                  param.scaled ? " (scaled)" : "");
    text += row;
  }
  return text +
         "  --scale            1          multiplies what is marked as "
         "scaled\n"
         "  --format           text       text, or json: one object on a "
         "line\n";
}

std::string FormatFigures(const Workload& workload, const Figures& figures,
                          double seconds, bool json) {
  char part[256];
  std::snprintf(part, sizeof(part),
                json ? "{\"workload\": \"%s\", \"time_s\": %.6f, "
                       "\"operations\": %" PRIu64 ", \"checksum\": %" PRIu64
                       ", \"peak_rss_kib\": %" PRIu64
                     : "%s: %.3f s, %" PRIu64 " operations, checksum %" PRIu64
                       ", peak RSS %" PRIu64 " KiB",
                workload.name, seconds, figures.operations, figures.checksum,
                PeakResidentKib());
  std::string text = part;
  for (const auto& [name, value] : figures.more) {
    // Whole numbers are KiB or counts, others are ratios.
    const bool whole =
        value == static_cast<double>(static_cast<int64_t>(value));
    std::snprintf(part, sizeof(part), json ? ", \"%s\": %.*f" : ", %s %.*f",
                  name.c_str(), whole ? 0 : 3, value);
    text += part;
  }
  return text + (json ? "}\n" : "\n");
}

}  // namespace hakmem::tools
