"""Several trainings on one GPU at once: one lane each, every step a CUDA graph on a stream of its
own.

Small networks wait for launches and fill a fraction of the GPU; side by side they fill it. A lane
is a chain of trainings, each of which starts from what the one before has exported. `python -m
fsrbench.training.side_by_side --help`.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import traceback
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fsrbench.training.bank import Bank, read_bank
from fsrbench.training.export import export_state
from fsrbench.training.loop import Trainer, TrainOptions
from fsrbench.training.tasks import Stage, Task, held_out, origin_of, tasks

# One step is captured at a time: a capture makes the allocator and the random generators work for
# it.
_CAPTURE = threading.Lock()
# Seconds between two lines of a lane's log.
_EVERY = 20.0
# CUDA's priority of a stream; lower is sooner.
_URGENT = -5


@dataclass(frozen=True)
class Leg:
    """One training of a lane.

    Args:
        name: of what is exported; make: builds the task from the file of the leg before, or None.
        images: to be seen; where time runs out before, a leg has the share of its lane's time that
            it has of its lane's images.
        urgent: whether the GPU serves it before the others; for the lane that all wait for.
    """

    name: str
    make: Callable[[Bank, Path | None], Task]
    images: int
    urgent: bool = False


def run_leg(leg: Leg, bank: Bank, before: Path | None, options: TrainOptions,
            ends: tuple[float, float], out: Path) -> Path:
    """Train one leg and export it.

    Args:
        ends: when it began and when it must be over, by `time.monotonic`.

    Returns:
        The exported file.
    """
    began, over = ends
    with _CAPTURE:
        task = leg.make(bank, before)
        trainer = Trainer(task,
                          replace(options, steps=-(-leg.images // (options.batch or task.batch))))
        if trainer.stream is not None:
            trainer.stream = torch.cuda.Stream(trainer.device, priority=_URGENT * leg.urgent)
            if task.capturable:
                trainer.capture()
    started = said = time.monotonic()
    # A leg whose time the ones before have used up still ends.
    allowed = max(over - began, 1.0)
    while (progress := max(trainer.options.progress(trainer.step, 0.0),
                           (time.monotonic() - began) / allowed)) < 1:
        trainer.advance(progress)
        if (now := time.monotonic()) - said > _EVERY:
            with torch.cuda.stream(trainer.stream):
                line = {"name": leg.name, "seconds": round(now - started, 1), "step": trainer.step,
                        "images": trainer.images,
                        "per_second": round(trainer.images / (now - started)),
                        "loss": round(trainer.loss.item(), 5),
                        "held_out": round(held_out(task, trainer.ema, 128), 5),
                        "skipped": int(trainer.bad.item())}
            _say(out, line)
            said = time.monotonic()
    trainer.seconds = time.monotonic() - started
    with torch.cuda.stream(trainer.stream):
        card = export_state(task, trainer.state(), out / f"{leg.name}.safetensors")
    _say(out, {"name": leg.name, "done": True, "seconds": round(trainer.seconds, 1),
               "images": trainer.images, "skipped": int(trainer.bad.item()), **card["validation"]})
    return out / f"{leg.name}.safetensors"


def _say(out: Path, line: dict) -> None:
    print(json.dumps(line), flush=True)
    with open(out / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def run_lane(legs: Sequence[Leg], bank: Bank, options: TrainOptions, seconds: float,
             out: Path) -> None:
    """Train the legs one after the other; one that fails is told, and those behind it are not
    run."""
    started, before, spent = time.monotonic(), None, 0.0
    total = sum(leg.images for leg in legs)
    for leg in legs:
        spent += leg.images
        try:
            before = run_leg(leg, bank, before, options,
                             (time.monotonic(), started + seconds * spent / total), out)
        except Exception:  # the other lanes go on, and this one is told of
            _say(out, {"name": leg.name, "failed": traceback.format_exc().splitlines()[-8:]})
            return


def run(lanes: Sequence[Sequence[Leg]], bank: Bank, options: TrainOptions, seconds: float,
        out: Path) -> None:
    """Train all lanes side by side for at most so many seconds."""
    out.mkdir(parents=True, exist_ok=True)
    threads = [threading.Thread(target=run_lane, args=(lane, bank, options, seconds, out))
               for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def zoo(images: int, variants: int, init: Path | None = None,
        urgent: Container[str] = ()) -> list[list[Leg]]:
    """All trainings that take part, in lanes, with equal budgets: a method's networks together see
    `images`.

    Args:
        variants: images of each variant of an ablation.
        init: folder of exported files to go on from. What these have seen counts: the first stage
            of a lane that goes on sees what is missing, those behind it see their share.
        urgent: names of exported files whose lanes the GPU serves first.
    """
    lanes: dict[str, list[tuple[Stage, type[Task]]]] = {}
    for task in tasks().values():
        for stage in task.stages:
            lanes.setdefault(stage.lane, []).append((stage, task))
    made = [_lane(sorted(lane, key=lambda one: one[0].order), images, variants, init, urgent)
            for lane in lanes.values()]
    return sorted((lane for lane in made if lane), key=lambda lane: not lane[0].urgent)


def _lane(stages: list[tuple[Stage, type[Task]]], images: int, variants: int, init: Path | None,
          urgent: Container[str]) -> list[Leg]:
    """The legs of a lane; of one that goes on, those that can."""
    wanted = {stage.weights: round((variants if stage.variant else images) * stage.budget)
              for stage, _ in stages}
    again = [one for one in stages if init and one[0].goes_on
             and (init / f"{one[0].goes_on}.safetensors").exists()]
    if again:
        seen = sum(origin_of(init / f"{name}.safetensors")["images_seen"] for name in wanted
                   if (init / f"{name}.safetensors").exists())
        first, behind = again[0][0].weights, [stage.weights for stage, _ in again[1:]]
        wanted[first] = max(0, sum(wanted.values()) - seen - sum(wanted[one] for one in behind))
        stages = [one for one in again if wanted[one[0].weights]]
    together = any(stage.weights in urgent for stage, _ in stages)

    def leg(stage: Stage, task: type[Task], first: bool) -> Leg:
        def make(bank: Bank, before: Path | None) -> Task:
            given = {stage.link: str(before)} if before and stage.link else {}
            if again and first:
                given = {"init": str(init / f"{stage.goes_on}.safetensors")}
                if stage.link not in ("", "init"):
                    given[stage.link] = str(init / f"{stage.linked}.safetensors")
            return task(bank, device=bank.train.images.device, **given, **stage.arguments)
        return Leg(stage.weights, make, wanted[stage.weights], together)
    return [leg(*one, first=i == 0) for i, one in enumerate(stages)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="bank file, made by `invoke bank`")
    parser.add_argument("--out", required=True,
                        help="folder of the exported weights, cards and log.jsonl")
    parser.add_argument("--seconds", type=float, default=540, help="at most so long (default 540)")
    parser.add_argument("--images", type=int, default=600_000,
                        help="of a method's networks together (default 600000)")
    parser.add_argument("--variants", type=int, default=120_000,
                        help="of each variant of the ablation (default 120000)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (default 32)")
    parser.add_argument("--init", type=Path,
                        help="folder of exported weights to go on from; what they have seen counts")
    parser.add_argument("--urgent", default="",
                        help="names of exported files, comma separated, whose lanes the GPU serves "
                             "first")
    parser.add_argument("--only",
                        help="names of exported files, comma separated, whose lanes are run "
                             "(default all)")
    parser.add_argument("--device", default="cuda", help="default cuda")
    given = parser.parse_args(arguments)
    wanted = set(given.only.split(",")) if given.only else None
    lanes = [lane for lane in zoo(given.images, given.variants, given.init,
                                  given.urgent.split(","))
             if not wanted or wanted & {leg.name for leg in lane}]
    options = TrainOptions(batch=given.batch, precision="bf16", cooldown=0.3)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    run(lanes, read_bank(Path(given.data), given.device), options, given.seconds, Path(given.out))


if __name__ == "__main__":
    main()
