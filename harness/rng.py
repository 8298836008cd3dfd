"""Noise belongs to the sample: every draw comes from a generator seeded by words, never by position
in a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch


def seed_of(*words: object) -> int:
    """63-bit seed from any words, the same on every machine and Python version."""
    text = "\x1f".join(str(word) for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_rng(*words: object) -> np.random.Generator:
    """NumPy generator of these words."""
    return np.random.default_rng(seed_of(*words))


def normal(shape: tuple[int, ...], *words: object) -> torch.Tensor:
    """Standard normal float32 tensor that depends only on `words` and `shape`.

    Drawn by NumPy's PCG64 on the CPU, so it is the same for every device, batch size and thread
    count.
    """
    return torch.from_numpy(numpy_rng(*words).standard_normal(shape, dtype=np.float32))


def stacked_normal(shape: tuple[int, ...], ids: list[str], *words: object) -> torch.Tensor:
    """One `normal(shape)` for each sample id, stacked to (N, *shape)."""
    return torch.stack([normal(shape, *words, sample_id) for sample_id in ids])


def stacked_uniform(shape: tuple[int, ...], ids: list[str], *words: object) -> torch.Tensor:
    """Uniform float32 in [0, 1) for each sample id, stacked to (N, *shape)."""
    drawn = [numpy_rng(*words, sample_id).random(shape, dtype=np.float32) for sample_id in ids]
    return torch.from_numpy(np.stack(drawn))


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(8, "draws")


def ahead(draw: Callable[[int], torch.Tensor], place: str) -> Callable[[], torch.Tensor]:
    """Draws 0, 1, 2 and so on, on a device; before a GPU asks for one it is made beside its work,
    as are the next two."""
    if place == "cpu":
        order = iter(range(2**62))
        return lambda: draw(next(order))
    made = [_workers().submit(draw, i) for i in range(3)]

    def following() -> torch.Tensor:
        made.append(_workers().submit(draw, len(made)))
        index = len(made) - 4
        found, made[index] = made[index].result(), None
        return found.to(place)
    return following
