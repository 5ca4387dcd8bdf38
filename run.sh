#!/usr/bin/env bash
# From audio to a verdict: does pretraining an autoencoder lower the word error rate?
set -euo pipefail
cd "$(dirname "$0")"
. ./path.sh

usage() {
  cat <<'USAGE'
./run.sh [--stage N] [--stop-stage M] [--dry-run] [--help] [-m] [key=value ...]

  0 download    the audio                        5 finetune   the CTC recognizer on the labeled part
  1 prepare     a Kaldi data directory a split   6 decode     hypotheses
  2 features    feature archives, CMVN           7 score      %WER, by utterance and speaker
  3 pretrain    the autoencoder, unlabeled       8 report     the comparison of all cells
  4 bottleneck  its bottleneck, as archives

  --stage, --stop-stage  first and last stage, by number or name (all of them)
  --dry-run              say what each stage would do, and why; do nothing
  key=value              any setting of conf/; commas sweep: arm=none,masked seed=1,2,3 labels.hours=0.5,1
                         (-m is understood, and implied)
  sweep=optuna           a search for the best settings of each arm, sweep.trials=20; what it tries: conf/sweep/optuna.yaml
  hydra/launcher=slurm   each cell is a job of a SLURM cluster; its settings: conf/hydra/launcher/slurm.yaml
  hydra/launcher=ray     or a task of a Ray cluster: conf/hydra/launcher/ray.yaml

USAGE
  for group in conf/*/; do
    printf '  %-14s %s\n' "$(basename "$group")=" "$(find "$group" -maxdepth 1 -name '*.yaml' -printf '%f\n' | sed 's/\.yaml$//' | sort | paste -sd ' ')"
  done | grep -v 'hydra='
}

names=(download prepare features pretrain bottleneck finetune decode score report)
number() {
  local i
  [ $# -gt 0 ] || die "--stage needs a stage: 0 to 8 or: ${names[*]}"
  for i in "${!names[@]}"; do [ "$1" = "$i" ] || [ "$1" = "${names[i]}" ] && echo "$i" && return; done
  die "no stage '$1'; stages are 0 to 8 or: ${names[*]}"
}

stage=0 stop_stage=8 settings=()
while [ $# -gt 0 ]; do
  case $1 in
    --stage) stage=$(number "${@:2:1}"); shift 2 ;;
    --stop-stage) stop_stage=$(number "${@:2:1}"); shift 2 ;;
    --stage=* | --stop-stage=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --dry-run) settings+=(dry_run=true) && shift ;;
    -m | --multirun) shift ;;
    -h | --help) usage && exit ;;
    stage=* | stop_stage=* | cells=*) die "$1: say --stage and --stop-stage; cells is the sweep's own" ;;
    -*) die "unknown option $1; the nearest is $(nearest "${1%%=*}" --stage --stop-stage --dry-run --help)" ;;
    *) settings+=("$1") && shift ;;
  esac
done
[ "$stage" -le "$stop_stage" ] || die "--stop-stage $stop_stage (${names[stop_stage]}) comes before --stage $stage (${names[stage]}); exchange them"
use_environment requirements.txt

# In each phase what differs there: each corpus once, each autoencoder once, each recognizer, the comparison.
#   download prepare features | pretrain bottleneck | finetune decode score | report
exec python -m local.run -m "stage=$stage" "stop_stage=$stop_stage" "${settings[@]}"
