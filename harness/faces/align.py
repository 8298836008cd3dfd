"""Alignment: the FFHQ frame from 68 landmarks, ArcFace's five points, and sampling of either.

Points are (x, y) in pixel-centre coordinates (the first pixel's centre is 0).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from fsrbench.faces.geometry import FFHQ, Frame

# Similarity target of ArcFace's 112x112 input: eyes, nose, mouth corners (insightface's template).
ARCFACE_5 = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
                      [41.5493, 92.3655], [70.7299, 92.2041]])


def five_points(points: np.ndarray) -> np.ndarray:
    """Eyes, nose tip and mouth corners (..., 5, 2) of iBUG-68 landmarks (..., 68, 2)."""
    eyes = [points[..., 36:42, :].mean(-2), points[..., 42:48, :].mean(-2)]
    return np.stack([*eyes, points[..., 30, :], points[..., 48, :], points[..., 54, :]], axis=-2)


def ffhq_frame(points: np.ndarray, size: int, frame: Frame = FFHQ) -> np.ndarray:
    """2x3 matrix from pixels of an FFHQ-aligned (size, size) crop to pixels of the source image.

    The FFHQ rule (Karras et al. 2019, appendix): the crop's half-axis is max(2 |eye to eye|, 1.8
    |eye to mouth|) along the mean of both directions, its centre a tenth of the way from the eyes
    to the mouth.

    Args:
        points: (68, 2) landmarks in the source image.
        size: side of the crop in pixels.
        frame: what the crop shows, relative to FFHQ's.
    """
    left, right, _, mouth_left, mouth_right = five_points(np.asarray(points, dtype=np.float64))
    eyes, eye_to_eye = (left + right) / 2, right - left
    eye_to_mouth = (mouth_left + mouth_right) / 2 - eyes
    x = eye_to_eye - np.array([-eye_to_mouth[1], eye_to_mouth[0]])
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * eye_to_mouth + 2 * frame.drop * y
    x, y = x * frame.scale, y * frame.scale
    step_x, step_y = 2 * x / size, 2 * y / size
    origin = centre - x - y + (step_x + step_y) / 2
    return np.column_stack([step_x, step_y, origin])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """2x3 least-squares similarity that maps points `source` (N, 2) onto `target` (Umeyama 1991, no
    reflection)."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    a = (s * t).sum()
    b = (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()
    rotation = np.array([[a, -b], [b, a]]) / (s**2).sum()
    return np.column_stack([rotation, mean_t - rotation @ mean_s])


def arcface_frame(points: np.ndarray, size: int = 112) -> np.ndarray:
    """2x3 matrix from pixels of ArcFace's (size, size) input to pixels of the image with these 68
    landmarks."""
    target = (ARCFACE_5 + 0.5) * size / 112 - 0.5
    return similarity(target, five_points(np.asarray(points, dtype=np.float64)))


def invert(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a 2x3 affine map."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 2x3 affine map to points (..., 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def sample(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Sample a (size, size) crop whose pixel p lies at matrix(p) in an uint8 image; beyond the
    border it mirrors.

    Bilinear on a grid fine enough that no source pixel is skipped, then averaged: no aliasing when
    downsampling. Float64 throughout, so the result is the same on every machine.
    """
    step = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    fine = max(1, int(np.ceil(step - 1e-9)))
    axis = (np.arange(size * fine) + 0.5) / fine - 0.5
    x, y = np.meshgrid(axis, axis)
    at = transform(matrix, np.stack([x, y], -1))
    planes = [map_coordinates(image[..., c].astype(np.float64), (at[..., 1], at[..., 0]), order=1,
                              mode="mirror")
              for c in range(3)]
    crop = np.stack(planes, -1).reshape(size, fine, size, fine, 3).mean((1, 3))
    return np.floor(np.clip(crop, 0, 255) + 0.5).astype(np.uint8)


def outside_share(matrix: np.ndarray, size: int, height: int, width: int) -> float:
    """Share of the crop's pixels that lie beyond the source image (and are mirrored)."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    at = transform(matrix, np.stack([x, y], -1).astype(np.float64))
    inside = (at[..., 0] >= -0.5) & (at[..., 0] <= width
                                     - 0.5) & (at[..., 1] >= -0.5) & (at[..., 1] <= height - 0.5)
    return float(1 - inside.mean())
