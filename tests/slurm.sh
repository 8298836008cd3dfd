#!/usr/bin/env bash
# `--engine slurm` on a true slurmctld and slurmd, on this machine alone: Debian's packages
# slurmctld, slurmd, slurm-client and munge. Needs root. Prints one line a check; fails at the first
# that does not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
export SLURM_CONF=$work/slurm.conf PATH=$PATH:/usr/sbin OMP_NUM_THREADS=1

stop() {
    kill $(cat "$work"/*.pid 2> /dev/null) 2> /dev/null || true
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap stop EXIT

mkdir "$work"/{state,spool,munge}
chmod 755 "$work"
dd if=/dev/urandom of="$work/munge/key" bs=128 count=1 status=none
chmod 600 "$work/munge/key"
munged --force --key-file="$work/munge/key" --socket="$work/munge/socket" \
    --pid-file="$work/munged.pid" --log-file="$work/munge/log" --seed-file="$work/munge/seed"
cat > "$SLURM_CONF" << CONF
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=2
SchedulerParameters=sched_interval=2,preempt_youngest_first
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 State=UP
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF State=UP
CONF
slurmctld
slurmd
for _ in $(seq 30); do
    [ "$(sinfo -h -p low -o %t 2> /dev/null)" = idle ] && break
    sleep 1
done
sinfo

run() { # STORE WORDS...: Table 1 of three people
    local name=$1
    shift
    invoke table1 --people 3 --scale 8 --method bicubic,idfsr.pt,idfsr.ft --metric psnr,ssim \
        --batch 2 --store "$work/$name" --out "$work/$name/out" "$@"
}
equal() { # NAME: its tables are those of one process, byte for byte
    for suffix in md csv tex svg; do
        cmp "$work/one/out/table1.$suffix" "$work/$1/out/table1.$suffix"
    done
    echo "ok: $1 gives the bytes of one process"
}
running() { # how many tasks of the newest array run
    squeue -h -t RUNNING -o %F | sort | uniq -c | awk '{ print $1 }' | tail -n 1
}

run one > /dev/null
run eight --engine slurm --shards 8 > "$work/said"
diff "$work/said" <(cat "$work/eight/out/table1.md"; echo)
equal eight

# A shard is killed: it is named with its log, and the same command ends the work.
run killed --engine slurm --shards 4 > /dev/null 2> "$work/killed.err" &
command=$!
until [ "$(running)" = 4 ]; do sleep 0.2; done
job=$(squeue -h -t RUNNING -o %F | head -n 1)
scancel --signal=KILL --full "${job}_1"
if wait $command; then
    echo "failed: a killed shard was not noticed"
    exit 1
fi
grep "error: shard 1 of 4: failed (killed, or its machine was lost); its log is" "$work/killed.err"
run killed --engine slurm --shards 4 > /dev/null
equal killed

# A partition of more weight takes the machine: shards are queued again and go on.
run preempted --engine slurm --shards 4 --partition low > /dev/null 2> "$work/preempted.err" &
command=$!
until [ "$(running)" = 4 ]; do sleep 0.2; done
sbatch -p high -n 8 -o "$work/high.log" --wrap "sleep 3" > /dev/null
until squeue -h -p high -t RUNNING -o %i | grep -q .; do sleep 0.2; done
squeue -h -r -p low -t PENDING -o "%i %T" | grep -q . || { echo "failed: nothing gave way"; exit 1; }
wait $command || { cat "$work/preempted.err"; exit 1; }
equal preempted

# Two arrays on one store.
half() { run both --engine slurm --shards 2 --method "$1" > /dev/null 2>&1; }
half bicubic,idfsr.pt &
first=$!
half idfsr.ft,idfsr.pt
wait $first
run both > /dev/null
equal both
