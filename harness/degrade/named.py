"""Degradations: named, versioned, frozen per sample id.

A degradation is a pure function of (HQ image, scale, sample id); its name and version are part of
every record's key, and the digest of each LR image it made stands in the record. What it draws, it
draws from a generator seeded by its name, version and the sample id, never by the scale: the LR
images of a sample at x8 and x16 come of one draw.

The registry stands here; a degradation is one file of datasets/degradations.

Some are defined at full size: blur, downsample and spoil, then upsample to what it was. The
benchmark needs an LR image of S/s pixels, so `bicubic` follows: the method gets what a camera would
have seen that looked at the spoilt image. At most S/s pixels are left, and fewer where r is above
s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from fsrbench.errors import FsrError, unknown
from fsrbench.imaging import imresize, to_float, to_uint8

SCALES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Degradation:
    """A registered degradation.

    Args:
        name, version: its id, together with what libjpeg decides; summary: for lists and notes.
        apply: `apply(image, scale, sample_id)` gives the uint8 LR image (H/s, W/s, 3) of an uint8
            image (H, W, 3).
        full: `full(image, sample_id)` gives it at its own size, for a degradation that is defined
            so; else None.
        libjpeg: whether JPEG is coded by a library (see `fsrbench.degrade.jpeg`).
    """

    name: str
    version: int
    summary: str
    apply: Callable[[np.ndarray, int, str], np.ndarray]
    full: Callable[[np.ndarray, str], np.ndarray] | None = None
    libjpeg: bool = False

    @property
    def id(self) -> str:
        """Name, version, and the JPEG library where one serves that behaves otherwise than the
        pinned one."""
        from fsrbench.degrade.jpeg import libjpeg_id

        return f"{self.name}@{self.version}{libjpeg_id() if self.libjpeg else ''}"

    def apply_batch(self, images: Sequence[np.ndarray], scale: int,
                    ids: Sequence[str]) -> np.ndarray:
        """LR images (N, H/s, W/s, 3) of N images of one size; bit for bit those of `apply`.

        Each sample has parameters, hence sizes, of its own, so a batch is spread over threads, not
        stacked.
        """
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self.apply, images, repeat(scale), ids)))


def bicubic(image: np.ndarray, scale: int, sample_id: str) -> np.ndarray:
    """Antialiased bicubic as MATLAB's imresize, rounded to 8 bit; the sample's id changes
    nothing."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    return to_uint8(imresize(to_float(image[None]), height, width))[0]


_degradations: dict[str, Degradation] = {}


def _register(found: Degradation) -> None:
    if found.name in _degradations:
        raise FsrError(f"degradation {found.name!r}", "registered twice",
                       "give one of them another name", code=2)
    _degradations[found.name] = found


def degradation(name: str, version: int, summary: str, libjpeg: bool = False):
    """Register a function as `Degradation.apply` under a name; raise the version when its output
    changes."""
    def decorate(function):
        _register(Degradation(name, version, summary, function, None, libjpeg))
        return function
    return decorate


def degradation_at_full_size(name: str, version: int, summary: str, libjpeg: bool = False):
    """The same for a function that is `Degradation.full`; the LR image is `bicubic` of what it
    gives."""
    def decorate(function):
        def apply(image: np.ndarray, scale: int, sample_id: str) -> np.ndarray:
            return bicubic(function(image, sample_id), scale, sample_id)
        _register(Degradation(name, version, summary, apply, function, libjpeg))
        return function
    return decorate


def degradations() -> dict[str, Degradation]:
    """All registered degradations by name."""
    import fsrbench.registry

    fsrbench.registry.load("degradations")
    return dict(sorted(_degradations.items(), key=lambda item: _by_number(item[0])))


def _by_number(name: str) -> tuple:
    """Sorts severity-2 before severity-10."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)


# Stands in records of images whose LR images were not given; nothing can be asked to run under it.
GIVEN = Degradation(
    "given", 1, "none: outputs of another program, whose LR images were not given",
    lambda image, scale, sample_id: image)


def get_degradation(name: str) -> Degradation:
    """The degradation of that name.

    Raises:
        FsrError: there is none.
    """
    if name == GIVEN.name:
        return GIVEN
    if name not in degradations():
        raise unknown("degradation", name, list(degradations()))
    return _degradations[name]


def check_scale(scale: int, size: int) -> int:
    """The scale, if HQ images of this side can be downsampled by it.

    Raises:
        FsrError: it is none of the paper's factors, or leaves less than two pixels.
    """
    if scale not in SCALES:
        raise FsrError(f"scale {scale}", "impossible", f"known: {', '.join(map(str, SCALES))}",
                       code=2)
    if size % scale or size // scale < 2:
        raise FsrError(f"scale {scale}", f"{size}-pixel images cannot be downsampled by it",
                       "give a smaller one", code=2)
    return scale
