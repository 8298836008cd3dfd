"""Embeddings by landmarks that are found on the image itself: points of the ground truth hide a
face that no detector sees."""

from __future__ import annotations

from functools import partial

import numpy as np

from fsrbench.faces.detect import SHAPE_68, find
from fsrbench.metrics import Feature, feature
from fsrbench.metrics.recognisers import FED, RECOGNISERS, Onnx, aligned


def embedded(how: Onnx, length: int, images: list[np.ndarray], _contexts: list) -> np.ndarray:
    """Embeddings (N, `length`) of the chips that landmarks found on each image cut; NaN where there
    is no face."""
    found = [find(image, alone=True) for image in images]
    vectors = np.full((len(images), length), np.nan, np.float32)
    if seen := [i for i, face in enumerate(found) if face]:
        vectors[seen] = aligned(how, [images[i] for i in seen], [found[i].points for i in seen])
    return vectors


for _name, _length in (("frfeature", 512), ("sface", 128)):
    feature(Feature(RECOGNISERS[_name].detected, partial(embedded, FED[_name], _length),
                    (FED[_name].weights, SHAPE_68.name)))
