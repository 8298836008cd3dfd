"""Images altered for the probes: mirrored, relit, coarse, turned, moved half way to another's,
and the mean of many.

Each is a pure function of its images; landmarks go with the pixels. Records name an image by
what it shows, so no code here is in a key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsrbench.core import FaceImage
from fsrbench.faces.geometry import MIRROR_68, Frame, Landmarks, template
from fsrbench.faces.warp import bilinear, warp_map, with_forehead
from fsrbench.imaging import image_digest, imresize, to_float, to_uint8

# Light from the right: the left border keeps this share of its light, the right one gets this much.
SHADE, GLARE = 0.35, 1.5
# Radius of the head's cylinder in half widths of the jaw, whose ends then lie 72 degrees aside.
HEAD = 1.05
NOBODY = "mean face"


def altered(face: FaceImage, image: np.ndarray, points: np.ndarray | None = None,
            name: str = "") -> FaceImage:
    """An image of another content: uint8 (S, S, 3), its landmarks (68, 2) where they moved."""
    marks = face.landmarks if points is None else Landmarks(points, face.landmarks.source)
    return FaceImage(name or face.id, image_digest(image), np.ascontiguousarray(image), marks)


def mirrored(face: FaceImage) -> FaceImage:
    """Left and right exchanged."""
    points = face.landmarks.points[MIRROR_68] * [-1, 1] + [face.image.shape[1] - 1, 0]
    return altered(face, face.image[:, ::-1], points)


def relit(face: FaceImage) -> FaceImage:
    """Light from the right: grey levels times a ramp from `SHADE` to `GLARE`."""
    ramp = np.linspace(SHADE, GLARE, face.image.shape[1])[None, :, None]
    return altered(face, np.clip(face.image * ramp + 0.5, 0, 255).astype(np.uint8))


def coarse(face: FaceImage, factor: int = 4) -> FaceImage:
    """Downsampled by a factor and upsampled again, bicubically; no smaller than 2 px."""
    size = face.image.shape[0]
    small = imresize(to_float(face.image[None]), max(2, size // factor), max(2, size // factor))
    return altered(face, to_uint8(np.clip(imresize(small, size, size), 0, 1))[0])


def _with_border(points: np.ndarray, size: int) -> np.ndarray:
    """Face points, forehead included, and eight of the image's border, which stay in place."""
    low, middle, high = -1.0, (size - 1) / 2, float(size)
    border = [(x, y) for x in (low, middle, high) for y in (low, middle, high)
              if (x, y) != (middle, middle)]
    return np.concatenate([with_forehead(points), border])


def moved(face: FaceImage, points: np.ndarray) -> np.ndarray:
    """The face, float32 (S, S, 3) of 0 to 255, warped so that its landmarks lie at `points`
    (68, 2)."""
    size = face.image.shape[0]
    source = _with_border(face.landmarks.points, size)
    inside, at = warp_map(source, _with_border(points, size), size, size)
    out = face.image.astype(np.float32).reshape(-1, 3).copy()
    out[inside] = bilinear(face.image.astype(np.float32), at)
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


def turned(face: FaceImage, degrees: float = 30) -> FaceImage:
    """The face turned aside by so many degrees, by its landmarks on a cylinder; the background
    follows."""
    points = turned_points(face.landmarks.points, degrees)
    return altered(face, np.floor(moved(face, points) + 0.5).astype(np.uint8), points)


def blend(faces: Sequence[FaceImage], points: np.ndarray, name: str) -> FaceImage:
    """The mean of images whose landmarks were moved to `points` (68, 2)."""
    mean = np.mean([moved(p, points) for p in faces], 0)
    return altered(faces[0], np.floor(mean + 0.5).astype(np.uint8), points, name)


def between(one: FaceImage, other: FaceImage) -> FaceImage:
    """Half way from one face to another: landmarks and grey levels are the mean of both; keeps the
    name of the first."""
    return blend([one, other], (one.landmarks.points + other.landmarks.points) / 2, one.id)


def mean_face(faces: Sequence[FaceImage], frame: Frame) -> FaceImage:
    """The face of nobody: the mean of all images, each warped onto the frame's mean landmarks."""
    return blend(faces, template(faces[0].image.shape[0], frame), f"{NOBODY}/{NOBODY}")
