"""Quality of single images, by which the paper filters CASIA-WebFace and CelebV-Text (Appendix D).

The paper's measure is HyperIQA (Su et al. 2020; SSL92/hyperIQA, MIT), here by pyiqa's network,
whose weights must be fetched; PIQE needs none. A value belongs to the image's content and to the
measure with its library's version and weights; it is kept in the store under both, so that work
that was cut off goes on, and a second run only reads.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from fsrbench.engine.data import Entry, pooled
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError, unknown
from fsrbench.imaging import decode, digest
from fsrbench.progress import progress
from fsrbench.weights.catalogue import Url, WeightFile, file_digest, register, require
from fsrbench.weights.fill import trained
from fsrbench.weights.networks import device

HYPERIQA = register(WeightFile(
    "hyperiqa-koniq", "HyperIQA-resnet50-koniq10k-c96c41b1.pth", "c96c41b1",
    "MIT (SSL92/hyperIQA), converted by pyiqa",
    "selection of CASIA-WebFace and CelebV-Text by HyperIQA",
    (Url("https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
         "HyperIQA-resnet50-koniq10k-c96c41b1.pth"),)))

# The demo of the official repository takes ten random crops of 224 pixels of the image resized to
# 512x384 (height, width). A grid of nine covers it whole, and gives the same value every time.
RESIZED = (512, 384)
CROP = 224
GRID = [(y, x) for y in (0, 144, 288) for x in (0, 80, 160)]


@dataclass(frozen=True)
class Quality:
    """A measure of one image.

    Args:
        name: what a user types.
        version: raise it, or let a library's do so, when values change.
        better: +1 where more is better, -1 where less is.
        score: the value of an uint8 RGB image (H, W, 3).
        weight_files: names in the catalogue of what must be present.
        pooled: whether several processes may share the work; not for what runs on the one GPU.
    """

    name: str
    version: str
    better: int
    score: Callable[[np.ndarray], float]
    weight_files: tuple[str, ...] = ()
    pooled: bool = True

    @property
    def id(self) -> str:
        """Name, version and weights.

        Raises:
            FsrError: weights are missing; the text says how to get them, and that PIQE needs none.
        """
        try:
            weights = [file_digest(trained(name))[:12] for name in self.weight_files]
        except FsrError as error:
            raise FsrError(error.thing, error.cause,
                           f"{error.remedy}; `--quality piqe` needs none") from None
        return "+".join([f"{self.name}@{self.version}", *weights])


_measures: dict[str, Quality] = {}


def quality(name: str, version: str, better: int, weight_files: tuple[str, ...] = (),
            pooled: bool = True):
    """Register a measure: a function of an uint8 RGB image."""
    def register_measure(function: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
        _measures[name] = Quality(name, version, better, function, weight_files, pooled)
        return function
    return register_measure


def get_quality(name: str) -> Quality:
    """The measure of that name.

    Raises:
        FsrError: there is none.
    """
    if name not in _measures:
        raise unknown("quality", name, list(_measures))
    return _measures[name]


_PYIQA = importlib.metadata.version("pyiqa")


@lru_cache(maxsize=1)
def _hyperiqa():
    """The network with its weights, on the GPU where there is one."""
    from fsrbench.weights.networks import load_strict, read_state, unwrap

    return load_strict(hyperiqa_network(), unwrap(read_state(require(HYPERIQA.name))),
                       HYPERIQA.name).to(device())


def hyperiqa_network():
    """pyiqa's network, untrained.

    Its constructor would fetch ImageNet weights for the backbone, which the published file replaces
    anyhow.
    """
    from unittest.mock import patch

    from pyiqa.archs import hypernet_arch
    from timm import create_model

    def untrained(*words, **options):
        return create_model(*words, **{**options, "pretrained": False})

    with patch.object(hypernet_arch.timm, "create_model", untrained):
        return hypernet_arch.HyperNet(pretrained=False)


def crops(image: np.ndarray) -> np.ndarray:
    """The nine crops of an image, uint8 (9, 224, 224, 3): bilinear to 512x384, then the grid."""
    from PIL import Image

    height, width = RESIZED
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return np.stack([resized[y:y + CROP, x:x + CROP] for y, x in GRID])


@quality("hyperiqa", f"1+pyiqa-{_PYIQA}", +1, (HYPERIQA.name,), pooled=False)
def hyperiqa(image: np.ndarray) -> float:
    """HyperIQA, about 0 to 1, more is better: the mean over the grid of crops."""
    import torch

    from fsrbench.imaging import to_float

    with torch.inference_mode():
        patches = torch.from_numpy(to_float(crops(image))).to(device())
        return float(_hyperiqa().forward_patch(patches).double().mean())


@lru_cache(maxsize=1)
def _piqe():
    import pyiqa
    import torch

    return pyiqa.create_metric("piqe", device=torch.device("cpu"))


@quality("piqe", f"1+pyiqa-{_PYIQA}", -1)
def piqe(image: np.ndarray) -> float:
    """PIQE, 0 to 100, less is better; no weights."""
    import torch

    from fsrbench.imaging import to_float

    with torch.inference_mode():
        return float(_piqe()(torch.from_numpy(to_float(image[None]))))


@dataclass(frozen=True)
class Measured:
    """A value, or why there is none; `lasting` where the content is to blame, so that it is so next
    time too."""

    value: float
    error: str = ""
    lasting: bool = True


def _measure_one(function: Callable, job: tuple) -> Measured:
    try:
        value = float(function(*job))
    except FsrError as error:
        if error.blames_weights:
            raise
        return Measured(float("nan"), error.cause)
    except OSError as error:
        return Measured(float("nan"), f"cannot be read ({error.strerror})", lasting=False)
    return Measured(value, "" if np.isfinite(value) else "has no value")


def measured(function: Callable[..., float], keys: Sequence[str], jobs: Sequence[tuple],
             store: Store, what: str, many: bool = True, chunk: int = 256) -> list[Measured]:
    """function(*job) for each job, once per key, kept in the store.

    Args:
        function: raises FsrError where the content has no value; that is kept too.
        keys: decided by all that the value depends on; equal keys are measured once.
        what: for the progress bar.
        many: whether processes may share the work.
        chunk: jobs between two writes; after a minute what is there is written all the same.
    """
    import time

    rows = store.read("scores", key=set(keys))
    known = {k: Measured(v, e) for k, v, e in zip(rows["key"], rows["value"], rows["error"])}
    todo = {key: job for key, job in zip(keys, jobs) if key not in known}
    done = pooled(partial(_measure_one, function), list(todo.values()),
                  few=64 if many else len(todo) + 1)
    fresh: list[dict] = []
    written = time.monotonic()
    for key, found in zip(todo, progress(done, total=len(todo), desc=what)):
        known[key] = found
        if found.lasting:
            fresh.append({"key": key, "value": found.value, "error": found.error})
        if len(fresh) == chunk or time.monotonic() > written + 60:
            store.append("scores", fresh)
            fresh, written = [], time.monotonic()
    store.append("scores", fresh)
    return [known[key] for key in keys]


def _score_entry(score: Callable, read: Callable, root: Path, path: str) -> float:
    try:
        image = decode(read(root, path), path)
    except FsrError:
        # The decoder's words may hold addresses of this process; the name says enough.
        raise FsrError(f"image {path}", "not a whole image") from None
    return score(image)


def scores(entries: Sequence[Entry], root: Path, read: Callable, measure: Quality,
           store: Store) -> list[Measured]:
    """The measure of every entry (with digests), in their order."""
    name = measure.id
    keys = [digest(f"{name}|{e.sha256}".encode()) for e in entries]
    return measured(partial(_score_entry, measure.score, read, root), keys,
                    [(e.path,) for e in entries], store, measure.name, many=measure.pooled)


@quality("side", "1", +1)
def side(image: np.ndarray) -> float:
    """The shorter side in pixels; it also tells whether an image can be read at all."""
    return float(min(image.shape[:2]))
