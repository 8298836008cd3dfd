"""What a run is asked for: options, cells, and this process's share of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fsrbench.core import Method, Profile
from fsrbench.engine.fixed import Fixed
from fsrbench.errors import FsrError
from fsrbench.metrics import Metric

# Of networks; with "compiled" their kernels are fused by torch.compile, which takes a minute first.
PRECISIONS = ("float32", "bf16", "fp16", "bf16-compiled")
# What a record's landmarks are called where a method was given those of the ground truth.
TRUTH = "ground truth"


@dataclass(frozen=True)
class Options:
    """What a run is asked for.

    Args:
        profile: "mini" or "paper"; data: `--data`; scales; methods: names; metrics: ids.
        people: how many, None for all drawn; seed; batch: samples in a chunk.
        precision: of networks during restoration, one of PRECISIONS.
        lenient: leave out methods whose weights are missing, instead of refusing to run.
        fixed: halves and references that are not to be drawn.
        retry: try again what failed in an earlier run; otherwise a failure is a result and is kept.
    """

    profile: Profile
    data: str
    scales: tuple[int, ...]
    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    people: int | None
    seed: int
    batch: int
    degradation: str = "bicubic"
    precision: str = "float32"
    lenient: bool = False
    retry: bool = False
    fixed: Fixed = Fixed()


@dataclass(frozen=True)
class Cell:
    """One method at one scale."""

    method: Method
    scale: int


def shard_of_environment() -> tuple[int, int]:
    """(rank, world) from RANK/WORLD_SIZE or SLURM_ARRAY_TASK_ID/COUNT; (0, 1) outside both.

    Raises:
        FsrError: only half of a pair is set, or the rank is not below the world.
    """
    for rank_name, world_name in (("RANK", "WORLD_SIZE"),
                                  ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")):
        rank, world = os.environ.get(rank_name), os.environ.get(world_name)
        if rank is None and world is None:
            continue
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN",
                                   0)) if rank_name.startswith("SLURM") else 0
        try:
            rank, world = int(rank or "") - first, int(world or "")
        except ValueError:
            raise FsrError("shard",
                           f"{rank_name}={rank!r}, {world_name}={world!r} are not two numbers",
                           "set both or neither", code=2) from None
        if not 0 <= rank < world:
            raise FsrError("shard", f"{rank_name}={rank} is not below {world_name}={world}", "",
                           code=2)
        return rank, world
    return 0, 1
