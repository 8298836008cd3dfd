"""The given pixels of a face: what is upsampled from them, and how far a restoration contradicts
them, at their own size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import map_coordinates

from fsrbench.faces.align import invert, transform
from fsrbench.imaging import imresize, resize_matrix, to_uint8

# Pixels around the crop that the interpolation looks at.
MARGIN = 4


def _grid(height: int, width: int, fine: int = 1) -> np.ndarray:
    """Positions (x, y) of the centres of pixels, each cut into fine x fine; (height fine, width
    fine, 2)."""
    axes = [(np.arange(n * fine) + 0.5) / fine - 0.5 for n in (width, height)]
    return np.stack(np.meshgrid(*axes), -1)


def _cubic(planes: np.ndarray, at: np.ndarray, mode: str) -> np.ndarray:
    """Cubic spline through (3, H, W), at positions (..., 2); (3, ...)."""
    places = (at[..., 1], at[..., 0])
    return np.stack([map_coordinates(plane, places, order=3, mode=mode) for plane in planes])


def cut(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The crop (3, size, size) float64 in [0, 1] whose pixel p lies at matrix(p) in an uint8 image
    (H, W, 3).

    A cubic spline, which keeps the sharpness that `faces.align.sample` would blur; averaged over
    the pixel where the crop is the coarser one. Beyond the border the image mirrors.
    """
    step = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    fine = max(1, int(np.ceil(step - 1e-9)))
    planes = image.transpose(2, 0, 1) / 255.0
    seen = _cubic(planes, transform(matrix, _grid(size, size, fine)), "mirror")
    return seen.reshape(3, size, fine, size, fine).mean((2, 4)).clip(0, 1)


@dataclass(frozen=True)
class Given:
    """The pixels of an image in which a face lies.

    Args:
        image: uint8 (H, W, 3); matrix: 2x3, from pixels of the crop to pixels of the image; size:
            of the crop."""

    image: np.ndarray
    matrix: np.ndarray
    size: int

    @property
    def side(self) -> float:
        """Side of the crop in pixels of the image."""
        return self.size * float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def count(self) -> int:
        """Pixels along the crop's side that were given; at most as many as it has itself."""
        return int(np.clip(round(self.side), 2, self.size))

    @property
    def corners(self) -> np.ndarray:
        """Corners (4, 2) of the crop in the image, one after the other."""
        low, high = -0.5, self.size - 0.5
        square = np.array([[low, low], [high, low], [high, high], [low, high]])
        return transform(self.matrix, square)

    @cached_property
    def _window(self) -> tuple[np.ndarray, np.ndarray]:
        """Left upper corner of the part of the image that shows the crop, and one past its right
        lower one."""
        first, last = self.corners.min(0), self.corners.max(0) + 1
        return (np.maximum(np.floor(first).astype(int) - MARGIN, 0),
                np.minimum(np.ceil(last).astype(int) + MARGIN, self.image.shape[1::-1]))

    @cached_property
    def pixels(self) -> np.ndarray:
        """(3, h, w) float64 in [0, 1], around the crop."""
        (left, top), (right, bottom) = self._window
        return self.image[top:bottom, left:right].transpose(2, 0, 1) / 255.0

    def _in_crop(self, fine: int) -> np.ndarray:
        """Positions in the crop of the window's pixels."""
        return transform(invert(self.matrix), _grid(*self.pixels.shape[1:], fine) + self._window[0])

    @cached_property
    def inside(self) -> np.ndarray:
        """bool (h, w), which of the pixels lie in the crop."""
        at = self._in_crop(1)
        return ((at > -0.5) & (at < self.size - 0.5)).all(-1)

    @cached_property
    def upsampled(self) -> np.ndarray:
        """What the given pixels alone show, (3, S, S) float64 in [0, 1]."""
        return cut(self.image, self.matrix, self.size)

    def seen_at(self, side: int) -> np.ndarray:
        """The crop at another resolution, uint8 (side, side, 3)."""
        factor = self.size / side
        # The first pixel's centre lies (factor - 1) / 2 further in.
        corner = transform(self.matrix, np.full(2, (factor - 1) / 2))
        matrix = np.column_stack([self.matrix[:, :2] * factor, corner])
        return to_uint8(cut(self.image, matrix, side)[None])[0]

    def residual(self, crop: np.ndarray) -> np.ndarray:
        """Given pixels less what they would be of a crop (3, S, S) in [0, 1], pasted in and
        downsampled; 0 outside it.

        Downsampled as the benchmark does, by antialiased bicubic.
        """
        fine = max(1, int(np.ceil(self.size / self.side - 1e-9)))
        pasted = _cubic(crop, self._in_crop(fine), "nearest")
        return np.where(self.inside, self.pixels - imresize(pasted, *self.pixels.shape[1:]), 0)

    def disagreement(self, crop: np.ndarray) -> float:
        """Root mean square of the residual of an uint8 crop (S, S, 3) over the pixels inside, in
        grey levels."""
        residual = self.residual(crop.transpose(2, 0, 1) / 255.0)
        return float(np.sqrt(np.square(residual[:, self.inside]).mean()) * 255)

    @cached_property
    def _decided(self) -> np.ndarray:
        """(S, S) projection along one axis onto what so many pixels decide."""
        shrink = resize_matrix(self.size, self.count)
        return np.linalg.pinv(shrink) @ shrink

    def undecided(self, crop: np.ndarray) -> np.ndarray:
        """(3, S, S), the part of a crop in [0, 1] that vanishes when it is downsampled: whatever
        stands there, the given pixels are the same."""
        return crop - self._decided @ crop @ self._decided.T

    def agreed(self, crop: np.ndarray) -> np.ndarray:
        """A drawing (3, S, S) in [0, 1], with what the given pixels decide taken from them.

        Its undecided part stays and the rest is that of `upsampled`; then one step of
        back-projection (Irani and Peleg 1991) sharpens what the spline has smoothed. More steps
        only fit the rounding to 8 bits.
        """
        mixed = self.undecided(crop) + self.upsampled - self.undecided(self.upsampled)
        at = transform(self.matrix, _grid(self.size, self.size)) - self._window[0]
        return np.clip(mixed + _cubic(self.residual(mixed), at, "mirror"), 0, 1)
