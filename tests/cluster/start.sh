# shellcheck shell=bash
# A SLURM cluster of one node on this machine, as root on Debian or Ubuntu: `start_cluster DIRECTORY` keeps all its
# state there and exports SLURM_CONF; `stop_cluster` ends it. Sourced by tests/cluster/slurm.sh.

# Each daemon stays in the foreground of a background process, so that its process id is known.
start_cluster() {
  state=$1 node=$(hostname -s)
  mkdir -p "$state"/{ctld,spool,munge}
  chmod 700 "$state/munge"
  head -c 1024 /dev/urandom >"$state/munge/key"
  chmod 600 "$state/munge/key"
  munged --foreground --force --key-file="$state/munge/key" --socket="$state/munge.socket" \
    --pid-file="$state/munge/pid" --log-file="$state/munge/log" --seed-file="$state/munge/seed" 2>"$state/munged.err" &
  daemons=($!)
  cat >"$state/slurm.conf" <<CONF
ClusterName=hourglass
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthInfo=socket=$state/munge.socket
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/spool
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
KillWait=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$state/slurm.conf
  patience "munged does not start" [ -S "$state/munge.socket" ]
  start_controller
  slurmd -D 2>"$state/slurmd.err" &
  daemons+=($!)
  patience "SLURM does not start" idle_node
}

idle_node() { [ "$(sinfo -h -o %T 2>/dev/null)" = idle ]; }

# patience COMPLAINT COMMAND...: wait until the command succeeds, two minutes at most.
patience() {
  local end=$((SECONDS + 120))
  until "${@:2}"; do
    [ "$SECONDS" -lt "$end" ] || die "$1: $(tail -qn 1 "$state"/*.err "$state"/*.log 2>/dev/null | paste -sd ' ')"
    sleep 0.2
  done
}

start_controller() {
  slurmctld -D 2>"$state/slurmctld.err" &
  controller=$!
}

stop_controller() {
  kill "$controller" 2>/dev/null && wait "$controller" || true
}

stop_cluster() {
  scancel --user=root 2>/dev/null || true
  for _ in {1..50}; do # a job that ends needs its daemons
    [ -n "$(squeue --noheader 2>/dev/null)" ] || break
    sleep 0.2
  done
  stop_controller
  kill "${daemons[@]}" 2>/dev/null && wait "${daemons[@]}" || true
}
