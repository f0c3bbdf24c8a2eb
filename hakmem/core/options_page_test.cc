// Holds docs/options.md to the table of options.

#include <fstream>
#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "hakmem/core/options.h"

namespace hakmem {
namespace {

TEST(OptionsPageTest, HasTheRowOfEveryOptionAndNoOther) {
  std::ifstream page("docs/options.md");
  ASSERT_TRUE(page) << "docs/options.md is not among the test's files";
  std::ostringstream rows;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("| `HAKMEM_")) rows << line << "\n";
  }
  std::ostringstream expected;
  const Options defaults;
  for (const OptionInfo& option : OptionTable()) {
    const uint64_t value = defaults.*option.member;
    expected << "| `" << option.name << "` | ";
    if (option.words.empty()) {
      expected << value;
    } else {
      expected << option.words[value];
    }
    expected << " | " << option.meaning << " |\n";
  }
  EXPECT_EQ(rows.str(), expected.str());
}

}  // namespace
}  // namespace hakmem
