"""From a trained checkpoint to shipped weights with a card; trainings by name."""

from __future__ import annotations

import os
from pathlib import Path

from fsrbench.engine.store import check_file, check_folder, write_atomic
from fsrbench.errors import FsrError, unknown
from fsrbench.text import json_text
from fsrbench.training.loop import train
from fsrbench.training.sittings import processes, read_checkpoint
from fsrbench.training.tasks import Task, make, tasks


def export(task: Task, checkpoint: Path, target: Path) -> dict:
    """Write the EMA as fp16 safetensors, with a model card (JSON) and the list of what it has seen;
    returns the card.

    Raises:
        FsrError: the checkpoint is missing, or damaged.
    """
    return export_state(task, read_checkpoint(
        checkpoint, remedy="give a --checkpoint of `invoke train`"), target)


def export_state(task: Task, state: dict, target: Path) -> dict:
    """`export` of what a checkpoint holds."""
    from safetensors.torch import save

    from fsrbench.engine.samples import write_training_set
    from fsrbench.imaging import digest

    task.model.load_state_dict(state["ema"])
    origin, shipped = task.bank.origin, task.exported(task.model.eval())
    data = save({k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
                 for k, v in shipped.state_dict().items()})
    seen = target.with_name(f"seen-{origin.data}-{origin.digest[:8]}.npz")
    card = {"weights": target.name, "sha256": digest(data),
            "licence": "research use only, as the training data",
            "parameters": sum(p.numel() for p in shipped.parameters()), "data": origin.data,
            "people": len(origin.people),
            "images": len(task.bank.train), "trained_on": seen.name, "images_seen": state["images"],
            "started_from": state.get("origin", {}), "batch": state["batch"],
            "steps": state["step"],
            "hours": round(state["seconds"] / 3600, 2), "recipe": state["recipe"],
            "validation": {k: round(v, 4) for k, v in task.validate(task.model).items()},
            **task.card()}
    if not seen.exists():
        write_training_set(seen, origin.data, origin.people, task.bank.fingerprints)
    write_atomic(target, data)
    write_atomic(target.with_suffix(".json"), json_text(card).encode())
    return card


def train_named(name: str, options, out: str | None, **arguments) -> Path:
    """`train` of a task by name, into `out` (default runs/NAME, with the case behind it)."""
    accelerator = processes(options.precision)
    # Without torchrun's variables `accelerate launch --cpu` names a meeting point to one process.
    if accelerator.num_processes == 1 and "MASTER_ADDR" in os.environ \
            and "WORLD_SIZE" not in os.environ:
        raise FsrError("training", "accelerate starts one process on a processor, whatever "
                       "--num_processes says",
                       "start it by `ACCELERATE_USE_CPU=true torchrun --nproc_per_node N -m invoke "
                       "train ...`", code=2)
    folder = Path(out or _run_folder(name, arguments))
    check_folder(folder)
    # One process makes the bank; the others then find it in the store.
    with accelerator.main_process_first():
        task = make(name, **arguments)
    return train(task, options, folder)


def export_named(name: str, checkpoint: str | None, to: str | None, **arguments) -> str:
    """`export` of a task by name; returns the card as text."""
    from fsrbench.weights.catalogue import bundled_folder

    if name not in tasks():
        raise unknown("training", name, list(tasks()))
    if to:
        check_file(to, "--to")
    suffix = "" if arguments.get("case") is None else f"-case{arguments['case']}"
    path = Path(checkpoint) if checkpoint else _run_folder(name, arguments) / "checkpoint.pt"
    if not path.exists():
        raise FsrError(f"checkpoint {path}", "missing", "train first")
    task = make(name, **arguments)
    target = (Path(to) if to else bundled_folder()
              / f"{task.weights or name + '-' + arguments['profile'] + suffix}.safetensors")
    return json_text(export(task, path, target)).rstrip()


def _run_folder(name: str, arguments: dict) -> Path:
    return Path("runs") / (name if arguments.get("case") is None
                           else f"{name}-case{arguments['case']}")
