"""The face region: its outline, its mask, and the landmark warp of a reference onto it (paper 3.2,
Listing 1)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay, QhullError

from fsrbench.errors import FsrError

# Forehead points: each brow point moved away from the chin by this share of its distance to the
# nose base.
FOREHEAD = 0.45


def with_forehead(points: np.ndarray) -> np.ndarray:
    """68 landmarks (68, 2) plus ten forehead points extrapolated above the brows, (78, 2).

    iBUG-68 ends at the brows, but identity does not; without these points mask and warp would leave
    the forehead of the low-resolution face in place.
    """
    brows, base = points[17:27], points[33]
    return np.concatenate([points, brows + FOREHEAD * (brows - base)])


def face_mask(points: np.ndarray, size: int) -> np.ndarray:
    """Boolean (size, size): pixels whose centre lies in the convex hull of the face, forehead
    included."""
    y, x = np.mgrid[0:size, 0:size]
    hull = _triangulate(with_forehead(points))
    return (hull.find_simplex(np.stack([x, y], -1).reshape(-1, 2).astype(np.float64))
            >= 0).reshape(size, size)


def _triangulate(points: np.ndarray) -> Delaunay:
    try:
        return Delaunay(np.asarray(points, dtype=np.float64))
    except (QhullError, ValueError):
        raise FsrError("landmarks", "do not span a face (all on one line, or not finite)",
                       "check the landmarks of this image") from None


def warp_map(src_points: np.ndarray, dst_points: np.ndarray, height: int,
             width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where output pixels come from under the piecewise affine map that takes src_points to
    dst_points.

    Returns:
        Flat indices (n,) of the output pixels inside the hull of dst_points, and their source
        coordinates (n, 2).
    """
    triangles = _triangulate(dst_points)
    (left, top), (right, bottom) = triangles.min_bound, triangles.max_bound
    x = np.arange(max(0, int(left)), min(width, int(right) + 2), dtype=np.float64)
    y = np.arange(max(0, int(top)), min(height, int(bottom) + 2), dtype=np.float64)
    pixels = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    found = triangles.find_simplex(pixels)
    kept = np.flatnonzero(found >= 0)
    # scipy keeps each triangle's barycentric transform, b = T (p - r); put the source corners
    # behind it.
    corners = np.asarray(src_points, dtype=np.float64)[triangles.simplices]
    edges = np.stack([corners[:, 0] - corners[:, 2], corners[:, 1] - corners[:, 2]], -1)
    linear = edges @ triangles.transform[:, :2]
    offset = corners[:, 2] - (linear @ triangles.transform[:, 2, :, None])[..., 0]
    which, (x, y) = found[kept], pixels[kept].T
    source = [linear[which, i, 0] * x + linear[which, i, 1] * y + offset[which, i] for i in (0, 1)]
    return (y * width + x).astype(np.intp), np.stack(source, -1)


def bilinear(image: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Samples (n, C) of a float32 image (H, W, C) at pixel coordinates (n, 2); beyond the border
    the edge repeats.

    NumPy and not torch: at these sizes torch's thread pool costs more than the work (10 ms against
    3 ms at 256 px).
    """
    height, width, channels = image.shape
    x = np.clip(coordinates[:, 0], 0, width - 1)
    y = np.clip(coordinates[:, 1], 0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    step_x, step_y = left < width - 1, (top < height - 1) * width
    dx, dy = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
    flat, corner = image.reshape(-1, channels), top * width + left
    upper = flat[corner] * (1 - dx) + flat[corner + step_x] * dx
    corner += step_y
    return upper * (1 - dy) + (flat[corner] * (1 - dx) + flat[corner + step_x] * dx) * dy


def tps_warp_image(src_img: np.ndarray, src_points: np.ndarray, dst_points: np.ndarray,
                   dst_shape: tuple[int, int]) -> np.ndarray:
    """Listing 1 of the paper: piecewise affine warp, mode "edge" (its name says TPS, its body does
    not).

    Outside the hull of dst_points scikit-image samples at (-1, -1), that is the first pixel; so
    does this.

    Args:
        src_img: (H, W, 3) float in [0, 1].
        src_points: (N, 2) control points (x, y) in src_img.
        dst_points: (N, 2) where they go.
        dst_shape: (height, width) of the result.

    Returns:
        uint8 (height, width, 3).
    """
    image = np.ascontiguousarray(src_img, dtype=np.float32)
    inside, coordinates = warp_map(src_points, dst_points, *dst_shape)
    warped = np.empty((dst_shape[0] * dst_shape[1], image.shape[2]), dtype=np.float32)
    warped[:] = image[0, 0]
    warped[inside] = bilinear(image, coordinates)
    return (warped * 255).astype(np.uint8).reshape(*dst_shape, -1)


def warp_face(image: np.ndarray, src_points: np.ndarray, dst_points: np.ndarray, size: int,
              forehead: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Warp the face of an image onto the landmarks of another (I_R to I_W, paper 3.2).

    Args:
        image: (3, H, W) float32, any range.
        src_points: (68, 2) landmarks of the image.
        dst_points: (68, 2) landmarks in pixels of the result.
        size: side of the result.
        forehead: whether the face goes up to the forehead, or ends where the landmarks do.

    Returns:
        (3, size, size) float32, zero outside the face; and the face's mask, bool (size, size).
    """
    if forehead:
        src_points, dst_points = with_forehead(src_points), with_forehead(dst_points)
    inside, coordinates = warp_map(src_points, dst_points, size, size)
    warped = np.zeros((size * size, image.shape[0]), dtype=np.float32)
    warped[inside] = bilinear(np.ascontiguousarray(image.transpose(1, 2, 0), dtype=np.float32),
                              coordinates)
    mask = np.zeros(size * size, dtype=bool)
    mask[inside] = True
    return warped.reshape(size, size, -1).transpose(2, 0, 1), mask.reshape(size, size)
