"""Metrics against values that do not come from this code: analytic ones, and the published example
of LPIPS.

`tests/calibration/lpips-example.npz` holds the three 64 px images of a house in the LPIPS
repository (BSD-2, the notice is in the file) with the distances that its `test_network.py` prints,
0.722 and 0.138.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsrbench.metrics import family


@dataclass(frozen=True)
class Calibration:
    """A known value of a metric.

    Args:
        metric: id or family whose first member is asked; measure: of the metric's function to the
            value.
        expected: what it must be; tolerance: absolute; source: where that comes from.
    """

    name: str
    metric: str
    measure: Callable[[Callable], float]
    expected: float
    tolerance: float
    source: str


@dataclass(frozen=True)
class Result:
    """What came out; `error` tells why nothing did."""

    calibration: Calibration
    value: float
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and abs(self.value
                                      - self.calibration.expected) <= self.calibration.tolerance


def _flat(level: float):
    """One grey image (1, 3, 32, 32) float32."""
    import torch

    return torch.full((1, 3, 32, 32), level)


def _of_flat(a: float, b: float) -> Callable[[Callable], float]:
    return lambda function: float(function(_flat(a), _flat(b))[0])


def example_path() -> Path:
    """The published example pair."""
    return Path(__file__).resolve().parents[2] / "tests" / "calibration" / "lpips-example.npz"


def _of_example(name: str) -> Callable[[Callable], float]:
    def measure(function: Callable) -> float:
        import torch

        with np.load(example_path(), allow_pickle=False) as kept:
            images = [torch.from_numpy(kept[key].transpose(2, 0, 1)[None].astype(np.float32)
                                       / 255)
                      for key in ("ex_ref", name)]
        return float(function(*images)[0])
    return measure


def _of_vectors(*pairs: tuple[tuple[float, ...], tuple[float, ...]]) -> Callable[[Callable], float]:
    """Sum over pairs of vectors, one value each."""
    a, b = (np.array(side, dtype=np.float64) for side in zip(*pairs))
    return lambda function: float(np.sum(function(a, b)))


def _cloud() -> np.ndarray:
    """Points (8, 3) with mean 0 and covariance 8/7 of the identity: the corners of a cube."""
    return np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T


def _frechet(scale: float, shift: float) -> Callable[[Callable], float]:
    return lambda function: float(function(_cloud(), _cloud() * scale + shift))


# Luma of two grey levels, 0.4 and 0.6.
_A, _B = ((16 + 219 * level) / 255 for level in (0.4, 0.6))
# Frechet distance of two Gaussians with covariances v and s^2 v: |shift|^2 + tr(v) (1 - s)^2, here
# with tr(v) = 3 * 8/7.
CALIBRATIONS = (
    Calibration("PSNR of a grey level off by 16/255", "psnr", _of_flat(0.5, 0.5 + 16 / 255),
                20 * np.log10(255 / 16), 1e-4, "20 log10(255 / 16)"),
    Calibration("PSNR of identical images", "psnr", _of_flat(0.5, 0.5), 100, 0,
                "the cap that the metric states"),
    Calibration("SSIM of two grey levels", "ssim", _of_flat(0.4, 0.6), (2 * 0.24 + 1e-4)
                / (0.52 + 1e-4), 1e-6, "(2ab + C1) / (a^2 + b^2 + C1), Wang et al. 2004"),
    Calibration("SSIM of identical images", "ssim", _of_flat(0.3, 0.3), 1, 1e-9, "its definition"),
    Calibration("PSNR-Y of black and white", "psnr-y", _of_flat(0, 1), 20 * np.log10(255 / 219),
                1e-4, "luma of BT.601 is 16 to 235"),
    Calibration("SSIM-Y of two grey levels", "ssim-y", _of_flat(0.4, 0.6), (2 * _A * _B + 1e-4)
                / (_A**2 + _B**2 + 1e-4), 1e-6, "as SSIM, of luma"),
    Calibration("LPIPS of the published pair ref, p0", "lpips", _of_example("ex_p0"), 0.722, 0.0005,
                "LPIPS repository"),
    Calibration("LPIPS of the published pair ref, p1", "lpips", _of_example("ex_p1"), 0.138, 0.0005,
                "LPIPS repository"),
    Calibration("LPIPS of identical images", "lpips", _of_example("ex_ref"), 0, 0,
                "its definition"),
    Calibration("Frechet distance of a shifted cloud", "fd", _frechet(1, 2), 12, 1e-6, "|shift|^2"),
    Calibration("Frechet distance of a doubled cloud", "fd", _frechet(2, 0), 24 / 7, 1e-6,
                "tr(v) (1 - s)^2"),
    Calibration("Kernel distance of two points", "kd",
                lambda function: function(np.ones((4, 3)), np.zeros((4, 3))), 7, 1e-9,
                "(|x|^2 / F + 1)^3 + 1 - 2"),
    Calibration("IDS of equal, orthogonal and opposite embeddings", "ids.cosine@dlib",
                _of_vectors(((1, 0), (2, 0)), ((1, 0), (0, 5)), ((1, 0), (-1, 0))), 3, 1e-9,
                "1 - cosine: 0 + 1 + 2"),
    Calibration("IDV of distances 0.06 and 0.08", "idv.0.07@dlib",
                _of_vectors(*(((1, 0), (1 - d, (1 - (1 - d) ** 2) ** 0.5)) for d in (0.06, 0.08))),
                1, 0, "DeepFace's threshold for dlib is 0.07"),
)


def run(calibrations: tuple[Calibration, ...] = CALIBRATIONS) -> list[Result]:
    """Measure every known value; a metric whose weights are missing, or that fails, tells why."""
    return [_measured(c) for c in calibrations]


def _measured(c: Calibration) -> Result:
    metric = family(c.metric)[0]
    if why := metric.missing():
        return Result(c, float("nan"), why)
    try:
        return Result(c, c.measure(metric.function))
    except Exception as error:  # what a metric raises is this check's finding
        return Result(c, float("nan"), f"{type(error).__name__}: {str(error)[:160]}")
