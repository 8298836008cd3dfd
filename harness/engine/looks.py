"""What of aligned images is compared with others, kept in the store by content, so that a later run
opens none of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fsrbench.core import FaceImage
from fsrbench.engine.copies import look, near_duplicates
from fsrbench.engine.counting import FLAT, is_flat
from fsrbench.engine.keys import code_digest, digest_of
from fsrbench.engine.splits import signature
from fsrbench.engine.store import Store
from fsrbench.progress import progress

LOOK, COPIES = "aligned look", "near duplicates"
# Images looked at between two writes.
CHUNK = 256


class Seen(NamedTuple):
    """What is known of an aligned image: whether it is of one colour, and its signature (256,)."""

    flat: bool
    signature: np.ndarray


class Looks:
    """Looks at the images of a store, each once."""

    def __init__(self, store: Store):
        self.store, self._code = store, code_digest("fsrbench.engine.copies")
        self._fresh: dict[str, np.ndarray] = {}

    def of(self, images: Iterable[str]) -> dict[str, Seen]:
        """What is known of images, by digest."""
        keys = {digest_of(LOOK, self._code, FLAT, image): image for image in images if image}
        known = self.store.read("features", ("key", "vector"), key=list(keys))
        found = {keys[key]: Seen(bool(vector[0]), vector[1:].astype(np.int8))
                 for key, vector in zip(known["key"], known["vector"])}
        todo = [key for key in keys if keys[key] not in found]
        for at in progress(range(0, len(todo), CHUNK), desc="looking at images", unit="chunk"):
            fresh = {key: self._look(keys[key]) for key in todo[at:at + CHUNK]}
            self._keep(LOOK, {key: [seen.flat, *seen.signature] for key, seen in fresh.items()})
            found.update({keys[key]: seen for key, seen in fresh.items()})
        return found

    def _look(self, digest: str) -> Seen:
        image = self.store.image(digest)
        return Seen(is_flat(image), signature(image))

    @cached_property
    def _copies(self) -> dict[str, np.ndarray]:
        known = self.store.read("features", ("key", "vector"), feature=[COPIES])
        return dict(zip(known["key"], known["vector"]))

    def copies(self, a: Sequence[FaceImage], b: Sequence[FaceImage]) -> np.ndarray:
        """Whether each of `a` is a near duplicate of each of `b`: (N, M) bool."""
        key = digest_of(COPIES, self._code, *(p.digest for p in a), "|", *(p.digest for p in b))
        if key not in self._copies:
            found = near_duplicates([look(p.image) for p in a], [look(p.image) for p in b])
            self._copies[key] = self._fresh[key] = found.ravel()
        return np.asarray(self._copies[key]).reshape(len(a), len(b)).astype(bool)

    def keep(self) -> None:
        """Write what was compared."""
        self._keep(COPIES, self._fresh)
        self._fresh.clear()

    def _keep(self, feature: str, vectors: dict[str, Sequence[float]]) -> None:
        self.store.append("features", [
            {"key": key, "feature": feature, "vector": np.asarray(vector, np.float32)}
            for key, vector in vectors.items()])
