#!/bin/bash
# Each checker must fail on the error planted for it, and say what it found.
set -uo pipefail
here=bazel/selftest
failures=0

# catches TEXT COMMAND...: the command fails and its output has TEXT.
catches() {
  local text=$1 output status
  shift
  output=$("$@" 2>&1)
  status=$?
  if ((status == 0)) || [[ $output != *"$text"* ]]; then
    printf 'not caught: %s (status %s, looked for "%s")\n%s\n' "$*" "$status" "$text" "$output"
    failures=$((failures + 1))
  fi
}

catches 'AddressSanitizer: heap-buffer-overflow' "$here/planted_asan" overflow
catches 'signed integer overflow' "$here/planted_ubsan" integer
catches 'ThreadSanitizer: data race' "$here/planted_tsan" race
catches 'no test is selected by --gtest_filter=Thread*' "$here/filtered_test" '--gtest_filter=Thread*'
catches 'Possible data race' bazel/helgrind "$here/planted" race
exit "$((failures > 0))"
