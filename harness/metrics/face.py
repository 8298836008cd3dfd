"""What a detector and a recogniser say of a restored face: whether one is found, how far its
landmarks are from the ground truth's, how far it is from the person's reference set, and the angle
of two embeddings.

The first three look for the face in each image by itself, as those must who have no ground truth;
where none is found there is no value, and the table counts it as failed. The angle is Deg of VQFR
and PMRF, by a recogniser that is at hand, which its id names; both images are cut alike. Unlike in
their scripts equal images count with 0 degrees, and the cosine is clipped before the arc cosine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsrbench.faces.detect import SHAPE_68, find
from fsrbench.metrics import Feature, Metric, feature, metric
from fsrbench.metrics.identity import DLIB, cosine_distance, dlib_embeddings

_CHIP = "dlib-chip@1"
_POINTS, _EMBEDDING = 136, 128


def detected(images: list[np.ndarray], _contexts: list) -> np.ndarray:
    """68 landmarks (x and y, in pixels) and dlib's embedding of the largest face of each image, (N,
    264); NaN where none is found."""
    found = [find(image, alone=True) for image in images]
    vectors = np.full((len(images), _POINTS + _EMBEDDING), np.nan, np.float32)
    seen = [i for i, one in enumerate(found) if one]
    if seen:
        points = [found[i].points for i in seen]
        # On the processor, as the detector: a pool of processes would each take a GPU.
        embedded = dlib_embeddings([images[i] for i in seen], points, "cpu")
        vectors[seen] = np.hstack([np.stack(points).reshape(len(seen), -1), embedded])
    return vectors


def face_found(restored: np.ndarray) -> np.ndarray:
    """1 where a face was found, else 0, of vectors of `detected`."""
    return np.isfinite(restored).all(1).astype(np.float64)


def landmark_distance(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance of the 68 landmarks in pixels; NaN where either has no face."""
    moved = restored[:, :_POINTS].astype(np.float64) - truth[:, :_POINTS]
    return np.linalg.norm(moved.reshape(len(moved), -1, 2), axis=2).mean(1)


def reference_distance(restored: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the reference set of 1 - cosine of the embeddings; references without a face do not
    count, and where none is left there is no value."""
    values = np.full(len(restored), np.nan)
    for i, (ours, theirs) in enumerate(zip(restored[:, _POINTS:], references)):
        theirs = theirs[np.isfinite(theirs).all(1), _POINTS:]
        if len(theirs):
            values[i] = cosine_distance(np.repeat(ours[None], len(theirs), 0), theirs).mean()
    return values


def angle(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Angle of each pair of embeddings (N, F) in degrees, 0 to 180."""
    return np.degrees(np.arccos(np.clip(1 - cosine_distance(restored, truth), -1, 1)))


_DETECTOR = "dlib's HOG detector and 68 landmarks, in 8-bit RGB"
_SEEN = feature(Feature("face-dlib@1", detected, (SHAPE_68.name, DLIB.name),
                        single_core=True, libraries=("dlib-bin",))).id
metric(Metric("face.found@dlib", "Face found", +1, "own", face_found, feature=_SEEN, digits=1,
              percent=True, words=f"share of images in which a face is found by {_DETECTOR}"))
metric(Metric("lmd.68@dlib", "LMD-68", -1, "identity", landmark_distance, feature=_SEEN, digits=2,
              lacks="no face found in it or in the ground truth",
              words="mean distance of 68 landmarks in pixels, so only images of one "
                    f"size compare; each image by itself, by {_DETECTOR}"))
metric(Metric("idr.mean@dlib", "ID to references", -1, "references", reference_distance,
              feature=_SEEN, lacks="no face found in it, or no reference with a face",
              words="1 - cosine of dlib's embeddings, mean over the person's reference set; each "
                    f"image cut by its own landmarks, by {_DETECTOR}"))
metric(Metric("deg.angle@dlib", "Deg (dlib)", -1, "identity", angle, feature=_CHIP, digits=2,
              words="angle of dlib's embeddings, not ArcFace's, in degrees; 8-bit RGB, both cut "
                    "alike by the ground truth's landmarks"))
