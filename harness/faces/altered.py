"""Pictures altered for the probes: mirrored, relit, coarse, turned, moved half way to another's,
and the mean of many.

Each is a pure function of its pictures; landmarks go with the pixels. Records name a picture by
what it shows, so no code here is in a key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsrbench.core import Picture
from fsrbench.faces.geometry import MIRROR_68, Frame, Landmarks, template
from fsrbench.faces.warp import bilinear, warp_map, with_forehead
from fsrbench.imaging import image_digest, imresize, to_float, to_uint8

# Light from the right: the left border keeps this share of its light, the right one gets this much.
SHADE, GLARE = 0.35, 1.5
# Radius of the head's cylinder in half widths of the jaw, whose ends then lie 72 degrees aside.
HEAD = 1.05
NOBODY = "mean face"


def altered(picture: Picture, image: np.ndarray, points: np.ndarray | None = None,
            name: str = "") -> Picture:
    """A picture of another content: uint8 (S, S, 3), its landmarks (68, 2) where they moved."""
    marks = picture.landmarks if points is None else Landmarks(points, picture.landmarks.source)
    return Picture(name or picture.id, image_digest(image), np.ascontiguousarray(image), marks)


def mirrored(picture: Picture) -> Picture:
    """Left and right exchanged."""
    points = picture.landmarks.points[MIRROR_68] * [-1, 1] + [picture.image.shape[1] - 1, 0]
    return altered(picture, picture.image[:, ::-1], points)


def relit(picture: Picture) -> Picture:
    """Light from the right: grey levels times a ramp from `SHADE` to `GLARE`."""
    ramp = np.linspace(SHADE, GLARE, picture.image.shape[1])[None, :, None]
    return altered(picture, np.clip(picture.image * ramp + 0.5, 0, 255).astype(np.uint8))


def coarse(picture: Picture, factor: int = 4) -> Picture:
    """Downsampled by a factor and upsampled again, bicubically; no smaller than 2 px."""
    size = picture.image.shape[0]
    small = imresize(to_float(picture.image[None]), max(2, size // factor), max(2, size // factor))
    return altered(picture, to_uint8(np.clip(imresize(small, size, size), 0, 1))[0])


def _with_border(points: np.ndarray, size: int) -> np.ndarray:
    """Face points, forehead included, and eight of the image's border, which stay in place."""
    low, middle, high = -1.0, (size - 1) / 2, float(size)
    border = [(x, y) for x in (low, middle, high) for y in (low, middle, high)
              if (x, y) != (middle, middle)]
    return np.concatenate([with_forehead(points), border])


def moved(picture: Picture, points: np.ndarray) -> np.ndarray:
    """The picture, float32 (S, S, 3) of 0 to 255, warped so that its landmarks lie at `points`
    (68, 2)."""
    size = picture.image.shape[0]
    source = _with_border(picture.landmarks.points, size)
    inside, at = warp_map(source, _with_border(points, size), size, size)
    out = picture.image.astype(np.float32).reshape(-1, 3).copy()
    out[inside] = bilinear(picture.image.astype(np.float32), at)
    return out.reshape(size, size, 3)


def turned_points(points: np.ndarray, degrees: float) -> np.ndarray:
    """Landmarks (68, 2) of a head that turns about its vertical axis, taken for a cylinder.

    What turns out of sight stays at the edge, as the jaw's landmarks do in photographs.
    """
    middle = (points[0, 0] + points[16, 0]) / 2
    radius = HEAD * max(1.0, abs(points[16, 0] - points[0, 0]) / 2)
    angle = np.arcsin(np.clip((points[:, 0] - middle) / radius, -1, 1))
    swung = np.clip(angle + np.radians(degrees), -np.pi / 2, np.pi / 2)
    # The head turns in place: the middle of the jaw's ends is kept.
    x = radius * np.sin(swung)
    return np.column_stack([middle + x - (x[0] + x[16]) / 2, points[:, 1]])


def turned(picture: Picture, degrees: float = 30) -> Picture:
    """The face turned aside by so many degrees, by its landmarks on a cylinder; the background
    follows."""
    points = turned_points(picture.landmarks.points, degrees)
    return altered(picture, np.floor(moved(picture, points) + 0.5).astype(np.uint8), points)


def blend(pictures: Sequence[Picture], points: np.ndarray, name: str) -> Picture:
    """The mean of pictures whose landmarks were moved to `points` (68, 2)."""
    mean = np.mean([moved(p, points) for p in pictures], 0)
    return altered(pictures[0], np.floor(mean + 0.5).astype(np.uint8), points, name)


def between(one: Picture, other: Picture) -> Picture:
    """Half way from one face to another: landmarks and grey levels are the mean of both; keeps the
    name of the first."""
    return blend([one, other], (one.landmarks.points + other.landmarks.points) / 2, one.id)


def mean_face(pictures: Sequence[Picture], frame: Frame) -> Picture:
    """The face of nobody: the mean of all pictures, each warped onto the frame's mean landmarks."""
    return blend(pictures, template(pictures[0].image.shape[0], frame), f"{NOBODY}/{NOBODY}")
