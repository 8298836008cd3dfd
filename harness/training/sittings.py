"""What one sitting of a training has to do with the world: processes, requests to stop, and the
checkpoint that it goes on from."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from fsrbench.errors import FsrError, reason


@contextlib.contextmanager
def asked_to_stop(alone: bool = True) -> Iterator[Callable[[], bool]]:
    """Context in which the first SIGINT or SIGTERM is only noted, so that the step under way ends
    and is kept; a second one ends the process. Gives what says whether one came.

    Args:
        alone: whether no other process takes part. Of several each would end at a step of its own,
            and wait for gradients of one that is gone; so these end at once.
    """
    noted: list[int] = []
    if not alone or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_checkpoint(path: Path, place: torch.device | str = "cpu",
                    remedy: str = "delete it to start anew, or give another --out") -> dict:
    """What a checkpoint of a training holds.

    Args:
        remedy: what to do about one that cannot be read.

    Raises:
        FsrError: it is missing, or damaged.
    """
    if not path.exists():
        raise FsrError(f"checkpoint {path}", "missing", "train first")
    try:
        return torch.load(path, map_location=place, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    # torch has no exception of its own for a file that is cut off, empty or something else.
    except Exception as error:
        # PyTorch's own words are advice to programmers: to trust the file.
        cause = ("it is none, or holds code" if "Weights only load failed" in str(error)
                 else reason(error))
        raise FsrError(f"checkpoint {path}", f"cannot be read ({cause})", remedy, code=2) from None


def say_changes(known: dict, now: dict, step: int) -> None:
    """Note what is trained otherwise from this step on."""
    for name in (name for name in now if name in known and known[name] != now[name]):
        print(f"note: {name} {now[name]} from step {step} on, {known[name]} before",
              file=sys.stderr)


def processes(precision: str = "no"):
    """The processes of this training.

    Raises:
        FsrError: the environment speaks of several processes, and accelerate would let each train
            alone.
    """
    from accelerate import Accelerator

    accelerator, world = Accelerator(mixed_precision=precision), os.environ.get("WORLD_SIZE", "1")
    if accelerator.num_processes != int(world):
        raise FsrError("training",
                       f"WORLD_SIZE is {world}, but accelerate sees {accelerator.num_processes} "
                       f"process",
                       "start it by `torchrun --nproc_per_node N -m invoke train ...`, with "
                       "ACCELERATE_USE_CPU=true where there is no GPU", code=2)
    return accelerator
