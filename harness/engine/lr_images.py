"""LR images of samples: made in one place, once for each sample, factor and degradation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fsrbench.core import Sample
from fsrbench.degrade.named import GIVEN, get_degradation
from fsrbench.engine.store import Store


class LrImages:
    """LR images under one degradation; run, tables, pages and figures ask the same (`lr_images`).

    Args:
        degradation: its name.
        store: where each image is kept by its content, as the records name it.
    """

    def __init__(self, degradation: str, store: Store):
        self.degradation, self.store = get_degradation(degradation), store
        self._made: dict[tuple[str, str, int], tuple[np.ndarray, str]] = {}

    def make(self, samples: Sequence[Sample], scale: int) -> None:
        """Make those of the samples that are not there yet, together."""
        asked = {(s.id, s.gt.digest, scale): s for s in samples}
        missing = [place for place in asked if place not in self._made]
        if missing:
            images, ids = [asked[p].gt.image for p in missing], [asked[p].id for p in missing]
            made = self.degradation.apply_batch(images, scale, ids)
            self._made |= {p: (im, self.store.put_image(im)) for p, im in zip(missing, made)}

    def __call__(self, sample: Sample, scale: int) -> np.ndarray:
        """The LR image of a sample, uint8 (S/scale, S/scale, 3)."""
        return self._of(sample, scale)[0]

    def digest(self, sample: Sample, scale: int) -> str:
        """The digest of its pixels."""
        return self._of(sample, scale)[1]

    def _of(self, sample: Sample, scale: int) -> tuple[np.ndarray, str]:
        if self.degradation is GIVEN:  # the image itself, which may be large: not kept here
            return sample.gt.image, sample.gt.digest
        self.make([sample], scale)
        return self._made[sample.id, sample.gt.digest, scale]


@lru_cache(maxsize=4)
def lr_images(degradation: str, store: Store) -> LrImages:
    """The LR images of a store under that degradation, the same object for all who ask."""
    return LrImages(degradation, store)
