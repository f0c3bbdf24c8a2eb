// One test, to be selected or not.

#include "gtest/gtest.h"

TEST(FilteredTest, IsThere) {}
