"""The paper's protocol as code (4.1): who is drawn, how a person's images are halved, which
reference is used.

"We uniformly sample 10 % of the IDs ... Each sampled ID is equally divided into a fine-tuning set
and a test set. We filter out certain identities that may contain only a small number of images."
Every choice here is ordered by a hash of the seed and the name, so it does not depend on the order
of files or on what else lies in the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


def _order(names: Iterable[str], *words: object) -> list[str]:
    """Names in a random order that each name's own hash decides."""
    prefix = "\x1f".join(str(word) for word in words)
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{prefix}\x1f{name}".encode())
                  .digest())


def draw_people(people: Iterable[str], rate: float, seed: int) -> list[str]:
    """People drawn uniformly at a rate for evaluation, in drawing order; the others may train."""
    order = _order(people, "people", seed)
    return order[:max(1, round(rate * len(order)))]


def halve(images: Iterable[str], person: str, seed: int) -> tuple[list[str], list[str]]:
    """(fine-tune half, test half) of one person's images, each sorted; an odd one goes to the
    fine-tune half."""
    order = _order(images, "half", seed, person)
    middle = (len(order) + 1) // 2
    return sorted(order[:middle]), sorted(order[middle:])


def draw_reference(finetune: Sequence[str], sample: str, seed: int) -> str:
    """The reference I_R of a test image: one of its person's fine-tune half."""
    return _order(finetune, "reference", seed, sample)[0]


def signature(image: np.ndarray) -> np.ndarray:
    """What an image shows, coarsely: its grey values on a 16x16 grid without their mean, int8
    (256,).

    Equal for a recompressed or rescaled copy up to noise, whatever the file is called.
    """
    from fsrbench.imaging import imresize

    grid = imresize(image.astype(np.float64).mean(-1), 16, 16).ravel()
    grid = grid - grid.mean()
    return np.round(grid / max(np.abs(grid).max(), 1e-9) * 127).astype(np.int8)


def mirrored(signatures: np.ndarray) -> np.ndarray:
    """Signatures (N, 256) of the same images mirrored."""
    return signatures.reshape(-1, 16, 16)[:, :, ::-1].reshape(-1, 256)


def signature_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - correlation (N, M) of two sets of signatures (N, 256) and (M, 256)."""
    def unit(x):
        x = x.astype(np.float32)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return 1 - unit(a) @ unit(b).T


def fingerprint(signatures: np.ndarray) -> np.ndarray:
    """512 signs of fixed random projections of signatures (N, 256), as (N, 64) bytes.

    Enough to recognise a copy of an image, too little to show it; so a list of them may stand
    beside a set of weights.
    """
    from fsrbench.rng import numpy_rng

    projections = numpy_rng("fingerprint").standard_normal((256, 512))
    return np.packbits(signatures.astype(np.float64) @ projections > 0, axis=1)


def fingerprint_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differing bits (N, M) of two sets of fingerprints (N, 64) and (M, 64)."""
    return np.bitwise_count(a[:, None] ^ b[None]).sum(-1, dtype=np.int32)
