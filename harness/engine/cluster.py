"""A command in several shards at once: as processes of this machine, or as an array of SLURM jobs,
through submitit.

A shard is the command itself with RANK and WORLD_SIZE, so it takes whole chunks and writes into
the one store that all share. One that is preempted or runs out of its time is queued again and goes
on from what is in the store. The shards' files and logs stand in the store's folder `cluster`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fsrbench.errors import FsrError

if TYPE_CHECKING:
    import submitit

ENGINES = ("here", "processes", "slurm")
DONE, FAILED, PENDING = "done", "failed", "pending"
# Seconds between two looks at the shards, and between two lines of progress.
_LOOK, _SAY = 2.0, 30.0
# Seconds that SLURM may take from its first signal to its last (KillWait, 30 by default).
_END = 300
# Looks in a row at which a job is neither queued nor done before it counts as lost: its result may
# reach a shared file system late.
_PATIENCE = 8


@dataclass(frozen=True)
class Resources:
    """What one shard gets.

    Args:
        gpus, cpus: how many.
        minutes: time limit of one start; a shard that needs more is queued again.
        partition: of SLURM; empty for its default.
    """

    gpus: int = 0
    cpus: int = 1
    minutes: int = 120
    partition: str = ""


@dataclass(frozen=True)
class Shard:
    """One shard of a command, or the whole of it (`world` 1); called on the machine that runs it.

    Args:
        words: of the command, behind `invoke`.
        folder: where it was typed.
        rank, world: which of how many.
    """

    words: tuple[str, ...]
    folder: str
    rank: int = 0
    world: int = 1

    def __call__(self) -> int:
        """Run it.

        Raises:
            RuntimeError: it failed; what it said stands in the log.
        """
        shard = {"RANK": str(self.rank), "WORLD_SIZE": str(self.world)} if self.world > 1 else {}
        cleared = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_ARRAY")}
        done = subprocess.run([sys.executable, "-m", "invoke", *self.words], cwd=self.folder,
                              env=cleared | shard)
        if done.returncode == -signal.SIGTERM and "SLURM_JOB_ID" in os.environ:
            # The job is preempted or cancelled, and its end follows: a result would count as one.
            time.sleep(_END)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}")
        return self.rank

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues when time is up or another job goes first: the same again, as the
        store keeps what is done."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def minutes(words: str) -> int:
    """Minutes of a time limit, "90", "1:30:00" or "1-12:00:00".

    Raises:
        FsrError: it is none.
    """
    days, dash, clock = words.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts + [days] * bool(dash)) or len(parts) == 2 \
            or len(parts) > 3:
        raise FsrError(f"--time {words}", "is no time limit",
                       "write minutes, H:MM:SS or D-HH:MM:SS", code=2)
    hours = [int(part) for part in parts] if len(parts) == 3 else [0, int(parts[0]), 0]
    whole = int(days or 0) * 1440 + hours[0] * 60 + hours[1] + (hours[2] > 0)
    if whole < 1:
        raise FsrError(f"--time {words}", "is no time", "give a minute or more", code=2)
    return whole


def check(engine: str, shards: int, time: str) -> None:
    """Refuse an engine that is not here, before anything is submitted.

    Raises:
        FsrError: it is unknown or cannot run here, there are no shards, or `time` is no limit.
    """
    minutes(time)
    if engine not in ENGINES:
        raise FsrError(f"--engine {engine}", "unknown", f"known: {', '.join(ENGINES)}", code=2)
    if shards < 1:
        raise FsrError(f"--shards {shards}", "is no number of shards", "give 1 or more", code=2)
    if engine == "slurm" and not shutil.which("sbatch"):
        raise FsrError("--engine slurm", "there is no sbatch on this machine",
                       "run it where jobs are submitted, or with --engine processes", code=2)
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise FsrError(f"--engine {engine}", "needs the package submitit",
                       'install it with `pip install -e ".[slurm]"`', code=2) from None


def _executor(engine: str, folder: Path, name: str, given: Resources,
              **more: str) -> submitit.Executor:
    import submitit

    executor = submitit.AutoExecutor(folder, cluster="slurm" if engine == "slurm" else "local")
    executor.update_parameters(timeout_min=given.minutes, cpus_per_task=given.cpus,
                               gpus_per_node=given.gpus, name=name)
    if engine == "slurm":
        # A preempted job is queued again by SLURM itself, and goes on in the same log.
        executor.update_parameters(
            slurm_additional_parameters={"requeue": True, **more}, slurm_use_srun=False,
            **({"slurm_partition": given.partition} if given.partition else {}))
    return executor


@dataclass(frozen=True)
class Submitted:
    """What was submitted: the shards, and with SLURM the job that makes the table of them."""

    engine: str
    shards: Sequence[submitit.Job]
    merging: submitit.Job | None = None

    @property
    def name(self) -> str:
        """As a user may tell SLURM."""
        return str(self.shards[0].job_id).partition("_")[0]


def submit(engine: str, words: Sequence[str], shards: int, given: Resources,
           store: Path) -> Submitted:
    """Submit a command in so many shards, to this folder and this store.

    Args:
        words: of the command, behind `invoke`; without an engine.
    """
    folder = store.resolve() / "cluster"
    parts = [Shard(tuple(words), os.getcwd(), rank, shards) for rank in range(shards)]
    executor, name = _executor(engine, folder, f"fsrbench-{words[0]}", given), f"{words[0]}-table"
    # An array of one job would not tell its task.
    with executor.batch():
        jobs = [executor.submit(part) for part in parts]
    if engine != "slurm":
        return Submitted(engine, jobs)
    after = Submitted(engine, jobs).name
    last = _executor(engine, folder, f"fsrbench-{name}", replace(given, gpus=0),
                     dependency=f"afterok:{after}", **{"kill-on-invalid-dep": "yes"})
    return Submitted(engine, jobs, last.submit(replace(parts[0], world=1)))


def queued(job: str) -> dict[str, str]:
    """States ("running", "pending", ...) of the tasks of a SLURM job that are still queued, by id.

    `squeue` is asked, not `sacct`, which needs an accounting data base.
    """
    said = subprocess.run(["squeue", "--noheader", "--array", "--jobs", job, "--format", "%i %T"],
                          capture_output=True, text=True)
    lines = [line.split() for line in said.stdout.splitlines()]
    return {line[0]: line[1].lower() for line in lines if len(line) == 2}


def states(found: Submitted, lost: Counter) -> list[str]:
    """State of each shard: done, failed, or what it is waiting for.

    Args:
        lost: looks in a row at which a shard was neither queued nor done, by position; kept here.
    """
    queue = queued(found.name) if found.engine == "slurm" else {}
    told = []
    for i, job in enumerate(found.shards):
        if job.paths.result_pickle.exists():
            told.append(FAILED if job.exception() else DONE)
        elif found.engine != "slurm":
            told.append(job.state.lower() if not job.done() else FAILED)
        elif job.job_id in queue:
            lost[i] = 0
            told.append(queue[job.job_id])
        else:
            lost[i] += 1
            told.append(FAILED if lost[i] > _PATIENCE else "ending")
    return told


def wait(found: Submitted, shards: int) -> None:
    """Wait for all shards and then for the job that makes their table, and say how they are on
    standard error now and then.

    Raises:
        FsrError: some failed; the first is named with its log.
    """
    lost, said, at = Counter(), "", 0.0
    while True:
        now = states(found, lost)
        count = Counter(now)
        line = ", ".join(f"{n} {state}" for state, n in sorted(count.items()))
        ended = count[DONE] + count[FAILED] == shards
        if line != said and (ended or time.monotonic() > at):
            print(f"{found.engine} {found.name}: of {shards} shards {line}", file=sys.stderr,
                  flush=True)
            said, at = line, time.monotonic() + (_SAY if said else 0)
        if ended:
            break
        time.sleep(_LOOK)
    broken = [i for i, state in enumerate(now) if state == FAILED]
    if broken:
        raise _failure(found, broken, shards)
    if found.merging:
        wait(Submitted(found.engine, [found.merging]), 1)


def _failure(found: Submitted, broken: Sequence[int], shards: int) -> FsrError:
    job = found.shards[broken[0]]
    log = job.paths.stderr
    said = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = next((line for line in reversed(said) if line.startswith("error:")), "")
    ended = (str(job.exception()).strip().splitlines()[-1]
             if job.paths.result_pickle.exists() else "killed, or its machine was lost")
    others = f", and {len(broken) - 1} more" * (len(broken) > 1)
    return FsrError(f"shard {broken[0]} of {shards}{others}",
                    f"failed ({last.removeprefix('error: ') or ended}); its log is {log}",
                    "mend that and run the same command again; what is done stays")


def leave(found: Submitted) -> None:
    """What becomes of the shards when the one who waits does not wait any longer: processes end
    with it, jobs of SLURM go on, which is said."""
    if found.engine == "slurm":
        jobs = f"{found.name} {found.merging.job_id}"
        print(f"slurm {found.name} goes on; `scancel {jobs}` ends it", file=sys.stderr)
        return
    for job in found.shards:
        job.cancel()
