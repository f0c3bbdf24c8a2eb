#!/bin/bash
# helgrind_finds.sh PROGRAM FUNCTION [ARGUMENT...]: the opposite of helgrind.sh.
# Runs a program that lacks a lock, and fails unless Helgrind reports a data
# race by a function whose name begins with FUNCTION. What else becomes of the
# program does not matter: without its lock it may well crash afterwards.
set -uo pipefail

program=$1
function=$2
shift 2
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A program that lost its way must not keep the test running: one report is
# enough, and it comes early.
timeout 200 "${BASH_SOURCE[0]%/*}/helgrind.sh" "$program" "$@" >"$log" 2>&1
status=$?

# The first "at" after "Possible data race" names what made the access.
if awk -v name=": $function" '
    /Possible data race/ { racy = 1 }
    racy && /==    at 0x/ {
      if (index($0, name)) found = 1
      racy = 0
    }
    END { exit !found }' "$log"; then
  exit 0
fi
tail -n 100 "$log" >&2
echo "helgrind_finds.sh: no race by $function was reported; the program ended with status $status" >&2
exit 1
