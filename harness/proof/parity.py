"""Parity with the official networks and samplers, by recorded fixtures.

A check is a function registered under a fixture's name beside the code it checks; `run` finds
fixtures in a folder (`NAME-<letter>.npz`, `NAME.json`) and prints one verdict each. Fixtures hold
inputs and outputs of the official code under a deterministic weight fill, so the check also holds
for the real checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fsrbench.errors import FsrError
from fsrbench.progress import progress
from fsrbench.text import columns
from fsrbench.weights.catalogue import require
from fsrbench.weights.fill import fill_value


@dataclass(frozen=True)
class Check:
    """A registered comparison: `run(fixture)` returns the largest error in units of the tolerance's
    kind. It is skipped where one of its weight files (catalogue names) cannot be had."""

    name: str
    tolerance: float
    run: Callable[[dict], float]
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A registered official state dict: `build(config)` makes the network (on the meta device), or
    the networks of a file that holds several, by the names that they have there."""

    name: str
    build: Callable[[dict], torch.nn.Module | dict[str, torch.nn.Module]]


@dataclass(frozen=True)
class Result:
    """One line of the report; error and tolerance are NaN where nothing was compared."""

    name: str
    error: float
    tolerance: float
    verdict: str


_checks: dict[str, Check] = {}
_layouts: dict[str, Layout] = {}


def check(name: str, tolerance: float, weights: tuple[str, ...] = ()):
    """Register a function of a loaded fixture as the check of fixtures called `name-*.npz`."""
    def register(function):
        _checks[name] = Check(name, tolerance, function, weights)
        return function
    return register


def layout(name: str):
    """Register a builder of the network whose official keys and shapes stand in `name.json`."""
    def register(function):
        _layouts[name] = Layout(name, function)
        return function
    return register


def filled(module: torch.nn.Module,
           rename: Callable[[str], str] = lambda key: key) -> torch.nn.Module:
    """The module in eval mode with the deterministic fill; integer tensors stay as constructed.

    Args:
        rename: from the module's key to the official key that seeds the fill.
    """
    state = {key: torch.as_tensor(fill_value(rename(key), tuple(value.shape)))
             if value.is_floating_point() else value for key, value in module.state_dict().items()}
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)


def error(ours: torch.Tensor | np.ndarray, theirs: np.ndarray, relative: bool = False) -> float:
    """Largest absolute difference; with `relative`, as a share of the largest recorded value.
    Infinite for a shape that differs or a value that is not finite."""
    ours = np.asarray(ours, dtype=np.float64)
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    scale = np.abs(theirs).max() if relative else 1.0
    return float(np.abs(ours - theirs).max() / scale)


def channel_error(ours: torch.Tensor, fixture: dict, name: str, relative: bool = False) -> float:
    """Largest difference of the per-channel mean and deviation kept in a fixture for a large
    tensor."""
    values = ours.double().transpose(0, 1).flatten(1)
    pairs = ((values.mean(1), fixture[f"{name}_mean"]),
             (values.std(1, unbiased=False), fixture[f"{name}_std"]))
    return max(error(a, b, relative) for a, b in pairs)


def recorded(fixture: dict, name: str = "noise") -> Iterator[torch.Tensor]:
    """The recorded draws of a sampler in order of use (`in_noise000`, ...)."""
    return (torch.from_numpy(fixture[key]) for key in sorted(fixture)
            if key.startswith(f"in_{name}"))


class Recipe:
    """The inputs of a fixture that keeps how they are drawn instead of them: one generator, draws
    in order of use.

    Attributes:
        shapes: of the draws, in the order of the text.
    """

    def __init__(self, fixture: dict):
        self.text = str(fixture["recipe"])
        self.rng = np.random.default_rng(int(self.number(r"default_rng\((\d+)\)")))
        self.shapes = [tuple(map(int, found.split(",")))
                       for found in re.findall(r"\((\d+(?:,\d+)+)\)", self._tight)]

    @property
    def _tight(self) -> str:
        return self.text.replace(" ", "")

    def number(self, pattern: str) -> float:
        """The number that the pattern's group finds in the text without spaces.

        Raises:
            ValueError: there is none; the check then fails and says so.
        """
        found = re.search(pattern, self._tight)
        if found is None:
            raise ValueError(f"recipe {self.text!r} has no {pattern}")
        return float(found[1])

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A draw from the recipe's range, float32."""
        low, high = (self.number(rf"uniform\({part}") for part in (r"(-?[\d.]+),",
                                                                   r"-?[\d.]+,(-?[\d.]+),"))
        return torch.from_numpy(self.rng.uniform(low, high, shape).astype(np.float32))

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A standard normal draw, float32."""
        return torch.from_numpy(self.rng.standard_normal(shape).astype(np.float32))


def bilinear(low: torch.Tensor, side: int) -> torch.Tensor:
    """An image (N, C, h, w) upsampled to a side, as recipes do."""
    return torch.nn.functional.interpolate(low, size=side, mode="bilinear", align_corners=False)


def input_error(x: torch.Tensor, fixture: dict) -> float:
    """Of the rebuilt input (N, C, S, S) against the recording's `input_sample`: a recipe that was
    misread shows here."""
    stride = x.shape[-1] // fixture["input_sample"].shape[-1]
    return error(x[..., ::stride, ::stride], fixture["input_sample"])


def load_fixture(path: Path) -> dict:
    """Arrays of a fixture; `config` and `params` become dictionaries.

    Raises:
        FsrError: the file is not a fixture.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fixture = {name: arrays[name] for name in arrays.files}
        for name in ("config", "params"):
            if name in fixture:
                fixture[name] = json.loads(str(fixture[name]))
        return fixture
    except Exception as reason:
        raise FsrError(f"fixture {path}", f"cannot be read ({str(reason)[:120]})",
                       "record it again") from None


def _run_check(path: Path) -> Result:
    name = path.stem.rpartition("-")[0]
    if name not in _checks:
        return Result(path.stem, float("nan"), float("nan"), "no check for this name")
    known = _checks[name]
    try:
        for weights in known.weights:
            require(weights)
    except FsrError as reason:
        return Result(path.stem, float("nan"), known.tolerance, f"skipped: {reason}")
    try:
        with torch.inference_mode():
            worst = known.run(load_fixture(path))
    except Exception as reason:  # a recording may lack, or ask for, anything
        return Result(path.stem, float("nan"), known.tolerance,
                      f"failed: {type(reason).__name__}: {str(reason)[:160]}")
    return Result(path.stem, worst, known.tolerance, "ok" if worst <= known.tolerance else "failed")


def _run_layout(path: Path) -> Result:
    if path.stem not in _layouts:
        return Result(f"{path.stem} (layout)", float("nan"), float("nan"), "no check for this name")
    official = json.loads(path.read_text())
    with torch.device("meta"):
        built = _layouts[path.stem].build(official["config"])
    networks = built if isinstance(built, dict) else {"": built}
    ours = {f"{name}.{k}": list(v.shape) for name, network in networks.items()
            for k, v in network.state_dict().items()}
    parts = official.get("parts") or {"": official["state_dict"]}
    theirs = {f"{name}.{k}": shape for name, state in parts.items() for k, shape in state.items()}
    different = sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())
    return Result(f"{path.stem} (layout)", float(different), 0.0, "ok" if not different
                  else "failed")


def _fixtures(folder: Path) -> list[Path]:
    return sorted(p for p in Path(folder).glob("*") if p.suffix in (".npz", ".json"))


def checked_folder(folder: Path) -> Path:
    """The folder, where it holds fixtures.

    Raises:
        FsrError: it holds none.
    """
    if not _fixtures(folder):
        raise FsrError(f"fixtures {folder}", "no *.npz or *.json there", "give --fixtures DIR",
                       code=2)
    return folder


def run(folder: Path) -> list[Result]:
    """Check every fixture and layout of a folder.

    Raises:
        FsrError: the folder holds none.
    """
    import fsrbench.registry

    fsrbench.registry.load("parity")
    paths = _fixtures(checked_folder(folder))
    return [_run_check(path) if path.suffix == ".npz" else _run_layout(path)
            for path in progress(paths, desc="comparing with recordings", unit="recording")]


def default_folder() -> Path:
    """The fixtures of the repository."""
    return Path(__file__).resolve().parents[2] / "tests" / "parity"


def report(folder: Path | str) -> tuple[str, int]:
    """Text with one line a comparison (name, largest error, tolerance, verdict), and how many
    failed."""
    results = run(Path(folder))
    lines = [["FIXTURE", "LARGEST ERROR", "TOLERANCE", "VERDICT"]]
    lines += [[r.name, f"{r.error:.3g}", f"{r.tolerance:.3g}", r.verdict] for r in results]
    return columns(lines), sum(r.verdict.startswith("failed") for r in results)
