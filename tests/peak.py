"""What a training takes beside what is reckoned: `python tests/peak.py BATCH`, on a processor."""

from __future__ import annotations

import sys

import numpy as np

from fsrbench.memory import keep_freed_memory


def peak() -> int:
    """The most bytes that this process ever had."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return 1024 * int(next(x for x in lines if x.startswith("VmHWM:")).split()[1])


def main(batch: int) -> None:
    """Print bytes reckoned and taken by two steps and a checkpoint of the mini IDFSR."""
    keep_freed_memory()
    from test_training_device import fake_bank

    from fsrbench.training.footprint import training_bytes
    from fsrbench.training.loop import Trainer, TrainOptions
    from fsrbench.training.tasks import _tasks, tasks

    tasks()
    person = np.sort(np.random.default_rng(0).integers(0, 12, 40)).astype(np.int64)
    task = _tasks["idfsr"](fake_bank(person, device="cpu"))
    Trainer(task, TrainOptions(steps=1, batch=2)).advance(0)
    reckoned, before = training_bytes(task, batch), peak()
    trainer = Trainer(task, TrainOptions(steps=2, batch=batch))
    for _ in range(2):
        trainer.advance(0)
    print(reckoned, peak() - before)


if __name__ == "__main__":
    main(int(sys.argv[1]))
