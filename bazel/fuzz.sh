#!/bin/bash
# fuzz.sh PROGRAM [ARGUMENT...]: runs a libFuzzer program. What it finds that is
# new goes to a directory of this test's own, not into the corpus; an input that
# makes it fail is among the test's outputs.
set -euo pipefail

found=$(mktemp -d "${TEST_TMPDIR:-/tmp}/found.XXXXXX")
exec "$1" -artifact_prefix="${TEST_UNDECLARED_OUTPUTS_DIR:-$found}/" \
  "${@:2:$#-2}" "$found" "${@: -1}"
