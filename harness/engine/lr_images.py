"""LR images of samples: made in one place, once for each sample, factor and degradation, and kept by content."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fsrbench.core import Sample
from fsrbench.degrade.named import get_degradation
from fsrbench.engine.store import Store



class LrImages:
    """LR images under one degradation; a run, its tables, pages and figures ask the same one (see `lr_images`).

    Args:
        degradation: its name; store: where each image is kept by its content, as the records name it.
    """

    def __init__(self, degradation: str, store: Store):
        self.degradation, self.store = get_degradation(degradation), store
        self._made: dict[tuple[str, str, int], tuple[np.ndarray, str]] = {}

    def make(self, samples: Sequence[Sample], scale: int) -> None:
        """Make those of the samples that are not there yet, together."""
        missing = {place: s for s in samples if (place := (s.id, s.gt.digest, scale)) not in self._made}
        if not missing:
            return
        made = self.degradation.apply_batch([s.gt.image for s in missing.values()], scale, [s.id for s in missing.values()])
        self._made |= {place: (image, self.store.put_image(image)) for place, image in zip(missing, made)}

    def __call__(self, sample: Sample, scale: int) -> np.ndarray:
        """The LR image of a sample, uint8 (S/scale, S/scale, 3)."""
        return self._of(sample, scale)[0]

    def digest(self, sample: Sample, scale: int) -> str:
        """The digest of its pixels."""
        return self._of(sample, scale)[1]

    def _of(self, sample: Sample, scale: int) -> tuple[np.ndarray, str]:
        self.make([sample], scale)
        return self._made[sample.id, sample.gt.digest, scale]


@lru_cache(maxsize=4)
def lr_images(degradation: str, store: Store) -> LrImages:
    """The LR images of a store under that degradation, the same object for all who ask."""
    return LrImages(degradation, store)
