"""Landmarks, the mean face and what an aligned image shows: the geometry that everything else
agrees on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Source of landmarks that are the mean face's, because no detector found any.
TEMPLATE = "template"


@dataclass(frozen=True)
class Landmarks:
    """68 iBUG points (68, 2) as (x, y) in pixel-centre coordinates, and the detector that gave
    them."""

    points: np.ndarray
    source: str


@dataclass(frozen=True)
class Frame:
    """What an aligned image shows, relative to FFHQ's alignment.

    Args:
        scale: side of the crop as a share of FFHQ's (1 = FFHQ, smaller = tighter around the face).
        drop: how far its centre lies below FFHQ's, as a share of FFHQ's side.
    """

    scale: float = 1.0
    drop: float = 0.0


FFHQ = Frame()

# Median over 13,190 detections of dlib in Labeled Faces in the Wild, FFHQ-aligned, made
# mirror-symmetric; (x, y) as shares of the FFHQ side. Measured spread about it: 0.7 % of the side
# at the eyes, 2.5 % at the mouth, 5.5 % at the jaw.
_MEAN_FACE = np.array([
    (0.2185, 0.4844), (0.2226, 0.5578), (0.2302, 0.6313), (0.2421, 0.7044), (0.2658, 0.7740),
    (0.3068, 0.8358),
    (0.3626, 0.8867), (0.4269, 0.9266), (0.5000, 0.9382), (0.5731, 0.9266), (0.6374, 0.8867),
    (0.6932, 0.8358),
    (0.7342, 0.7740), (0.7579, 0.7044), (0.7698, 0.6313), (0.7774, 0.5578), (0.7815, 0.4844),
    (0.2749, 0.4301),
    (0.3082, 0.3975), (0.3567, 0.3858), (0.4071, 0.3912), (0.4549, 0.4096), (0.5451, 0.4096),
    (0.5929, 0.3912),
    (0.6433, 0.3858), (0.6918, 0.3975), (0.7251, 0.4301), (0.5000, 0.4642), (0.5000, 0.5112),
    (0.5000, 0.5582),
    (0.5000, 0.6069), (0.4437, 0.6410), (0.4705, 0.6513), (0.5000, 0.6599), (0.5295, 0.6513),
    (0.5563, 0.6410),
    (0.3306, 0.4751), (0.3596, 0.4584), (0.3952, 0.4583), (0.4272, 0.4787), (0.3931, 0.4849),
    (0.3586, 0.4851),
    (0.5728, 0.4787), (0.6048, 0.4583), (0.6404, 0.4584), (0.6694, 0.4751), (0.6414, 0.4851),
    (0.6069, 0.4849),
    (0.3925, 0.7453), (0.4300, 0.7205), (0.4697, 0.7110), (0.5000, 0.7178), (0.5303, 0.7110),
    (0.5700, 0.7205),
    (0.6075, 0.7453), (0.5714, 0.7772), (0.5325, 0.7930), (0.5000, 0.7960), (0.4675, 0.7930),
    (0.4286, 0.7772),
    (0.4094, 0.7451), (0.4695, 0.7336), (0.5000, 0.7365), (0.5305, 0.7336), (0.5906, 0.7451),
    (0.5313, 0.7572), (0.5000, 0.7606), (0.4687, 0.7572),
])

# Index of each point's mirror image.
MIRROR_68 = np.array([*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
                      45, 44, 43, 42, 47, 46,
                      39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64,
                      63, 62, 61, 60, 67, 66, 65])


def template(size: int, frame: Frame = FFHQ) -> np.ndarray:
    """Mean landmarks (68, 2) in pixels of a (size, size) image aligned to that frame."""
    centre = np.array([0.5, 0.5 + frame.drop])
    return ((_MEAN_FACE - centre) / frame.scale + 0.5) * size - 0.5
