"""Where a record comes from: commit, versions, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from fsrbench.text import read_json

# Versions that a run writes down; a table says so where its records were made with different ones
# of DECIDING.
DECIDING = ("torch", "torchvision", "numpy", "opencv-python", "scipy", "pillow")
PACKAGES = (*DECIDING, "lpips", "pyiqa", "clean-fid", "deepface", "dlib-bin", "pandas", "pyarrow",
            "pillow-heif", "spandrel", "spandrel-extra-arches")


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True,
                              check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit() -> dict:
    """The commit, its date, and whether the tree differs from it; None outside a checkout."""
    head, _, date = _git("show", "--no-patch", "--format=%H %cI", "HEAD").strip().partition(" ")
    return {"commit": head or None, "date": date or None,
            "dirty": bool(_git("status", "--porcelain", "--untracked-files=no").strip())}


def run_of(root: Path, run: str) -> dict:
    """What a store's run wrote down of itself (see `describe`); empty where that file is gone.

    Raises:
        FsrError: it is damaged.
    """
    path = root / "runs" / f"{run}.json"
    remedy = "delete it; its records stay, only what they were made with is lost"
    return read_json(path, "packages", remedy=remedy) if path.exists() else {}


def mixed(root: Path, runs: Iterable[str]) -> list[str]:
    """Libraries of DECIDING that these runs of a store were made with different versions of, with
    the versions."""
    packages = [run_of(root, run).get("packages", {}) for run in sorted(set(runs))]
    found = {name: sorted({p[name] for p in packages if name in p}) for name in DECIDING}
    return [f"{name} {', '.join(versions)}" for name, versions in found.items() if len(versions)
            > 1]


def version(distribution: str) -> str:
    """Installed version of a distribution, or that there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def platform_here() -> dict:
    """What last bits depend on: versions, processor and what it can, GPU."""
    import torch

    able = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "machine": platform.machine(), "system": platform.system(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_features": sorted(name for name, there in able.items() if there is True),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}


def elsewhere(root: Path, run: str) -> list[str]:
    """What of `platform_here` a store's run had otherwise, or did not write down."""
    then = run_of(root, run)
    return [name for name, value in platform_here().items() if then.get(name) != value]


def describe(arguments: dict) -> dict:
    """What a run ran on: commit, its date and whether the tree differs from it, versions,
    processor, threads, arguments."""
    import torch

    return {
        **commit(), "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(), **platform_here(),
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]], "arguments": arguments,
        "shard": [os.environ.get(k) for k in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID",
                                              "SLURM_ARRAY_TASK_COUNT")],
    }
