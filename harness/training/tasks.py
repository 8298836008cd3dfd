"""What is trained: the base class of trainings, their registry, and the export of what they made."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fsrbench.errors import FsrError, unknown
from fsrbench.store import Store, write_atomic
from fsrbench.training.bank import Bank, open_bank, read_bank
from fsrbench.training.draws import Draws
from fsrbench.weights import device as default_device
from fsrbench.weights import file_digest

# Tensors of a batch by name; `loss` may leave in it what `after` needs.
Example = dict[str, torch.Tensor]


class Task:
    """A training on a bank of faces: subclass, register it with `@trainable`.

    `examples`, `loss` and `after` work on the device of the model and wait for nothing (no `.item()`, no shape that depends
    on a value), so that a whole step can be captured in a CUDA graph; a test runs every one of them on a fake CUDA device.

    Class attributes:
        name: of the draws; batch, lr, ema, clip: defaults of the loop.
        weights: name of what is exported, where it is not that of the training with the profile behind it.
        profiles: that it can be trained under.
        capturable: whether a step can be a CUDA graph.

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
    capturable: bool = True
    model: torch.nn.Module

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0, init: str | None = None):
        self.bank, self.device, self.seed, self.origin = bank, torch.device(device), seed, {}
        torch.manual_seed(seed)
        with self.device:
            self.model = self.network()
        if init:
            self.start_from(Path(init))

    def network(self) -> torch.nn.Module:
        """The untrained network."""
        raise TypeError("a task must build its network")

    def start_from(self, path: Path) -> None:
        """Take weights of an exported file, and what they have seen."""
        from fsrbench.weights import load_strict, read_state

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
        """Adam without weight decay (paper Table 4); fused, so that a step can be skipped on the device."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=lr, fused=True, capturable=self.device.type == "cuda")

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Figures of the EMA on held-out people, for log and card."""
        from fsrbench.training.loop import held_out

        return {"held_out": held_out(self, model)}

    def picture(self, model: torch.nn.Module) -> np.ndarray | None:
        """An image of what the EMA makes, uint8 (H, W, 3)."""
        return None

    def exported(self, model: torch.nn.Module) -> torch.nn.Module:
        """The part of the model that is shipped."""
        return model

    def facts(self) -> dict:
        """What a checkpoint must agree in to be gone on from."""
        return {"what": self.name, "data": self.bank.origin.data, "faces": self.bank.origin.digest, "seed": self.seed,
                "profile": self.bank.origin.profile}

    def card(self) -> dict:
        """Facts for the model card: configuration, deviations from the authors' training."""
        return {}


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

    fsrbench.registry.load_all()
    return dict(sorted(_tasks.items()))


def make(name: str, data: str, store: Store | None = None, profile: str = "mini", seed: int = 0,
         device: str | None = None, **arguments) -> Task:
    """A task by name, on the faces that `data` names.

    Args:
        device: None for the GPU where there is one; arguments: those that only some trainings take, None where not given.

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
        raise FsrError(f"--profile {profile}", f"{name} has no {profile} version of its own to train",
                       f"give --profile {factory.profiles[0]}", code=2)
    place = device or default_device()
    bank = read_bank(open_bank(data, store, profile, seed), place)
    return factory(bank, device=place, seed=seed, **{k: v for k, v in arguments.items() if k in taken and v is not None})


def origin_of(path: Path) -> dict:
    """Name, digest and, from the card beside it, the images seen in all trainings so far, of weights that a training
    starts from."""
    card = path.with_suffix(".json")
    known = json.loads(card.read_text()) if card.exists() else {}
    seen = known["images_seen"] + (known.get("started_from", {}).get("images_seen") or 0) if "images_seen" in known else None
    return {"weights": path.name, "sha256": file_digest(path), "images_seen": seen}


def export(task: Task, checkpoint: Path, target: Path) -> dict:
    """Write the EMA as fp16 safetensors, with a model card (JSON) and the list of what it has seen; returns the card.

    Raises:
        FsrError: the checkpoint is missing.
    """
    if not checkpoint.exists():
        raise FsrError(f"checkpoint {checkpoint}", "missing", "train first")
    return export_state(task, torch.load(checkpoint, map_location="cpu", weights_only=True), target)


def export_state(task: Task, state: dict, target: Path) -> dict:
    """`export` of what a checkpoint holds."""
    from safetensors.torch import save

    from fsrbench.imaging import digest
    from fsrbench.samples import write_training_set

    task.model.load_state_dict(state["ema"])
    origin, shipped = task.bank.origin, task.exported(task.model.eval())
    data = save({k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in shipped.state_dict().items()})
    seen = target.with_name(f"seen-{origin.data}-{origin.digest[:8]}.npz")
    card = {"weights": target.name, "sha256": digest(data), "licence": "research use only, as the training data",
            "parameters": sum(p.numel() for p in shipped.parameters()), "data": origin.data, "people": len(origin.people),
            "images": len(task.bank.train), "trained_on": seen.name, "images_seen": state["images"],
            "started_from": state.get("origin", {}), "batch": state["batch"], "steps": state["step"],
            "hours": round(state["seconds"] / 3600, 2), "recipe": state["recipe"],
            "validation": {k: round(v, 4) for k, v in task.validate(task.model).items()}, **task.card()}
    if not seen.exists():
        write_training_set(seen, origin.data, origin.people, task.bank.fingerprints)
    write_atomic(target, data)
    write_atomic(target.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    return card


def train_named(name: str, options, out: str | None, **arguments) -> Path:
    """`train` of a task by name, into `out` (default runs/NAME, with the case behind it)."""
    from fsrbench.training.loop import processes, train

    # One process makes the bank; the others then find it in the store.
    with processes(options.precision).main_process_first():
        task = make(name, **arguments)
    return train(task, options, Path(out or _run_folder(name, arguments)))


def export_named(name: str, checkpoint: str | None, to: str | None, **arguments) -> str:
    """`export` of a task by name; returns the card as text."""
    from fsrbench.weights import bundled_folder

    suffix = "" if arguments.get("case") is None else f"-case{arguments['case']}"
    path = Path(checkpoint) if checkpoint else _run_folder(name, arguments) / "checkpoint.pt"
    if not path.exists():
        raise FsrError(f"checkpoint {path}", "missing", "train first")
    task = make(name, **arguments)
    target = Path(to) if to else bundled_folder() / f"{task.weights or name + '-' + arguments['profile'] + suffix}.safetensors"
    return json.dumps(export(task, path, target), indent=1)


def _run_folder(name: str, arguments: dict) -> Path:
    return Path("runs") / (name if arguments.get("case") is None else f"{name}-case{arguments['case']}")
