"""The registry of metrics. One file or function a metric; nothing else is touched to add one.

A metric's id carries its protocol and version ("lpips.alex@0.1.4"), and two ids never share a
column. Kinds:
- "pair": values of (restored, ground truth), both float32 (N, 3, S, S) in [0, 1];
- "noref": values of the restored images alone;
- "identity": values of embeddings (N, F) of restored and ground truth, of a named embedding, or of
restored and what else the metric's `target` names;
- "gallery": values of embeddings (N, F) of restored and ground truth, and of the reference sets of
all people of the run (a `Gallery`): who is in the run decides them;
- "attribute": values of what a network says of restored and ground truth, (N, classes) or (N, 1),
of a named feature;
- "own": values of feature vectors (N, F) of the restored images alone;
- "references": values of feature vectors (N, F) of restored images and of each one's reference set,
N times (M, F), M of 0 where it has none;
- "set": one value of two sets of feature vectors, of a named feature, computed over a whole cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from fsrbench.errors import FsrError, unknown
from fsrbench.weights.catalogue import at_hand, get_entry


# What a restored image is held against.
TARGETS = {"truth": "the ground truth", "reference": "the reference",
           "upsampled": "the upsampled LR image",
           "people": "the reference sets of all people of the run"}


@dataclass(frozen=True)
class Gallery:
    """Embeddings of the reference sets of all people of a run; no ground truth is among them.

    Args:
        vectors: (M, F), NaN where no face was found; people: (M,) whose each is; own: (N,) whose
            each sample is.
    """

    vectors: np.ndarray
    people: np.ndarray
    own: np.ndarray


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        id: family, protocol and version; the family stands before the first dot.
        title: column header.
        direction: +1 if higher is better, -1 if lower.
        kind: see the module's text.
        function: what computes it.
        feature: name of the embedding or feature that "identity", "attribute" and "set" read.
        weight_files: catalogue names that must be present (or fetchable from the package registry).
        digits: decimals in a table.
        percent: shown as a percentage.
        paper: the paper's name of the metric where a published value exists.
        spread: shown as mean ± standard deviation over samples, as the paper does; `paper_spread`
            names its deviation.
        stand_in: what it stands in for; empty if it is the paper's own.
        least: side in pixels of the smallest image that it is defined for.
        jump: about what one image's value changes by where a threshold inside the metric is
            crossed.
        words: what it is of, for a table's notes: channels, range, border, network.
        other: why its values are not the paper's although `paper` names them; empty if they are.
        deviation: of a set metric: standard deviation over subsets of its value, of the same
            features.
        alone: of a set metric: of the restored images only; its function does not look at the
            other features.
        lacks: why an image may have no value (NaN).
        of_n: its value depends on how many images it is of, so that number is part of a cell's id.
        target: of an identity metric, what the restored image is held against, of `TARGETS`.
        recogniser: short name of the network that judges identity, of `recognisers.RECOGNISERS`.
    """

    id: str
    title: str
    direction: int
    kind: str
    function: Callable
    feature: str = ""
    weight_files: tuple[str, ...] = ()
    digits: int = 4
    percent: bool = False
    paper: str = ""
    spread: bool = False
    paper_spread: str = ""
    stand_in: str = ""
    jump: float = 0.0
    least: int = 0
    words: str = ""
    other: str = ""
    deviation: Callable | None = None
    of_n: bool = False
    alone: bool = False
    lacks: str = "not finite"
    target: str = "truth"
    recogniser: str = ""

    @property
    def sees_truth(self) -> bool:
        """Whether it compares with the ground truth."""
        return (not self.alone and self.target == "truth"
                and self.kind in ("pair", "identity", "gallery", "attribute", "set"))

    @property
    def described(self) -> str:
        """What it is of, in a sentence: its words, or what its kind and feature say, and what it is
        held against."""
        words = (self.words or "8-bit RGB, whole image" + f"; feature {self.feature}"
                 * bool(self.feature))
        target = ("against the reference set" if self.kind == "references" else
                  "no ground truth" if self.alone or self.kind in ("noref", "own") else
                  f"against {TARGETS[self.target]}")
        return f"{self.title} ({self.id}): {words}; {target}"

    def missing(self, side: int | None = None) -> str:
        """Why it cannot run here, on images of this side, with the remedy; empty if it can."""
        if side is not None and side < self.least:
            return f"needs images of {self.least} px or more, and these have {side}"
        for name in self.weight_files + (_features[self.feature].weight_files if self.feature
                                         else ()):
            try:
                here = at_hand(name)
            except FsrError as error:  # a file that is not whole
                return str(error)
            if not here:
                entry = get_entry(name)
                return f"{entry.file} is missing; {entry.remedy}"
        return ""


@dataclass(frozen=True)
class Feature:
    """A vector of an image, kept in the store by content.

    Args:
        id: name and version.
        function: of (list of uint8 images (H, W, 3), list of contexts) to vectors (N, F).
        weight_files: catalogue names that it needs.
        aligned: its context is the landmarks (68, 2) of the ground truth, so that both images are
            cut alike.
        single_core: it uses one core only, so many images are worth a pool of processes.
        libraries: distributions that compute it by way of another, whose versions decide it too.
    """

    id: str
    function: Callable[[list[np.ndarray], list[np.ndarray | None]], np.ndarray]
    weight_files: tuple[str, ...] = ()
    aligned: bool = False
    single_core: bool = False
    libraries: tuple[str, ...] = ()


# Side in pixels of the window of SSIM, the least that a crop may leave.
SMALLEST = 11
_metrics: dict[str, Metric] = {}
_features: dict[str, Feature] = {}


def metric(entry: Metric) -> Metric:
    """Register a metric; a second one of the same id is refused."""
    if entry.id in _metrics:
        raise ValueError(f"metric {entry.id} registered twice")
    _metrics[entry.id] = entry
    return entry


def feature(entry: Feature) -> Feature:
    """Register a feature."""
    if entry.id in _features:
        raise ValueError(f"feature {entry.id} registered twice")
    _features[entry.id] = entry
    return entry


def get_feature(name: str) -> Feature:
    """The feature of that id."""
    return _features[name]


def metrics() -> dict[str, Metric]:
    """All registered metrics by id."""
    import fsrbench.registry

    fsrbench.registry.load("metrics")
    return dict(_metrics)


def family(name: str) -> list[Metric]:
    """Metrics by id or family ("lpips"), in order of registration; "psnr-y-crop8" leaves 8 px at
    each border out.

    Raises:
        FsrError: there is none.
    """
    bare, _, border = name.partition("-crop")
    found = [m for m in metrics().values() if bare in (m.id, m.id.split(".")[0])]
    if border.isdecimal() and int(border):
        found = [_cropped(m, int(border)) for m in found if m.kind == "pair"]
    elif border or bare != name:
        found = []
    if not found:
        raise unknown("metric", name, sorted({m.id.split(".")[0] for m in _metrics.values()}))
    return found


@cache
def _cropped(base: Metric, border: int) -> Metric:
    """A metric of image pairs without so many pixels at each border, as super-resolution papers
    often have it."""
    return replace(base, id=f"{base.id}-crop{border}", title=f"{base.title} ({border} px cropped)",
                   paper="", function=partial(_without_border, base.function, border),
                   words=base.words.replace("no border cropped",
                                            f"{border} px cropped at each border"))


def _without_border(function: Callable, border: int, restored, truth) -> np.ndarray:
    if min(restored.shape[-2:]) - 2 * border < SMALLEST:
        raise FsrError(f"crop{border}",
                       f"leaves less than {SMALLEST} px of an image of {restored.shape[-1]} px",
                       "crop less", code=2)
    return function(*(x[..., border:-border, border:-border] for x in (restored, truth)))
