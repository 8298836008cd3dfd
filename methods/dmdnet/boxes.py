"""DMDNet's boxes of eyes, nose and mouth, from landmarks."""

from __future__ import annotations

import numpy as np

from fsrbench.methods.dmdnet.network import PARTS, SCALES

_EYES = ((np.r_[36:42], np.r_[17:22, 36:42]), (np.r_[42:48], np.r_[22:27, 42:48]))


def part_boxes(points: np.ndarray, size: int) -> np.ndarray:
    """Boxes of left eye, right eye, nose and mouth, int64 (4, 4) rows of (left, top, right, bottom)
    in pixels.

    The official arithmetic at 512 pixels, and the same share of the face at other sizes.

    Args:
        points: (68, 2) landmarks in the image's pixels.

    Raises:
        ValueError: an eye or the mouth is not in the image (the official script gives the image up
            there).
    """
    k = size / 512
    p = np.clip(np.asarray(points, np.float64), 8 * k, 504 * k)
    boxes = []
    for eye, around in _EYES:
        c = p[eye].mean(0)
        above = 1.3 * (c[1] - p[around, 1].min())
        below = above / 1.9
        half = (above + below) / 2
        boxes.append([*(c - [half, above] + k), *(c + [half, below])])
    c = p[29:36].mean(0)
    half, below = 1.25 * max(c[0] - p[31, 0], p[35, 0] - c[0]), 1.1 * (p[33, 1] - c[1])
    boxes.append([*(c - [half, 2 * half - below] + k), *(c + [half, below])])
    mouth = p[48:68]
    c, reach = mouth.mean(0), 1.1 * max(np.ptp(mouth, axis=0).max() / 2, 16 * k)
    boxes.append([*(c - reach + k), *np.minimum(c + reach, 510 * k)])
    found = np.trunc(np.array(boxes)).astype(np.int64)
    used = found[list(PARTS.values())]
    coarsest = used // max(SCALES.values())
    if (used[:, :2] < 0).any() or (used[:, 2:] > size).any() or (coarsest[:, 2:]
                                                                 <= coarsest[:, :2]).any():
        raise ValueError("by its landmarks an eye or the mouth is not in the image")
    return found
