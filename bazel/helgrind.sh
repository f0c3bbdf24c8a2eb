#!/bin/bash
# helgrind.sh PROGRAM [ARGUMENT...]: runs a compiled program under Helgrind and
# fails on any report. Anything else (a shell test) runs as it is.
set -euo pipefail

program=$(type -P -- "$1") || {
  echo "helgrind.sh: no program $1" >&2
  exit 127
}
shift
if [[ $(head -c 4 -- "$program") != $'\x7fELF' ]]; then
  exec "$program" "$@"
fi

# Under `bazel test` the working directory is the root of the runfiles, but not
# when this script is run from elsewhere.
suppressions="${BASH_SOURCE[0]%/*}/helgrind.supp"
[[ -r $suppressions ]] || suppressions="${BASH_SOURCE[0]}.runfiles/hakmem/bazel/helgrind.supp"

# hakmem's malloc stays hakmem's: Helgrind would otherwise put its own in place
# and never see the code that is to be tested.
exec valgrind --tool=helgrind --quiet --error-exitcode=99 \
  --soname-synonyms=somalloc=nouserintercepts \
  --read-inline-info=no --suppressions="$suppressions" \
  "$program" "$@"
