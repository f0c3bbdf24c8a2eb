#!/bin/bash
# A retargeted test whose filter selects no test fails.
set -uo pipefail

readonly launcher=bazel/selftest/filtered

"$launcher" --gtest_filter='Filtered*' || exit
"$launcher" || exit
output=$("$launcher" --gtest_filter='Thread*' 2>&1) && {
  echo "no test was run, and that passed"
  exit 1
}
[[ $output == *"no test is selected by --gtest_filter=Thread*"* ]] || {
  echo "said: $output"
  exit 1
}
