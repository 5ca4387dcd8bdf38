#!/usr/bin/env bash
# Sweeps on a SLURM cluster of one node, started on this machine: a job killed, a time limit, a node drained, a driver
# killed, a controller down. ./tests/cluster/slurm.sh [--short]; it needs root and Debian or Ubuntu, and installs SLURM.
set -euo pipefail
cd "$(dirname "$0")/../.."
. ./path.sh
. tests/cluster/start.sh
{ [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || die "$0 needs root on Debian or Ubuntu, for slurm-wlm and munge"
case ${1:-} in '' | --short) ;; *) die "unknown option $1; the only one is --short" ;; esac
use_environment requirements.txt
if ! command -v slurmctld munged >/dev/null; then
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null ||
    die "apt-get install slurm-wlm munge failed"
fi

work=$(mktemp -d)
trap 'stop_cluster; cd /; rm -rf "$work"' EXIT
start_cluster "$work/cluster"
cp -r run.sh path.sh requirements.txt conf local lightning_modules recipes tests "$work"
cd "$work"
small=(corpus.minutes.{pretrain=1,train=0.7,dev=0.5,test=0.7} corpus.accents=1 logger=csv seed=1 'arm=none,masked'
  {autoencoder,recognizer}.{updates=40,check_every=5,batch_seconds=20,width=16} recognizer.encoder.width=16)
slurm=(hydra/launcher=slurm hydra.launcher.{poll_seconds=1,sbatch.mem=1G,sbatch.cpus_per_task=1})
fail() {
  echo "FAILED: $*" >&2
  tail -n 30 "$work"/*.out >&2
  exit 1
}
# until_seen PATTERN FILE...: wait until one of the files, which need not exist yet, has such a line.
until_seen() {
  until grep -qs "$@"; do
    kill -0 "$driver" 2>/dev/null || fail "the driver ended before it said: $1"
    sleep 0.2
  done
}
training() { # PATTERN: wait for such a file
  until compgen -G "$1" >/dev/null; do
    kill -0 "$driver" 2>/dev/null || fail "the driver ended before $1 was there"
    sleep 0.1
  done
}
job_pid() { scontrol listpids "$1" | awk 'NR == 2 { print $1 }'; }

# The whole recipe, a training of it killed on its way, ends in the files that it makes without a cluster.
(
  mkdir basic && cd basic && export PYTHONPATH=$work
  python -m local.run -m stage=0 stop_stage=7 hydra/launcher=basic "${small[@]}" &&
    python -m local.run -m stage=8 stop_stage=8 hydra/launcher=basic "${small[@]}"
) >basic.out 2>&1 || fail "the basic launcher"
start() { # OUTPUT ARGUMENT...: the driver, in a process group of its own
  setsid ./run.sh "${slurm[@]}" "${small[@]}" "${@:2}" >"$1" 2>&1 &
  driver=$!
}
finished() { wait "$driver" || fail "$1: the driver ended with status $?"; }
start whole.out
until_seen 'none seed=1] finetune decode score: job .* running' whole.out
training 'exp/espeak/*/none-*.partial/checkpoints/last.ckpt'
kill -9 "$(job_pid "$(squeue --noheader --format='%i %j' | awk '/score-none/ { print $1 }')")"
finished "a training killed"
grep -q 'none seed=1.*cut short (FAILED, signal 9)' whole.out || fail "the kill was not noticed"
python - <<'PYTHON' || fail "the files differ from those of the basic launcher"
from pathlib import Path
from tests.bench.kills import content, differences
basic, here = (content(Path(folder) / "exp") for folder in ("basic", "."))
unlike = differences(basic, {name: held for name, held in here.items() if not name.startswith("slurm/")})
print(f"whole recipe on SLURM, one training killed with SIGKILL: {len(basic)} files, {len(unlike)} differ", *unlike)
exit(bool(unlike) or "espeak/report/results.json" not in basic)
PYTHON
[ "${1:-}" != --short ] || exit 0
