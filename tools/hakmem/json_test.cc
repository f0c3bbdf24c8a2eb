#include "tools/hakmem/json.h"

#include <string>

#include "gtest/gtest.h"

namespace hakmem::tools {
namespace {

TEST(JsonTest, ParsesEveryKindOfValue) {
  const absl::StatusOr<Json> json = ParseJson(
      R"( {"a":[1,-2.5e1,true,false,null],"b":{"c":"d"},"b2":"","a2":18446744073709551615} )");
  ASSERT_TRUE(json.ok()) << json.status();
  const Json& array = *json->Find("a");
  ASSERT_EQ(array.items.size(), 5u);
  EXPECT_TRUE(array.items[0].whole);
  EXPECT_EQ(array.items[0].integer, 1u);
  EXPECT_FALSE(array.items[1].whole);
  EXPECT_EQ(array.items[1].number, -25);
  EXPECT_TRUE(array.items[2].boolean);
  EXPECT_FALSE(array.items[3].boolean);
  EXPECT_EQ(array.items[3].type, Json::Type::kBool);
  EXPECT_EQ(array.items[4].type, Json::Type::kNull);
  EXPECT_EQ(json->Find("b")->String("c"), "d");
  EXPECT_EQ(json->Integer("a2"), UINT64_MAX);
  EXPECT_EQ(json->Integer("missing", 7), 7u);
  EXPECT_EQ(json->Find("missing"), nullptr);
}

TEST(JsonTest, StringsGoThereAndBack) {
  for (const std::string& text :
       {std::string("plain"), std::string("</script>\"\\/\b\f\n\r\t\x7f"),
        std::string("é € \U0001f600"), std::string("\0x", 2)}) {
    const std::string quoted = JsonQuote(text);
    EXPECT_EQ(quoted.find('<'), std::string::npos);
    const absl::StatusOr<Json> json = ParseJson(quoted);
    ASSERT_TRUE(json.ok()) << quoted << ": " << json.status();
    EXPECT_EQ(json->text, text);
  }
  EXPECT_EQ(JsonQuote("a\xff\xc3"), "\"a\\ufffd\\ufffd\"");
  EXPECT_EQ(ParseJson(R"("\ud83d\ude00\u00e9")")->text, "\U0001f600é");
}

TEST(JsonTest, RefusesWhatIsNoJson) {
  for (const char* const text : {"",
                                 "{",
                                 "[1,",
                                 "[1 2]",
                                 "{\"a\" 1}",
                                 "{a:1}",
                                 "{\"a\":1,}",
                                 "01",
                                 "1.",
                                 "-",
                                 "+1",
                                 "1e",
                                 "\"a",
                                 "\"\\x\"",
                                 "\"\\u12g4\"",
                                 "\"\\ud800\"",
                                 "\"\\ude00\"",
                                 "\"\xff\"",
                                 "\"\n\"",
                                 "tru",
                                 "nul",
                                 "1 1",
                                 "{}x",
                                 "\"\\"}) {
    EXPECT_FALSE(ParseJson(text).ok()) << text;
  }
  EXPECT_FALSE(ParseJson(std::string(100000, '[')).ok());
  EXPECT_EQ(ParseJson("[1,x]").status().message(), "column 4: no value");
}

}  // namespace
}  // namespace hakmem::tools
