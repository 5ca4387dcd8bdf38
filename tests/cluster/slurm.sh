#!/usr/bin/env bash
# Sweeps on a SLURM cluster of one node, started on this machine: a job killed, a time limit, a node drained, a driver
# killed, a controller down, a full disk, a training in two processes. ./tests/cluster/slurm.sh [--short] [SETTING...],
# where settings such as recipe=mini_librispeech corpus.root=/corpora/LibriSpeech take the place of a little synthetic
# speech. It needs root and Debian or Ubuntu, and installs SLURM.
set -euo pipefail
cd "$(dirname "$0")/../.."
. ./path.sh
. tests/cluster/start.sh
{ [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || die "$0 needs root on Debian or Ubuntu, for slurm-wlm and munge"
short=
case ${1:-} in
--short) short=yes && shift ;;
-*) die "unknown option $1; the only one is --short" ;;
esac
use_environment tests/requirements.txt # with what compares
if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null ||
    die "apt-get install slurm-wlm munge failed"
fi

work=$(mktemp -d)
clean_up() {
  kill -9 ${basic:-} ${driver:+-$driver} 2>/dev/null || true
  stop_cluster
  cd /
  umount "$work/full/exp" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
start_cluster "$work/cluster"
cp -r run.sh path.sh requirements.txt conf local lightning_modules recipes tests "$work"
cd "$work"
[ $# != 0 ] || set -- corpus.minutes.{pretrain=1,train=0.7,dev=0.5,test=0.7} corpus.accents=1
small=("$@" logger=csv seed=1 'arm=none,masked'
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

# The whole recipe, its features of two jobs, a training killed on its way, ends in the files that it makes without a cluster.
(
  mkdir basic && cd basic && export PYTHONPATH=$work
  python -m local.run -m stage=0 stop_stage=7 hydra/launcher=basic "${small[@]}" &&
    python -m local.run -m stage=8 stop_stage=8 hydra/launcher=basic "${small[@]}"
) >basic.out 2>&1 &
basic=$!
start() { # OUTPUT ARGUMENT...: the driver, in a process group of its own
  setsid timeout 1200 ./run.sh "${slurm[@]}" "${small[@]}" "${@:2}" >"$1" 2>&1 &
  driver=$!
}
finished() { wait "$driver" || fail "$1: the driver ended with status $?"; }
start whole.out machine.shares=2
until_seen 'none seed=1] finetune decode score: job .* running' whole.out
training 'exp/*/*/none-*.partial/checkpoints/last.ckpt'
kill -9 "$(job_pid "$(squeue --noheader --format='%i %j' | awk '/score-none/ { print $1 }')")"
finished "a training killed"
wait "$basic" || fail "the basic launcher"
[ "$(grep -c '\.[12]-of-2\] features: done' whole.out)" = 2 ] || fail "the features are not of two jobs"
grep -q 'none seed=1.*cut short (FAILED, signal 9)' whole.out || fail "the kill was not noticed"
python - <<'PYTHON' || fail "the files differ from those of the basic launcher"
from pathlib import Path
from tests.bench.kills import content, differences
basic, here = (content(Path(folder) / "exp") for folder in ("basic", "."))
unlike = differences(basic, {name: held for name, held in here.items() if not name.startswith("slurm/")})
print(f"whole recipe on SLURM, one training killed with SIGKILL: {len(basic)} files, {len(unlike)} differ", *unlike)
exit(bool(unlike) or not any(name.endswith("report/results.json") for name in basic))
PYTHON
[ -z "$short" ] || exit 0

# A time limit: the training, stopped so that it reaches the limit on any machine, goes on in a second job.
start limit.out --stage 5 --stop-stage 7 arm=none seed=2 logger=wandb hydra.launcher.sbatch.time=1
training 'exp/*/*/none-*.partial/checkpoints/last.ckpt'
kill -STOP "$(job_pid "$(squeue --noheader --format=%i)")"
finished "a time limit"
grep -q 'seed=2.*cut short (TIMEOUT)' limit.out || fail "the time limit was not noticed"
mapfile -t logs < <(ls -v exp/slurm/score-none-seed-2-*.log)
[ "${#logs[@]}" = 2 ] || fail "not two jobs: ${logs[*]}"
grep -q ' 5/40 ' "${logs[0]}" || fail "the first job did not train"
! grep -q ' 5/40 ' "${logs[1]}" || fail "the second job began again"
mapfile -t runs < <(compgen -G 'exp/*/*/none-*/wandb/offline-run-*')
[ "${#runs[@]}" = 2 ] && [ "${runs[0]##*-}" = "${runs[1]##*-}" ] || fail "not two parts of one W&B run: ${runs[*]}"
echo "a time limit: a second job went on from the last checkpoint, and in the same W&B run"

# A drained node: what runs goes on, what waits says why, and runs once the node is resumed.
start drain.out --stage 5 --stop-stage 7 arm=none seed=3,4 hydra.launcher.sbatch.cpus_per_task=2
until_seen 'job .* running' drain.out
scontrol update nodename="$(hostname -s)" state=drain reason=test
until_seen 'job .* pending (.*DRAINED' drain.out
until_seen 'score: done' drain.out
scontrol update nodename="$(hostname -s)" state=resume
finished "a node drained"
[ "$(grep -c 'score: done' drain.out)" = 2 ] || fail "not both cells are done"
echo "a node drained and resumed: one job went on, the other one waited and said why"

# A driver killed: the next one finds what runs.
start first.out --stage 5 --stop-stage 7 arm=none seed=5,6
training 'exp/*/*/none-*.partial/checkpoints/last.ckpt'
kill -9 -- "-$driver"
start second.out --stage 5 --stop-stage 7 arm=none seed=5,6
finished "a driver killed"
! grep -q submitted second.out || fail "the second driver submitted a job again"
[ "$(compgen -G 'exp/slurm/score-none-seed-[56]-*.log' | wc -l)" = 2 ] || fail "not two jobs"
[ "$(grep -c 'score: done' second.out)" = 2 ] || fail "not both cells are done"
echo "a driver killed with SIGKILL: the next one found its two jobs and submitted none"

# A controller that restarts while a job runs.
start restart.out --stage 5 --stop-stage 7 arm=none seed=7
training 'exp/*/*/none-*.partial/checkpoints/last.ckpt'
stop_controller
until_seen 'Unable to contact slurm controller .*; trying again' restart.out
start_controller
finished "a controller restarted"
[ "$(compgen -G 'exp/slurm/score-none-seed-7-*.log' | wc -l)" = 1 ] || fail "not one job"
echo "a controller restarted: the driver waited for it, and for its job"

# A disk that fills up while a job trains: the driver says so, and once there is room the training goes on.
mkdir -p full/exp && ln -s ../data full/data && mount -t tmpfs -o size=100m hourglass full/exp
(cd full && ln -s ../{run.sh,path.sh,requirements.txt,conf,local,lightning_modules,recipes} .)
start_full() {
  setsid timeout 1200 env -C full ./run.sh "${slurm[@]}" "${small[@]}" --stage 5 --stop-stage 7 arm=none seed=11 \
    >"$1" 2>&1 &
  driver=$!
}
start_full full.out
training 'full/exp/*/*/none-*.partial/checkpoints/last.ckpt'
cat /dev/zero >full/exp/filler 2>/dev/null || true
! wait "$driver" || fail "a full disk was not noticed"
grep -q '^error: .*none seed=11.*No space left on device' full.out || fail "a full disk"
grep '^error: .*none seed=11' full.out
rm full/exp/filler
start_full room.out
finished "a disk with room again"
! grep -q ' 5/40 ' room.out || fail "the training began again"
grep -q 'score: done' room.out || fail "the cell is not done"
umount full/exp
echo "a full disk: the driver said so, and with room again the training went on from its last checkpoint"

# Two processes that share a training have the losses of one: as tasks of srun, and as those of a cell's job.
exact=({autoencoder,recognizer}.{encoder.dropout=0,learning_rate=0.001} trainer.accelerator=cpu)
train() { python -m local.run -m hydra/launcher=basic "${small[@]}" "${exact[@]}" "$@"; }
mkdir one && ln -s ../data one
alone() { (cd one && PYTHONPATH=$work train seed=9 "$@") || fail "one process"; }
alone arm=masked stage=3 stop_stage=3 >alone.out 2>&1
alone arm=none stage=5 stop_stage=5 >>alone.out 2>&1
shared=(srun --ntasks=2 python -m local.run -m hydra/launcher=basic "${small[@]}" "${exact[@]}" trainer.devices=2)
"${shared[@]}" seed=9 arm=masked stage=3 stop_stage=3 >srun.out 2>&1 || fail "two processes under srun"
start shared.out --stage 5 --stop-stage 5 seed=9 arm=none trainer.devices=2 "${exact[@]}"
finished "two processes of a job"
python - <<'PYTHON' || fail "the losses differ from those of one process"
import json
from pathlib import Path
worst = count = 0
for path in Path("one/exp").rglob("history.json"):
    rows = [json.loads(each.read_text()) for each in (path, path.relative_to("one"))]
    pairs = [(one[key], two[key]) for one, two in zip(*rows, strict=True) for key in ("loss", "val_loss")]
    worst, count = max([worst, *(abs(a - b) for a, b in pairs)]), count + len(pairs)
print(f"two processes under srun: {count} losses differ from those of one process by {worst:.1g} at most")
exit(not count or worst > 1e-4)
PYTHON
[ "$(grep -c ' 40/40 ' srun.out)" = 1 ] || fail "not one process alone logs"
grep -q 'finetune: in 2 processes' shared.out || fail "the job's training was not shared"
"${shared[@]}" seed=10 arm=masked stage=3 stop_stage=3 >killed.out 2>killed.err &
driver=$!
until_seen ' 5/40 ' killed.out
kill -9 "$(scontrol listpids | awk '$3 == 1 && $5 == 1 { print $1 }')" # the second task of the step in the step
SECONDS=0
! wait "$driver" || fail "the job did not notice"
grep -q '^error: .*has died .*task 1: Killed' killed.err && [ "$SECONDS" -lt 10 ] || fail "$SECONDS s: $(cat killed.err)"
echo "one of two processes under srun killed: the job ended after $SECONDS s"

# What users get wrong is one line, and so is a cell that fails.
refused() { # PATTERN ARGUMENT...
  ! ${run:-./run.sh} "${slurm[@]}" "${small[@]}" --stage 5 arm=none seed=8 "${@:2}" >refused.out 2>refused.err || fail "not refused: $1"
  { [ "$(wc -l <refused.err)" = 1 ] && grep -q "^error: .*$1" refused.err; } || fail "$1: $(cat refused.err)"
  cat refused.err
}
refused 'Invalid partition name specified; .*partitions: main' hydra.launcher.sbatch.partition=gpus
refused 'Invalid generic resource .gres. specification' hydra.launcher.sbatch.gres=gpu:1
refused "unknown setting 'hydra.launcher.sbatch.partion'; the nearest is" hydra.launcher.sbatch.partion=main
refused 'none seed=8.*9 h asked for, but there are' labels.hours=9
refused 'none seed=8.*cut short 2 times, at last FAILED, signal 9' hydra.launcher.retries=1 "hydra.launcher.before=['kill -9 \$\$']"
refused 'none seed=8.*was canceled' "hydra.launcher.before=['scancel \$SLURM_JOB_ID; sleep 60']"
refused 'could not write exp/slurm/.* on its node' +hydra.launcher.sbatch.output=/nowhere/log
read_only() { # ARGUMENT...: the driver, for which exp/ is read-only
  unshare --mount bash -c 'mount --bind exp exp && mount -o remount,ro,bind exp && exec ./run.sh "$@"' - "$@"
}
run=read_only refused 'exp/log/run.log: Read-only file system; make it writable'
stop_controller
refused 'Unable to contact slurm controller'
