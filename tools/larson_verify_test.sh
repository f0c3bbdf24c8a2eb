#!/bin/bash
# larson_verify_test.sh LARSON THREADS...: ten runs of larson --verify for each
# number of threads. Every block is filled with a pattern of its own and checked
# before it is freed, so a block with two owners is found.
set -euo pipefail

larson=$1
shift
for threads in "$@"; do
  for run in {1..10}; do
    "$larson" --verify --threads="$threads" --seconds=0.4 --seed="$run" \
      --min_size=1 --max_size=3000 --blocks_per_thread=1000 --rounds=20 ||
      { echo "run $run of $threads threads failed" >&2; exit 1; }
  done
done
