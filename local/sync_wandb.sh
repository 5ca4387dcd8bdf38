#!/usr/bin/env bash
# Uploads the W&B runs that were kept offline below exp/, each once: ./local/sync_wandb.sh [RUNS_AT_A_TIME]
# A killed training leaves a folder of its run, and goes on in another one: `wandb sync` joins them in order of time, and
# marks what it has uploaded.
set -euo pipefail
cd "$(dirname "$0")/.."
. ./path.sh
jobs=${1:-4} log=exp/log/sync_wandb.log
[[ $jobs =~ ^[1-9][0-9]*$ ]] || die "$jobs: expected a number of runs to upload at a time, such as 4"
use_environment requirements.txt

# Whether what writes a run goes on: it holds the lock of its directory, as local/lock.py has it.
being_written() {
  local made=${1%/wandb/offline-run-*}
  local lock="${made%/*}/.${made##*/}"
  lock=${lock%.partial}.lock
  [[ $made == *.partial && -e $lock ]] && ! flock --nonblock --shared "$lock" true
}

new=() written=0
while IFS= read -r -d '' run; do
  if [ -e "$run.synced" ]; then
    continue
  elif being_written "$run"; then
    written=$((written + 1))
  else
    new+=("$run")
  fi
done < <(find -H exp -path '*/wandb/offline-run-*/run-*.wandb' -size +7c -print0 2>/dev/null | sort -z) # 7: killed at once
later=$([ "$written" = 0 ] || echo "; $written are being written, and wait for the next time")
if [ "${#new[@]}" = 0 ]; then
  echo "W&B: nothing new to upload$later"
  exit
fi
why=$(python -c 'from local.logger import unready; print(unready())')
[ -z "$why" ] || die "$why; ${#new[@]} folders of runs are to be uploaded"
mkdir -p exp/log
exec 9>exp/log/.sync_wandb.lock
flock --nonblock 9 || die "another sync_wandb.sh uploads at this moment; wait for it"
env -u WANDB_MODE wandb sync --yes -n "$jobs" "${new[@]}" </dev/null >"$log" 2>&1 9>&- || true # the marks say what came of it
left=0
for run in "${new[@]}"; do [ -e "$run.synced" ] || left=$((left + 1)); done
why=$(grep -m 1 -iE 'error|panic' "$log" || tail -n 1 "$log")
[ "$left" = 0 ] || die "$left of ${#new[@]} folders of runs were not uploaded (${why#wandb: }); the same command tries again; log: $log"
echo "W&B: uploaded ${#new[@]} folders of runs$later"
