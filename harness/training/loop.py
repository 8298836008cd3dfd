"""The training loop: EMA, schedules by steps or by time, checkpoints that survive a kill, held-out
figures as it goes.

A task registers a class under a name (`invoke train --what NAME`); the loop is the same for all, on
a processor, on a GPU (where the whole step is one CUDA graph) and over several processes. Data are
drawn by step number, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import copy
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fsrbench.engine.store import write_atomic
from fsrbench.errors import FsrError, reason
from fsrbench.imaging import encode_png
from fsrbench.progress import progress as shown
from fsrbench.training.draws import Draws
from fsrbench.training.footprint import refuse_too_large
from fsrbench.training.sittings import asked_to_stop, processes, read_checkpoint, say_changes
from fsrbench.training.tasks import Task

# Steps in eager mode before a CUDA graph is captured; libraries choose their algorithms in them.
_WARM = 3
# Steps that the host may be ahead of the device.
_AHEAD = 2


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run; None takes the task's default.

    Args:
        steps: step to stop at, counted from the very first sitting; None to go by `minutes` alone.
        minutes: of training, over all sittings; the learning rate follows whichever of the two is
            further on.
        cooldown: share of the run at the end over which the learning rate falls to a hundredth.
        saves: minutes between checkpoints.
        every: steps between images with validation.
        precision: "no" (float32) or "bf16".
        compile: whether the network is compiled by torch.compile.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int | None = None
    lr: float | None = None
    ema: float | None = None
    cooldown: float = 0.2
    warmup: int = 200
    saves: float = 5.0
    every: int = 5000
    precision: str = "no"
    compile: bool = False

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is over, 1 at its end."""
        return max(step / self.steps if self.steps else 0.0, seconds / 60 / self.minutes
                   if self.minutes else 0.0)


def ema_decay(step: int, decay: float) -> float:
    """Decay of the EMA at a step: it warms up, so that early weights do not linger."""
    return min(decay, (1 + step) / (10 + step))


def learning_rate(step: int, progress: float, lr: float, options: TrainOptions) -> float:
    """Linear warm-up, constant, linear cool-down to lr / 100."""
    left = min(1.0, (1 - progress) / max(options.cooldown, 1e-9))
    return lr * min(1.0, (step + 1) / options.warmup) * max(left, 0.01)


class Trainer:
    """A task's model, its EMA and its optimiser, and one step of them.

    Args:
        share: averages a flat gradient over all processes; None where there is one.
        rank, world: this process and how many there are; each draws a batch of its own.

    Attributes:
        step, images, seconds: trained so far, over all sittings.
        loss: running mean of what the task shows, a tensor; bad: steps whose gradient was not
            finite, and which were skipped.
    """

    def __init__(self, task: Task, options: TrainOptions,
                 share: Callable[[torch.Tensor], torch.Tensor] | None = None,
                 rank: int = 0, world: int = 1):
        self.task, self.options, self.share, self.rank, self.world = (task, options, share, rank,
                                                                      world)
        self.device = torch.device(task.device)
        self.model, self.batch = task.model, options.batch or task.batch
        self.lr, self.decay = options.lr or task.lr, options.ema or task.ema
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        on_gpu = self.device.type == "cuda"
        self.rate = torch.tensor(self.lr, device=self.device) if on_gpu else self.lr
        self.optimizer = task.optimizer(self.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        if not getattr(self.optimizer, "_step_supports_amp_scaling", False):
            raise TypeError("the optimiser must be a fused one, which can skip a step")
        self.draws = Draws(self.device)
        self.weight, self.loss, self.bad = (torch.zeros((), device=self.device) for _ in range(3))
        self.loss.fill_(torch.nan)
        self.step, self.images, self.seconds, self.shared = 0, 0, 0.0, 0.0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = (torch.cuda.Stream(self.device) if on_gpu and torch.cuda.is_available()
                       else None)
        self.behind: list = []
        self.call = torch.compile(task.loss) if options.compile else task.loss

    # --- one step ---------------------------------------------------------------------------------

    def body(self) -> None:
        """Everything that the device does in a step; waits for nothing, so that it can be
        captured."""
        with torch.no_grad():
            example = self.task.examples(self.draws, self.task.bank.train, self.batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision
                            == "bf16"):
            loss, shown = self.call(self.model, example)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.share is not None:
            self._share(gradients)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        bad = ~(torch.isfinite(norm) & torch.isfinite(loss.detach()))
        # Fused optimisers divide by the one and skip the step by the other: no weight ever sees a
        # gradient that is not finite.
        self.optimizer.grad_scale = (norm / self.task.clip).clamp(min=1.0).nan_to_num(1.0)
        self.optimizer.found_inf = bad.float()
        self.optimizer.step()
        with torch.no_grad():
            self.task.after(self.model, example, self.draws)
            self._average()
            shown = shown.detach().float()
            moved = torch.where(torch.isnan(self.loss), shown, 0.99 * self.loss + 0.01 * shown)
            self.loss.copy_(torch.where(bad, self.loss, moved))
            self.bad += bad

    def _share(self, gradients: list[torch.Tensor]) -> None:
        """Mean of the gradients over all processes, and with it how far they are."""
        flat = self.share(torch.cat([*(g.flatten() for g in gradients),
                                     gradients[0].new_full((1,), self.shared)]))
        for gradient, mean in zip(gradients, flat[:-1].split([g.numel() for g in gradients])):
            gradient.copy_(mean.view_as(gradient))
        self.shared = float(flat[-1])

    def _average(self) -> None:
        mine, theirs = ([v for v in m.state_dict().values()] for m in (self.ema, self.model))
        floats = [i for i, v in enumerate(mine) if v.is_floating_point()]
        moved = torch._foreach_sub([theirs[i] for i in floats], [mine[i] for i in floats])
        torch._foreach_mul_(moved, self.weight)
        torch._foreach_add_([mine[i] for i in floats], moved)
        for i, value in enumerate(mine):
            if not value.is_floating_point():
                value.copy_(theirs[i])

    def advance(self, progress: float) -> None:
        """One step at the learning rate that belongs to this share of the run."""
        self.model.train()
        rate = learning_rate(self.step, progress, self.lr, self.options)
        with torch.cuda.stream(self.stream):  # of None does nothing
            if isinstance(self.rate, torch.Tensor):
                self.rate.fill_(rate)
            else:
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
            self.weight.fill_(1 - ema_decay(self.step + 1, self.decay))
            self.draws.seed(self.task.seed, self.task.name, self.step * self.world + self.rank)
            if self.graph is not None:
                self.graph.replay()
            else:
                self.body()
            self._wait()
        self.step, self.images = self.step + 1, self.images + self.batch * self.world

    def _wait(self) -> None:
        """Let the device catch up to a few steps behind."""
        if self.stream is None:
            return
        event = torch.cuda.Event(blocking=True)
        event.record(self.stream)
        self.behind.append(event)
        if len(self.behind) > _AHEAD:
            self.behind.pop(0).synchronize()

    def capture(self) -> None:
        """Turn the step into a CUDA graph; weights, optimiser and EMA stay as they are."""
        kept = {name: value.clone() for name, value in self._tensors().items()}
        self.model.train()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            for _ in range(_WARM):
                self.body()
            for name, value in self._tensors().items():
                value.copy_(kept[name]) if name in kept else value.zero_()
        self.stream.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.draws.generator)
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.body()
        self.stream.synchronize()

    def _tensors(self) -> dict[str, torch.Tensor]:
        """All that a step changes, by name."""
        found = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        found |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        found |= {f"task.{k}": v for k, v in self.task.tensors().items()} | {"loss": self.loss,
                                                                             "bad": self.bad}
        for i, state in enumerate(self.optimizer.state.values()):
            found |= {f"optimizer.{i}.{k}": v for k, v in state.items()
                      if isinstance(v, torch.Tensor)}
        return found

    # --- checkpoints ------------------------------------------------------------------------------

    def state(self) -> dict:
        """What a checkpoint holds."""
        return {"model": self.model.state_dict(), "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "task": self.task.tensors(), "step": self.step, "images": self.images,
                "seconds": self.seconds,
                "batch": self.batch * self.world, "origin": dict(self.task.origin),
                "facts": self.task.facts(),
                "recipe": {**asdict(self.options), "lr": self.lr, "ema": self.decay,
                           "device": self.device.type}}

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically."""
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        write_atomic(path, buffer.getbuffer())

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, where there is one.

        Raises:
            FsrError: it is of another training, network, data set, seed or profile, or started from
                other weights: they would not be used, and the card would tell of what was not seen;
                or it is damaged.
        """
        if not path.exists():
            return
        state = read_checkpoint(path, self.device)
        known, wanted = state.get("facts", {}), self.task.facts()
        for name, value in wanted.items():
            if known.get(name) != value:
                raise FsrError(f"checkpoint {path}", f"is of {name} {known.get(name)}, not {value}",
                               "give another --out to start anew, or the arguments that it was "
                               "started with", code=2)
        if self.task.origin and dict(self.task.origin) != state.get("origin", {}):
            raise FsrError(f"checkpoint {path}",
                           f"did not start from this {self.task.origin['weights']}",
                           "give another --out to start anew, or leave --init out to go on", code=2)
        self.task.origin = state.get("origin", {})
        try:
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, value in self.task.tensors().items():
                value.copy_(state["task"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise FsrError(f"checkpoint {path}", f"is of another network ({reason(error)})",
                           "give another --out, or delete it", code=2) from None
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.step, self.images, self.seconds = state["step"], state["images"], state["seconds"]
        if not self.rank:
            mine = {"batch": self.batch * self.world, "lr": self.lr, "ema": self.decay,
                    "precision": self.options.precision}
            say_changes({**state.get("recipe", {}), "batch": state["batch"]}, mine, self.step)

    def check(self, out: Path) -> None:
        """Stop where gradients are not finite.

        Raises:
            FsrError: one was not; its step was skipped, and the weights are whole.
        """
        if self.bad.item():
            raise FsrError("training", f"the gradient is not finite near step {self.step - 1}",
                           f"resume from {out / 'checkpoint.pt'}, with --precision no or a smaller "
                           f"--lr if it happens again")

    def report(self, out: Path) -> dict:
        """Figures of the EMA on held-out faces into log.jsonl, and an image of what it makes."""
        line = {"step": self.step, "images": self.images, "hours": round(self.seconds / 3600, 3),
                "loss": round(self.loss.item(), 5),
                **{name: round(value, 5) for name, value in self.task.validate(self.ema).items()}}
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        image = self.task.grid(self.ema)
        if image is not None:
            write_atomic(out / f"grid-{self.step:07d}.png", encode_png(image))
        return line


def train(task: Task, options: TrainOptions, out: Path) -> Path:
    """Run (or resume) a training; returns the checkpoint's path.

    Several processes (`accelerate launch`, torchrun) draw a batch each and average their gradients,
    so `batch` is that of one process. Writes into `out`: checkpoint.pt, log.jsonl,
    grid-<step>.png. Without a terminal a line a minute is printed.

    Raises:
        FsrError: neither steps nor minutes are given, the memory is too small, or a gradient is not
            finite.
        KeyboardInterrupt: it was asked to stop, by SIGINT or SIGTERM; one process keeps
            the step under way.
    """
    if not (options.steps or options.minutes):
        raise FsrError("training", "has no end", "give --steps or --minutes", code=2)
    accelerator = processes(options.precision)
    refuse_too_large(task, options.batch or task.batch, options.precision)
    out.mkdir(parents=True, exist_ok=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    share = None if world == 1 else (lambda flat: accelerator.reduce(flat, reduction="mean"))
    if world > 1:
        from accelerate.utils import broadcast

        for tensor in task.model.state_dict().values():
            broadcast(tensor)
    path = out / "checkpoint.pt"
    try:
        return _trained(Trainer(task, options, share, rank, world), path)
    except torch.OutOfMemoryError as error:
        raise FsrError("training", f"the GPU's memory is too small for batch "
                       f"{options.batch or task.batch} ({reason(error)})",
                       "give a smaller --batch; the same command goes on from the last checkpoint"
                       ) from None


def _trained(trainer: Trainer, path: Path) -> Path:
    task, options, out, rank = trainer.task, trainer.options, path.parent, trainer.rank
    trainer.resume(path)
    if trainer.step and options.progress(trainer.step, trainer.seconds) >= 1:
        if not rank:
            print(f"step {trainer.step} is there already: nothing is left to train")
        return path
    if trainer.step and not rank:
        print(f"going on from step {trainer.step}, {trainer.images} images, "
              f"{trainer.seconds / 60:.1f} min", flush=True)
    if trainer.stream is not None and task.capturable and trainer.world == 1:
        trainer.capture()
    before, started = trainer.seconds, time.monotonic()
    saved = said = started
    left = f" for {options.minutes - before / 60:.3g} min" if options.minutes else ""
    with asked_to_stop(trainer.world == 1) as stopped, \
            shown(total=options.steps, initial=trainer.step, desc=f"training{left}", unit="steps",
                  quiet=rank > 0) as bar:
        while (progress := _progress(trainer)) < 1 and not stopped():
            trainer.advance(progress)
            now = time.monotonic()
            trainer.seconds = before + now - started
            bar.update()
            if trainer.stream is None or trainer.step % 100 == 0:
                trainer.check(out)
            if now - saved > options.saves * 60:
                if not rank:
                    trainer.save(path)
                saved = now
            if now - said > 60 or not bar.disable and trainer.step % 20 == 0:
                bar.set_postfix(loss=f"{trainer.loss.item():.4f}", refresh=False)
                if bar.disable and not rank:
                    print(f"step {trainer.step}, {trainer.images} images, loss "
                          f"{trainer.loss.item():.4f}", flush=True)
                said = now
            if not rank and trainer.step % options.every == 0 and _progress(trainer) < 1:
                trainer.report(out)
    trainer.check(out)
    if not rank:
        trainer.save(path)
    if progress < 1:
        raise KeyboardInterrupt
    if not rank:
        print(", ".join(f"{name} {value}" for name, value in trainer.report(out).items()))
    return path


def _progress(trainer: Trainer) -> float:
    """Share of the run that is over; the mean of all processes where time counts, so that they stop
    together."""
    own = trainer.options.progress(trainer.step, trainer.seconds)
    if trainer.world == 1 or not trainer.options.minutes:
        return own
    agreed, trainer.shared = trainer.shared, own
    return agreed
