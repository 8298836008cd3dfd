"""What is trained: the base class of trainings, their registry, and the export of what they
made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fsrbench.engine.store import Store
from fsrbench.errors import FsrError, unknown
from fsrbench.text import read_json
from fsrbench.training.bank import Bank, open_bank, read_bank
from fsrbench.training.draws import Draws
from fsrbench.weights.catalogue import file_digest
from fsrbench.weights.networks import device as default_device

# Tensors of a batch by name; `loss` may leave in it what `after` needs.
Example = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Stage:
    """A training's place where all networks are trained side by side.

    Args:
        weights: of what is exported, a name in the catalogue.
        lane: of the trainings that follow one another; order: in the lane.
        budget: share of the images that a method's networks see together.
        link: argument that takes what the stage before has exported; empty for one that starts
            anew.
        linked: name of that, where it is not the network itself and is needed to go on, too.
        goes_on: name of exported weights that more training starts from; empty for a stage that
            is over once those behind it are trained.
        variant: an ablation's, which has a budget of its own.
        arguments: of the task.
    """

    weights: str
    lane: str
    order: int = 0
    budget: float = 1.0
    link: str = "init"
    linked: str = ""
    goes_on: str = ""
    variant: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict)


def _given(init: str) -> Path:
    path = Path(init).expanduser()
    if not path.is_file():
        raise FsrError(f"--init {init}", "is a folder" if path.is_dir() else "no such file",
                       "give a file of weights", code=2)
    with path.open("rb") as stream:
        begin = stream.read(2)
    # PyTorch writes zip files, and wrote pickled ones.
    if path.suffix not in (".safetensors", ".onnx") and begin != b"PK" and begin[:1] != b"\x80":
        raise FsrError(f"--init {init}", "is no file of weights",
                       "give one of `invoke export` or a checkpoint that --help names", code=2)
    return path


class Task:
    """A training on a bank of faces: subclass, register it with `@trainable`.

    `examples`, `loss` and `after` work on the device of the model and wait for nothing (no
    `.item()`, no shape that depends on a value), so that a whole step can be captured in a CUDA
    graph; a test runs every one of them on a fake CUDA device.

    Class attributes:
        name: of the draws; batch, lr, ema, clip: defaults of the loop.
        weights: name of what is exported, where it is not that of the training with the profile
            behind it.
        profiles: that it can be trained under.
        capturable: whether a step can be a CUDA graph.
        stages: of the networks that are trained side by side, those of this training.

    Args:
        bank: faces, on the device; device: where the model is.
        seed: of the draws and of the first weights.
        init: exported weights to start from.

    Attributes:
        model: the module whose parameters are optimised and averaged.
        origin: what the card says of the weights that the training starts from; empty from scratch.
    """

    name: str = ""
    batch: int = 32
    lr: float = 4e-4
    ema: float = 0.999
    clip: float = 1.0
    weights: str | None = None
    profiles: tuple[str, ...] = ("mini",)
    stages: tuple[Stage, ...] = ()
    capturable: bool = True
    model: torch.nn.Module

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        self.bank, self.device, self.seed, self.origin = bank, torch.device(device), seed, {}
        torch.manual_seed(seed)
        with self.device:
            self.model = self.network()
        if init:
            self.start_from(_given(init))

    def network(self) -> torch.nn.Module:
        """The untrained network."""
        raise TypeError("a task must build its network")

    def start_from(self, path: Path) -> None:
        """Take weights of an exported file, and what they have seen."""
        from fsrbench.weights.networks import load_strict, read_state

        self.origin = origin_of(path)
        load_strict(self.model, read_state(path), str(path)).requires_grad_(True)

    def examples(self, draws: Draws, faces, n: int) -> Example:
        """What a step is about: n examples, drawn."""
        raise TypeError("a task must draw its examples")

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective, and what is shown of it (the part that compares between recipes)."""
        raise TypeError("a task must define its loss")

    def after(self, model: torch.nn.Module, example: Example, draws: Draws) -> None:
        """Whatever follows the optimiser's step."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """State of the task itself that changes from step to step, changed in place only."""
        return {}

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Adam without weight decay (paper Table 4); fused, so that a step can be skipped on the
        device."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=lr, fused=True, capturable=self.device.type
                                == "cuda")

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Figures of the EMA on held-out people, for log and card."""
        return {"held_out": held_out(self, model)}

    def grid(self, model: torch.nn.Module) -> np.ndarray | None:
        """An image of what the EMA makes, uint8 (H, W, 3)."""
        return None

    def exported(self, model: torch.nn.Module) -> torch.nn.Module:
        """The part of the model that is shipped."""
        return model

    def facts(self) -> dict:
        """What a checkpoint must agree in to be gone on from."""
        return {"what": self.name, "data": self.bank.origin.data, "faces": self.bank.origin.digest,
                "seed": self.seed, "profile": self.bank.origin.profile}

    def card(self) -> dict:
        """Facts for the model card: configuration, deviations from the authors' training."""
        return {}


@torch.no_grad()
def held_out(task: Task, model: torch.nn.Module, n: int = 256) -> float:
    """Mean of what the task shows on n faces of held-out people, always the same ones with the same
    noise."""
    draws, found = Draws(task.device), []
    for i in range(math.ceil(n / 64)):
        example = task.examples(draws.seed("held out", task.name, i), task.bank.held, min(64, n))
        found.append(task.loss(model, example)[1].float())
    return float(torch.stack(found).mean())


def sheet(rows: list[torch.Tensor]) -> np.ndarray:
    """Rows of images (N, 3, S, S) in [-1, 1] as one uint8 image."""
    grid = torch.cat([torch.cat(list((row.float() + 1) / 2), -1) for row in rows], -2)
    return (grid.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()


_tasks: dict[str, Callable[..., Task]] = {}


def trainable(name: str):
    """Register a task class under the name that `invoke train --what` takes."""
    def register(factory):
        factory.name = name
        _tasks[name] = factory
        return factory
    return register


def tasks() -> dict[str, Callable[..., Task]]:
    """All registered tasks by name."""
    import fsrbench.registry

    fsrbench.registry.load("trainings")
    return dict(sorted(_tasks.items()))


def make(name: str, data: str, store: Store | None = None, profile: str = "mini", seed: int = 0,
         device: str | None = None, **arguments) -> Task:
    """A task by name, on the faces that `data` names.

    Args:
        device: None for the GPU where there is one; arguments: those that only some trainings take,
            None where not given.

    Raises:
        FsrError: no such training, or an argument or profile that it does not take.
    """
    if name not in _tasks and name not in tasks():
        raise unknown("training", name, list(_tasks))
    factory = _tasks[name]
    taken = inspect.signature(factory).parameters
    refused = [k for k, v in arguments.items() if v is not None and k not in taken]
    if refused:
        raise FsrError(f"--{refused[0]}", f"does not apply to {name}", code=2)
    if profile not in factory.profiles:
        raise FsrError(f"--profile {profile}",
                       f"{name} has no {profile} version of its own to train",
                       f"give --profile {factory.profiles[0]}", code=2)
    place = device or default_device()
    bank = read_bank(open_bank(data, store, profile, seed), place)
    return factory(bank, device=place, seed=seed, **{k: v for k, v in arguments.items()
                                                     if k in taken and v is not None})


def origin_of(path: Path) -> dict:
    """Name, digest and, from the card beside it, the images seen in all trainings so far, of
    weights that a training starts from."""
    card = path.with_suffix(".json")
    known = read_json(card, remedy="export the weights again") if card.exists() else {}
    seen = known["images_seen"] + (known.get("started_from", {}).get("images_seen")
                                   or 0) if "images_seen" in known else None
    return {"weights": path.name, "sha256": file_digest(path), "images_seen": seen}
