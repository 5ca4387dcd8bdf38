#!/usr/bin/env bash
# What SLURM gains and costs: the cells of the default comparison as jobs on the two cores of a cluster of one node, against
# one after the other on one core. ./tests/bench/launcher.sh [key=value ...]; it needs root and SLURM (tests/cluster/slurm.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
. ./path.sh
. tests/cluster/start.sh
command -v slurmctld >/dev/null || die "no slurmctld; tests/cluster/slurm.sh installs it"
use_environment requirements.txt
work=$(mktemp -d)
trap 'stop_cluster; cd /; rm -rf "$work"' EXIT
start_cluster "$work/cluster"
cp -r path.sh conf local lightning_modules "$work"
cd "$work"
mkdir one && ln -s ../data one/data
small=(corpus.minutes.{pretrain=10,train=5,dev=2,test=2} logger=csv autoencoder.updates=200 recognizer.updates=200 "$@")
python -m local.run -m stage=0 stop_stage=2 "${small[@]}" >data.out 2>&1 || die "$(tail -n 3 data.out)"
cells() { # FOLDER LAUNCHER...: train and score them, and say how long it took
  local start=$EPOCHREALTIME
  (cd "$1" && PYTHONPATH=$work python -m local.run -m stage=3 stop_stage=7 "${small[@]}" "${@:2}") >"$1/cells.out" 2>&1 ||
    die "$(tail -n 3 "$1/cells.out")"
  echo "$start $EPOCHREALTIME" >"$1/seconds"
}
# What a training imports, which one process does once and each job anew.
trained=(local.run local.stages.{pretrain,finetune} lightning_modules.{fit,datamodule} lightning_modules.recognizers.ctc)
start=$EPOCHREALTIME
python -c "import $(IFS=,; echo "${trained[*]}")"
echo "$start $EPOCHREALTIME" >imports
cells one hydra/launcher=basic
cells . hydra/launcher=slurm hydra.launcher.{sbatch.mem=1500M,sbatch.cpus_per_task=1}
python - <<'PYTHON'
import json
from pathlib import Path
def spent(path):
    begin, end = map(float, Path(path).read_text().split())
    return end - begin
def told(folder):
    markers = [json.loads(path.read_text()) for path in Path(folder, "exp").rglob("done.json")]
    return spent(f"{folder}/seconds"), sum(marker["wall_seconds"] for marker in markers)
(alone, work), (cluster, shared), imports = told("one"), told("."), spent("imports")
jobs = len(list(Path("exp/slurm").glob("*.log")))
print(f"one core, one cell after the other: {alone:.0f} s, of which {work:.0f} s are stages'")
print(f"two cores, {jobs} jobs of SLURM: {cluster:.0f} s, {alone / cluster:.2f} times as fast; stages {shared:.0f} s")
ratio = (alone - imports) / (cluster - jobs * imports / 2)
print(f"imports, {imports:.1f} s a process, left out: {ratio:.2f} times as fast")
print(f"a core and job spends {(2 * cluster - shared) / jobs:.1f} s on imports, the queue and waiting for others")
PYTHON
