#!/usr/bin/env bash
# The main job from nothing to its report, in a folder of its own: wall time, and the peak memory of all its
# processes together. ./tests/bench/main_job.sh [key=value ...], for example seed=1
# WORK=FOLDER ./tests/bench/main_job.sh keeps what it made.
set -euo pipefail
cd "$(dirname "$0")/../.."
. ./path.sh
use_environment requirements.txt
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
cp -r run.sh path.sh requirements.txt conf local lightning_modules recipes "$work"
cd "$work"

for pass in first second; do
  setsid ./run.sh "$@" >log 2>&1 &
  job=$! start=$SECONDS peak=0
  while kill -0 $job 2>/dev/null; do
    now=$(ps -e -o sid=,rss= | awk -v sid=$job '$1 == sid { sum += $2 } END { print int(sum / 1024) }')
    peak=$((now > peak ? now : peak))
    sleep 0.5
  done
  wait $job
  tail -n 12 log
  echo "$pass run: $((SECONDS - start)) s, peak memory of all processes together $peak MB"
done
start=$(date +%s%N)
./run.sh --help >/dev/null
echo "--help: $((($(date +%s%N) - start) / 1000000)) ms"
