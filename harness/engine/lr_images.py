"""LR images of samples: made in one place, once for each sample, factor and degradation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from fsrbench.core import Sample
from fsrbench.degrade.named import GIVEN, get_degradation
from fsrbench.engine.keys import code_digest, digest_of
from fsrbench.engine.kept import recent_image
from fsrbench.engine.provenance import DECIDING, version
from fsrbench.engine.store import Store

# Images whose originals are in memory together.
CHUNK = 64


class LrImages:
    """LR images under one degradation; run, tables, pages and figures ask the same (`lr_images`).

    Args:
        degradation: its name.
        store: where each image is kept by its content, as the records name it.
    """

    def __init__(self, degradation: str, store: Store):
        self.degradation, self.store = get_degradation(degradation), store
        self._made: dict[tuple[str, str, int], str] = {}

    @cached_property
    def _how(self) -> str:
        """Digest of what decides an LR image beside its original: code, and the libraries that
        compute."""
        functions = filter(None, (self.degradation.apply, self.degradation.full))
        return digest_of(self.degradation.id, *map(version, DECIDING),
                         *(code_digest(function.__module__) for function in functions))

    @cached_property
    def _known(self) -> dict[str, str]:
        """Digests of the LR images that the store has, by key."""
        rows = self.store.read("lr")
        return dict(zip(rows["key"], rows["image"]))

    def _key(self, sample: Sample, scale: int) -> str:
        return digest_of("LR image", self._how, scale, sample.id, sample.gt.digest)

    def make(self, samples: Sequence[Sample], scale: int) -> None:
        """Make those of the samples that are not there yet, together."""
        asked = {(s.id, s.gt.digest, scale): s for s in samples}
        missing = [place for place in asked if place not in self._made]
        todo = {place: key for place in missing
                if not self._find(place, key := self._key(asked[place], scale))}
        for places in (list(todo)[at:at + CHUNK] for at in range(0, len(todo), CHUNK)):
            of = [asked[place] for place in places]
            made = self.degradation.apply_batch([s.gt.image for s in of], scale,
                                                [s.id for s in of])
            fresh = {place: self.store.put_image(image) for place, image in zip(places, made)}
            self.store.append("lr", [{"key": todo[p], "image": image}
                                     for p, image in fresh.items()])
            self._made |= fresh

    def _find(self, place: tuple[str, str, int], key: str) -> bool:
        """Whether the store has an LR image; one that it has lost is made again."""
        image = self._known.get(key)
        if image and self.store.holds(image):
            self._made[place] = image
        return place in self._made

    def __call__(self, sample: Sample, scale: int) -> np.ndarray:
        """The LR image of a sample, uint8 (S/scale, S/scale, 3)."""
        if self.degradation is GIVEN:
            return sample.gt.image
        return recent_image(self.store, self.digest(sample, scale))

    def digest(self, sample: Sample, scale: int) -> str:
        """The digest of its pixels."""
        if self.degradation is GIVEN:  # the image itself
            return sample.gt.digest
        self.make([sample], scale)
        return self._made[sample.id, sample.gt.digest, scale]


@lru_cache(maxsize=4)
def lr_images(degradation: str, store: Store) -> LrImages:
    """The LR images of a store under that degradation, the same object for all who ask."""
    return LrImages(degradation, store)
