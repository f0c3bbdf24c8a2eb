// How the command writes the options of core's table: HAKMEM_CACHE_BYTES is
// --cache_bytes here.

#ifndef TOOLS_HAKMEM_OPTION_NAME_H_
#define TOOLS_HAKMEM_OPTION_NAME_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "hakmem/core/options.h"

namespace hakmem::tools {

// "cache_bytes" for HAKMEM_CACHE_BYTES.
std::string OptionName(const OptionInfo& option);

// The option of that name, whether it is written as above, with dashes, or as
// the environment has it; a null pointer if there is none.
const OptionInfo* FindOption(absl::string_view name);

// What an option that is named without a value is set to: 1, or its second
// word, where it is off or on; "" where it needs a value.
std::string SwitchedOn(const OptionInfo& option);

// What an option may be, for people: "0 to 64M", "0 or caller", "0, 1 or a
// path".
std::string FormatValues(const OptionInfo& option);

// What it is where nobody says anything.
std::string FormatDefault(const OptionInfo& option);

// A value as a user would write it: 64M, or in plain digits where no unit fits.
std::string FormatValue(uint64_t value);

}  // namespace hakmem::tools

#endif  // TOOLS_HAKMEM_OPTION_NAME_H_
