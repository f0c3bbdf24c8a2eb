#include "tools/hakmem/suggest.h"

#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace hakmem::tools {
namespace {

const std::vector<absl::string_view> kNames = {"cache_bytes", "retain_bytes",
                                               "run"};

TEST(SuggestTest, FindsTheNearest) {
  EXPECT_EQ(Nearest("cache_byte", kNames), "cache_bytes");
  EXPECT_EQ(Nearest("cash_bytes", kNames), "cache_bytes");
  EXPECT_EQ(Nearest("ratain_bytes", kNames), "retain_bytes");
  EXPECT_EQ(Nearest("run", kNames), "run");
}

TEST(SuggestTest, CountsAnExchangeOnce) {
  EXPECT_EQ(Nearest("rnu", kNames), "run");
  EXPECT_EQ(Nearest("unr", kNames), "");
}

TEST(SuggestTest, SaysNothingWhereNothingIsNear) {
  EXPECT_EQ(Nearest("verbose", kNames), "");
  EXPECT_EQ(Nearest("", kNames), "");
  EXPECT_EQ(Nearest("x", kNames), "");
  EXPECT_EQ(Nearest("run", {}), "");
  EXPECT_EQ(DidYouMean("verbose", "--", kNames), "");
}

TEST(SuggestTest, AsksWithThePrefix) {
  EXPECT_EQ(DidYouMean("rum", "--", kNames), "; did you mean '--run'?");
}

}  // namespace
}  // namespace hakmem::tools
