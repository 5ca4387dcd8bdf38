#!/usr/bin/env bash
# A sweep on a Ray cluster of two nodes, started on this machine, one of which is killed meanwhile, ends in the files that
# it makes without a cluster. ./tests/cluster/ray.sh [SETTING...], where settings such as recipe=mini_librispeech
# corpus.root=/corpora/LibriSpeech take the place of a little synthetic speech; it wants Ray in an environment that is
# not the recipe's:
# python3 -m venv rayenv && rayenv/bin/pip install -r tests/requirements.txt 'ray[default]==2.60.0' && . rayenv/bin/activate
set -euo pipefail
cd "$(dirname "$0")/../.."
. ./path.sh
command -v ray >/dev/null || die "ray is not on the PATH; $(sed -n 's/^# python3 -m/python3 -m/p' "$0")"
use_environment tests/requirements.txt

work=$(mktemp -d /tmp/ray-XXXX) # a socket's path has 107 characters at most
port=$((6400 + RANDOM % 400))
mine() { pgrep -f "$work/cluster" | grep -vx $$ || true; } # the cluster's processes
trap 'kill -9 ${basic:-} ${driver:+-$driver} $(mine) 2>/dev/null || true; cd /; rm -rf "$work"' EXIT
cp -r run.sh path.sh requirements.txt conf local lightning_modules recipes tests "$work"
# Whatever tokens the user has: nobody else is to run anything here.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
mkdir "$work/elsewhere" # a task runs in the driver's folder, wherever the cluster was started
fail() {
  echo "FAILED: $*" >&2
  tail -n 30 "$work"/*.out >&2
  exit 1
}
node() { # NUMBER OPTION...: one of the two, with ports of its own
  (cd "$work/elsewhere" && timeout 120 ray start --num-cpus=1 --object-store-memory=100000000 --disable-usage-stats \
    --min-worker-port="2${1}000" --max-worker-port="2${1}999" "${@:2}" >"$work/node$1.out" 2>&1 </dev/null) || fail "node $1"
}
raylets() { pgrep -f "raylet/raylet.*$work/cluster"; }
node 0 --head --port="$port" --temp-dir="$work/cluster" --include-dashboard=false
head=$(raylets)
node 1 --address="127.0.0.1:$port" --include-log-monitor=false # or each line is shown twice
second=$(raylets | grep -vx "$head")

cd "$work"
[ $# != 0 ] || set -- corpus.minutes.{pretrain=1,train=0.7,dev=0.5,test=0.7} corpus.accents=1
small=("$@" logger=csv seed=1 'arm=none,masked'
  {autoencoder,recognizer}.{updates=40,check_every=5,batch_seconds=20,width=16} recognizer.encoder.width=16)
(
  mkdir basic && cd basic && export PYTHONPATH=$work
  python -m local.run -m stage=0 stop_stage=7 hydra/launcher=basic "${small[@]}" &&
    python -m local.run -m stage=8 stop_stage=8 hydra/launcher=basic "${small[@]}"
) >basic.out 2>&1 &
basic=$!
setsid timeout 1200 ./run.sh hydra/launcher=ray hydra.launcher.ray.init.address="127.0.0.1:$port" "${small[@]}" >whole.out 2>&1 &
driver=$!
# Its worker is named by the cell that it runs: kill the node while that trains its recognizer.
cell() { pgrep -a -P "$second" | sed -n 's/^[0-9]* ray::\([a-z]*\) seed=1.*/\1/p' | head -n 1; }
until arm=$(cell) && [ -n "$arm" ] && compgen -G "exp/*/*/$arm-*.partial/checkpoints/last.ckpt" >/dev/null; do
  kill -0 "$driver" 2>/dev/null || fail "the driver ended before a recognizer was trained on the second node"
  sleep 0.1
done
mapfile -t workers < <(pgrep -P "$second")
kill -9 "$second" "${workers[@]}"
echo "killed the node on which the recognizer of '$arm' was trained"
wait "$driver" || fail "the driver ended with status $?"
wait "$basic" || fail "the basic launcher"
[ "$(grep -c "$arm seed=1\] finetune: exp/" whole.out)" = 2 ] || fail "'$arm' was not begun twice"
[ "$(grep -c "$arm seed=1 finetune\] 5/40 " whole.out)" = 1 ] || fail "'$arm' began again, and did not go on"
[ -z "$(ls elsewhere)" ] || fail "something was written into the cluster's folder"
python - <<'PYTHON' || fail "the files differ from those of the basic launcher"
from pathlib import Path
from tests.bench.kills import content, differences
basic, here = (content(Path(folder) / "exp") for folder in ("basic", "."))
unlike = differences(basic, here)
print(f"whole recipe on Ray, one of two nodes killed with SIGKILL: {len(basic)} files, {len(unlike)} differ", *unlike)
exit(bool(unlike) or not any(name.endswith("report/results.json") for name in basic))
PYTHON

refused() { # PATTERN ARGUMENT...
  ! timeout 60 ./run.sh hydra/launcher=ray "${small[@]}" --stage 5 seed=2 "${@:2}" >refused.out 2>refused.err || fail "not refused: $1"
  { [ "$(wc -l <refused.err)" = 1 ] && grep -q "^error: .*$1" refused.err; } || fail "$1: $(cat refused.err)"
  cat refused.err
}
refused "unknown setting 'hydra.launcher.ray.init.adress'; the nearest is" hydra.launcher.ray.init.adress=127.0.0.1:1
refused 'hydra.launcher.ray.init.address=127.0.0.1:1: Connection refused' hydra.launcher.ray.init.address=127.0.0.1:1
