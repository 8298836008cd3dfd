"""Images that stay in the store and are read when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

from fsrbench.core import FaceImage
from fsrbench.engine.store import Store
from fsrbench.faces.geometry import Landmarks

# Bytes of the images that were asked for last, which methods and metrics ask for again.
RECENT_BYTES = 128 << 20


class Recent:
    """The images that were asked for last, by store and digest, up to so many bytes; the last one
    stays whatever its size."""

    def __init__(self):
        self._images: OrderedDict[tuple[Path, str], np.ndarray] = OrderedDict()
        self._bytes = 0

    def __call__(self, store: Store, digest: str) -> np.ndarray:
        """`store.image`."""
        key = store.root, digest
        if key not in self._images:
            self._images[key] = image = store.image(digest)
            self._bytes += image.nbytes
        self._images.move_to_end(key)
        while len(self._images) > 1 and self._bytes > RECENT_BYTES:
            self._bytes -= self._images.popitem(last=False)[1].nbytes
        return self._images[key]

    def held(self, store: Store) -> list[str]:
        """Digests of the images of a store that are in memory."""
        return [digest for root, digest in self._images if root == store.root]


recent_image = Recent()


class Kept(FaceImage):
    """An image whose pixels are read from the store whenever they are asked for.

    Args:
        id, digest, landmarks: as of any face image; digest: empty where there is no image.
        flat: whether it is of one colour; None where nobody has looked.
    """

    def __new__(cls, *given, image: np.ndarray | None = None, **named):
        # `dataclasses.replace` gives the pixels, not the store.
        return super().__new__(cls) if image is None else FaceImage(image=image, **named)

    def __init__(self, id: str, digest: str, landmarks: Landmarks, store: Store,
                 flat: bool | None = None):
        for name, value in {"id": id, "digest": digest, "landmarks": landmarks, "store": store,
                            "flat": flat}.items():
            object.__setattr__(self, name, value)

    @property
    def image(self) -> np.ndarray:
        return recent_image(self.store, self.digest)
