"""Training with accelerate: exponential average, checkpoints that survive a kill, progress, pictures.

A task registers a class under a name (`invoke train --what NAME`); the loop here is the same for all. Data are drawn by
step number, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fsrbench.bank import FaceBank
from fsrbench.errors import FsrError, unknown
from fsrbench.imaging import encode_png
from fsrbench.store import write_atomic
from fsrbench.weights import file_digest


class Task:
    """What is trained.

    Class attributes:
        batch, lr, ema: defaults of the loop.
        weights: name of what is exported, where it is not that of the training with the profile behind it.

    Attributes:
        model: the module whose parameters are optimised and averaged.
        data: name of the training data set; bank: its faces, of the training people only.
        origin: what the card says of the weights that the training starts from; empty from scratch.
    """

    batch: int = 16
    lr: float = 1e-4
    ema: float = 0.9999
    clip: float = 1.0
    weights: str | None = None
    origin: Mapping[str, object] = {}
    model: torch.nn.Module
    data: str
    bank: FaceBank

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Loss of the step's own batch."""
        raise TypeError("a task must define its loss")

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Adam without weight decay (paper Table 4)."""
        return torch.optim.Adam(self.model.parameters(), lr=lr, fused=True)

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Figures of the averaged model on held-out data, for the log."""
        return {}

    def picture(self, model: torch.nn.Module) -> np.ndarray | None:
        """A picture of what the averaged model makes, uint8 (H, W, 3)."""
        return None

    def exported(self, model: torch.nn.Module) -> torch.nn.Module:
        """The part of the model that is shipped."""
        return model

    def card(self) -> dict:
        """Facts for the model card: deviations from the paper, settings."""
        return {}


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run; None takes the task's default.

    Args:
        steps: step to stop at, counted from the very first sitting.
        cooldown: share of `steps` at the end over which the learning rate falls to a hundredth.
        minutes: between checkpoints.
        every: steps between pictures with validation.
        precision: "no" (float32) or "bf16".
    """

    steps: int
    batch: int | None = None
    lr: float | None = None
    ema: float | None = None
    cooldown: float = 0.2
    warmup: int = 200
    minutes: float = 5.0
    every: int = 5000
    precision: str = "no"
    seed: int = 0


_tasks: dict[str, Callable[..., Task]] = {}


def trainable(name: str):
    """Register a task factory; it takes the arguments that `invoke train` collects."""
    def register(factory):
        _tasks[name] = factory
        return factory
    return register


def tasks() -> dict[str, Callable[..., Task]]:
    """All registered tasks."""
    import fsrbench.registry

    fsrbench.registry.load_all()
    return dict(sorted(_tasks.items()))


def make(name: str, **arguments) -> Task:
    """Build a task by name."""
    if name not in tasks():
        raise unknown("training", name, list(_tasks))
    import inspect

    factory = _tasks[name]
    taken = inspect.signature(factory).parameters
    refused = [k for k, v in arguments.items() if v and k not in taken and k != "profile"]
    if refused:
        raise FsrError(f"--{refused[0]}", f"does not apply to {name}", code=2)
    return factory(**{k: v for k, v in arguments.items() if k in taken})


def ema_decay(step: int, decay: float) -> float:
    """Decay of the exponential average at a step: it warms up, so that early weights do not linger."""
    return min(decay, (1 + step) / (10 + step))


def learning_rate(step: int, lr: float, options: TrainOptions) -> float:
    """Linear warm-up, constant, linear cool-down to lr / 100."""
    last = max(1, int(options.steps * options.cooldown))
    left = min(1.0, (options.steps - step) / last)
    return lr * min(1.0, (step + 1) / options.warmup) * max(left, 0.01)


def _save(path: Path, state: dict) -> None:
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def origin_of(path: Path) -> dict:
    """Name, digest and, from the card beside it, the pictures seen in all trainings so far, of weights that a training starts
    from."""
    card = path.with_suffix(".json")
    known = json.loads(card.read_text()) if card.exists() else {}
    seen = known["images_seen"] + (known.get("started_from", {}).get("images_seen") or 0) if "images_seen" in known else None
    return {"weights": path.name, "sha256": file_digest(path), "images_seen": seen}


def resume(path: Path, task: Task, average, optimizer) -> tuple[int, int, float]:
    """Load a checkpoint, and where it once started from; returns steps, images and seconds trained so far (zeros where there
    is none).

    Raises:
        FsrError: the checkpoint is of another network, or `--init` names other weights than it started from: they would not
            be used, and the card would count their pictures.
    """
    if not path.exists():
        return 0, 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if task.origin and dict(task.origin) != state.get("origin", {}):
        raise FsrError(f"checkpoint {path}", f"did not start from this {task.origin['weights']}",
                       "give another --out to start anew, or leave --init out to go on", code=2)
    task.origin = state.get("origin", {})
    try:
        task.model.load_state_dict(state["model"])
        average.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise FsrError(f"checkpoint {path}", f"is of another network ({str(error).splitlines()[0][:120]})",
                       "give another --out, or delete it", code=2) from None
    return state["step"], state["images"], state["seconds"]


def _accelerator(options: TrainOptions):
    """The processes of this training.

    Raises:
        FsrError: the environment speaks of several processes, and accelerate would let each train alone.
    """
    from accelerate import Accelerator

    accelerator, world = Accelerator(mixed_precision=options.precision), os.environ.get("WORLD_SIZE", "1")
    if accelerator.num_processes != int(world):
        raise FsrError("training", f"WORLD_SIZE is {world}, but accelerate sees {accelerator.num_processes} process",
                       "start it by `accelerate launch`, with --cpu where there is no GPU", code=2)
    return accelerator


def _check_finite(name: str, value: torch.Tensor, step: int, out: Path) -> None:
    if not torch.isfinite(value):
        raise FsrError("training", f"the {name} is {value.item()} at step {step}",
                       f"resume from {out / 'checkpoint.pt'}, with a smaller --lr if it happens again")


def train(task: Task, options: TrainOptions, out: Path) -> Path:
    """Run (or resume) a training; returns the checkpoint's path.

    Several processes (`accelerate launch`, torchrun) draw a batch each and average their gradients, so `batch` is that of
    one process. Writes into `out`: checkpoint.pt (model, average, optimiser, step), log.jsonl, picture-<step>.png.
    """
    from accelerate.utils import broadcast
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    accelerator = _accelerator(options)
    batch, lr = options.batch or task.batch, options.lr or task.lr
    optimizer = task.optimizer(lr)
    if accelerator.num_processes > 1:
        for tensor in task.model.to(accelerator.device).state_dict().values():
            broadcast(tensor)
    average = copy.deepcopy(task.model).eval().requires_grad_(False)
    step, images, seconds = resume(out / "checkpoint.pt", task, average, optimizer)
    # The model is not wrapped: tasks call parts of it, and `_share_gradients` does what the wrapper would.
    model, optimizer = task.model.to(accelerator.device), accelerator.prepare(optimizer)
    average.to(accelerator.device)
    rank, world = accelerator.process_index, accelerator.num_processes
    started = saved = time.monotonic()

    def checkpoint():
        if accelerator.is_main_process:
            _save(out / "checkpoint.pt", {
                "model": model.state_dict(), "ema": average.state_dict(), "step": step, "images": images,
                "optimizer": optimizer.state_dict(), "origin": dict(task.origin),
                "seconds": seconds + time.monotonic() - started,
                "batch": batch * world})

    running = None
    with tqdm(total=options.steps, initial=step, desc="training", unit="step",
              disable=True if rank else None) as bar:
        while step < options.steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, lr, options)
            model.train()
            with accelerator.autocast():
                loss = task.loss(model, step * world + rank, batch)
            _check_finite("loss", loss, step, out)
            accelerator.backward(loss)
            _share_gradients(accelerator, model)
            # Before the step, as weights that are not finite would go into the next checkpoint.
            _check_finite("norm of the gradient", accelerator.clip_grad_norm_(model.parameters(), task.clip), step, out)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step, images = step + 1, images + batch * world
            _average(average, model, ema_decay(step, options.ema or task.ema))
            running = loss.item() if running is None else 0.99 * running + 0.01 * loss.item()
            bar.update()
            bar.set_postfix(loss=f"{running:.4f}", refresh=False)
            if time.monotonic() - saved > options.minutes * 60:
                checkpoint()
                saved = time.monotonic()
            if accelerator.is_main_process and (step % options.every == 0 or step == options.steps):
                _report(task, average, out, step, running, seconds + time.monotonic() - started, images)
    checkpoint()
    return out / "checkpoint.pt"


@torch.no_grad()
def _average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values()):
        if mine.is_floating_point():
            mine.lerp_(theirs.to(mine.dtype), 1 - decay)
        else:
            mine.copy_(theirs)


def _share_gradients(accelerator, model: torch.nn.Module) -> None:
    """Mean of the gradients over all processes."""
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    shared = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="mean")
    for gradient, mean in zip(gradients, shared.split([g.numel() for g in gradients])):
        gradient.copy_(mean.view_as(gradient))


def _report(task: Task, average: torch.nn.Module, out: Path, step: int, loss: float, seconds: float,
            images: int) -> None:
    figures = task.validate(average)
    line = {"step": step, "images": images, "hours": round(seconds / 3600, 3), "loss": round(loss, 5),
            **{name: round(value, 5) for name, value in figures.items()}}
    with open(out / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    picture = task.picture(average)
    if picture is not None:
        write_atomic(out / f"picture-{step:07d}.png", encode_png(picture))


def export(task: Task, checkpoint: Path, target: Path) -> dict:
    """Write the averaged weights as fp16 safetensors, with a model card (JSON) and the list of what they have seen.

    Returns:
        The card.

    Raises:
        FsrError: the checkpoint is missing.
    """
    from safetensors.torch import save

    from fsrbench.imaging import digest
    from fsrbench.samples import write_training_set

    if not checkpoint.exists():
        raise FsrError(f"checkpoint {checkpoint}", "missing", "train first")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    task.model.load_state_dict(state["ema"])
    shipped = task.exported(task.model.eval())
    data = save({k: v.half().contiguous() if v.is_floating_point() else v for k, v in shipped.state_dict().items()})
    people = sorted({name.split("/")[0] for name in task.bank.ids})
    seen = target.with_name(f"seen-{task.data}-{digest(' '.join(task.bank.ids).encode())[:8]}.npz")
    card = {"weights": target.name, "sha256": digest(data), "licence": "research use only, as the training data",
            "parameters": sum(p.numel() for p in shipped.parameters()), "data": task.data, "people": len(people),
            "pictures": len(task.bank), "trained_on": seen.name, "images_seen": state["images"],
            "started_from": state.get("origin", {}),
            "batch": state["batch"], "steps": state["step"], "hours": round(state["seconds"] / 3600, 2),
            "validation": {k: round(v, 4) for k, v in task.validate(task.model).items()}, **task.card()}
    if not seen.exists():
        write_training_set(seen, task.data, people, task.bank.signatures())
    write_atomic(target, data)
    write_atomic(target.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    return card


def train_named(name: str, options: TrainOptions, out: str | None, **arguments) -> Path:
    """`train` of a task by name, into `out` (default runs/NAME, with the case behind it)."""
    # One process prepares the faces; the others then find them in the store.
    with _accelerator(options).main_process_first():
        task = make(name, **arguments)
    return train(task, options, Path(out or _run_folder(name, arguments)))


def export_named(name: str, checkpoint: str | None, to: str | None, **arguments) -> str:
    """`export` of a task by name; returns the card as text."""
    from fsrbench.weights import bundled_folder

    suffix = "" if arguments.get("case") is None else f"-case{arguments['case']}"
    task = make(name, **arguments)
    target = Path(to) if to else bundled_folder() / f"{task.weights or name + '-' + arguments['profile'] + suffix}.safetensors"
    path = Path(checkpoint) if checkpoint else _run_folder(name, arguments) / "checkpoint.pt"
    return json.dumps(export(task, path, target), indent=1)


def _run_folder(name: str, arguments: dict) -> Path:
    return Path("runs") / (name if arguments.get("case") is None else f"{name}-case{arguments['case']}")
