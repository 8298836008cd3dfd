"""Embeddings by landmarks that are found on the image itself: points of the ground truth hide a
face that no detector sees."""

from __future__ import annotations

from functools import cache, partial

import numpy as np

from fsrbench.faces.detect import SHAPE_68
from fsrbench.metrics import Feature, feature
from fsrbench.metrics.recognisers import FED, RECOGNISERS, Onnx, aligned
from fsrbench.weights.catalogue import require

# Side to which an image is brought where a face is looked for, and dlib's least score of one, as
# `faces.detect.find` has them for small images; that takes RetinaFace where its file is, so its
# answer depends on the machine.
_LOOKED_AT, _UNSURE = 320, -0.2


@cache
def _detector():
    import dlib

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(require(SHAPE_68.name)))


def detected(image: np.ndarray) -> np.ndarray | None:
    """Landmarks (68, 2) of the largest face that dlib's HOG detector sees in an uint8 image; None
    where it sees none."""
    from PIL import Image

    detector, predictor = _detector()
    side = max(image.shape[:2])
    scale = side / max(_LOOKED_AT, side)
    height, width = (round(length / scale) for length in image.shape[:2])
    big = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    boxes = detector.run(big, 0, _UNSURE)[0]
    if not boxes:
        return None
    shape = predictor(big, max(boxes, key=lambda box: box.area()))
    return (np.array([[p.x, p.y] for p in shape.parts()], dtype=np.float64) + 0.5) * scale - 0.5


def embedded(how: Onnx, length: int, images: list[np.ndarray], _contexts: list) -> np.ndarray:
    """Embeddings (N, `length`) of the chips that landmarks found on each image cut; NaN where there
    is no face."""
    found = [detected(image) for image in images]
    vectors = np.full((len(images), length), np.nan, np.float32)
    if seen := [i for i, points in enumerate(found) if points is not None]:
        vectors[seen] = aligned(how, [images[i] for i in seen], [found[i] for i in seen])
    return vectors


for _name, _length in (("frfeature", 512), ("sface", 128)):
    feature(Feature(RECOGNISERS[_name].detected, partial(embedded, FED[_name], _length),
                    (FED[_name].weights, SHAPE_68.name)))
