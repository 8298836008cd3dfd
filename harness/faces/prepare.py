"""An image of a data set as the benchmark sees it: one face, detected, aligned, cut out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsrbench.faces.align import ffhq_frame, invert, outside_share, sample, transform
from fsrbench.faces.detect import find, find_aligned
from fsrbench.faces.geometry import FFHQ, Frame, Landmarks


@dataclass(frozen=True)
class Preparation:
    """What is done to every image of a set: side in pixels, framing, and whether it is aligned
    already."""

    size: int
    frame: Frame = FFHQ
    aligned: bool = False


@dataclass(frozen=True)
class Cut:
    """An aligned image.

    Args:
        image: uint8 (size, size, 3); landmarks: in its own pixels.
        outside: share of it beyond the border of what it was cut from, which was mirrored.
        step: how many pixels of the original one of its pixels is wide.
    """

    image: np.ndarray
    landmarks: Landmarks
    outside: float
    step: float


def cut(image: np.ndarray, how: Preparation) -> Cut | None:
    """The face of an uint8 RGB image, aligned; None without one.

    An image that is FFHQ-aligned already is only cropped and resized.
    """
    if how.aligned:
        side = min(image.shape[:2])
        step = side * how.frame.scale / how.size
        corner = side * (0.5 - how.frame.scale / 2) + step / 2 - 0.5
        matrix = np.array([[step, 0, corner], [0, step, corner + side * how.frame.drop]])
        square = image[(image.shape[0] - side) // 2:, (image.shape[1] - side) // 2:][:side, :side]
        found, image = find_aligned(square, FFHQ), square
    else:
        found = find(image)
        if found is None:
            return None
        matrix = ffhq_frame(found.points, how.size, how.frame)
    points = transform(invert(matrix), found.points)
    return Cut(sample(image, matrix, how.size), Landmarks(points, found.source),
               outside_share(matrix, how.size, *image.shape[:2]), float(np.hypot(*matrix[:, 0])))


def align(image: np.ndarray, how: Preparation) -> tuple[np.ndarray, Landmarks, float] | None:
    """Aligned image, its landmarks in its own pixels, and the share of it that was mirrored; None
    without a face."""
    found = cut(image, how)
    return found and (found.image, found.landmarks, found.outside)
