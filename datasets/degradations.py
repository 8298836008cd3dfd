"""Degradations: named, versioned, frozen per sample id.

A degradation is a pure function of (HQ picture, scale, sample id); its name and version are part of every record's key,
and the digest of each LR picture it made stands in the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fsrbench.errors import FsrError, unknown
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.parity import check, error

SCALES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Degradation:
    """A registered degradation: `apply(image, scale, sample_id)` gives the uint8 LR picture (S/s, S/s, 3)."""

    name: str
    version: int
    summary: str
    apply: Callable[[np.ndarray, int, str], np.ndarray]

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"


_degradations: dict[str, Degradation] = {}


def degradation(name: str, version: int, summary: str):
    """Register a degradation under a name; raise the version when its output changes."""
    def register(function):
        _degradations[name] = Degradation(name, version, summary, function)
        return function
    return register


def degradations() -> dict[str, Degradation]:
    """All registered degradations by name."""
    return dict(sorted(_degradations.items()))


def get_degradation(name: str) -> Degradation:
    """The degradation of that name."""
    if name not in _degradations:
        raise unknown("degradation", name, list(_degradations))
    return _degradations[name]


def check_scale(scale: int, size: int) -> int:
    """The scale, if HQ pictures of this side can be shrunk by it.

    Raises:
        FsrError: it is none of the paper's factors, or leaves less than two pixels.
    """
    if scale not in SCALES:
        raise FsrError(f"scale {scale}", "impossible", f"known: {', '.join(map(str, SCALES))}", code=2)
    if size % scale or size // scale < 2:
        raise FsrError(f"scale {scale}", f"{size}-pixel pictures cannot be shrunk by it", "give a smaller one", code=2)
    return scale


@degradation("bicubic", 1, "antialiased bicubic as MATLAB's imresize, rounded to 8 bit")
def bicubic(image: np.ndarray, scale: int, sample_id: str) -> np.ndarray:
    """The paper's scale factors (4.1); the kernel, which it does not name, is MATLAB's, as the field assumes."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    return to_uint8(imresize(to_float(image[None]), height, width))[0]


@check("degradation", 1e-6)
def _imresize(fixture: dict) -> float:
    """MATLAB's imresize at x4, x8, x16 down and x4 up; the fixture's other arrays belong to degradations not here yet."""
    image = to_float(fixture["image_u8"][None])[0]
    worst = []
    for name in [key for key in fixture if key.startswith("imresize_x")]:
        height, width = fixture[name].shape[:2]
        worst.append(error(imresize(image, height, width).transpose(1, 2, 0), fixture[name]))
    small = fixture["imresize_x4"].transpose(2, 0, 1)
    worst.append(error(imresize(small, *image.shape[1:]).transpose(1, 2, 0), fixture["imresize_up4_of_x4"]))
    return max(worst)
