"""Filters, resizing and noise on float64 images (H, W, 3) in grey levels, by the conventions of
BasicSR and OpenCV."""

from __future__ import annotations

import numpy as np

# Half, and a hair more: a tie, and what a sum in another order puts just below it, goes up.
_HALF = 0.5 + 2.0**-21
MODES = ("area", "bilinear", "bicubic")
# Unsharp masking of Real-ESRGAN: kernel, its deviation by OpenCV's rule for that size, weight, and
# the least residual in grey levels that is sharpened.
_USM_SIZE, _USM_WEIGHT, _USM_THRESHOLD = 51, 0.5, 10
_USM_SIGMA = 0.3 * ((_USM_SIZE - 1) * 0.5 - 1) + 0.8
# Singular values of a kernel below this share of the first are left out; and the rank times the sum
# of the small image's sides up to which products of matrices take less time than OpenCV's filter,
# measured at 256 and 512 px.
_NEGLIGIBLE, _MOST_PRODUCTS = 1e-13, 1100
# Rows that are worked on together.
_BLOCK = 32
# Luma as torchvision weighs it.
_LUMA = np.array([0.2989, 0.587, 0.114])


def nearest(values: np.ndarray) -> np.ndarray:
    """Nearest whole numbers, ties up, as float64; 2^-21 below a tie goes up too.

    Flat regions and factors of two make ties in plenty, and there the last bit of a sum would
    decide, which another processor or thread count may set otherwise.
    """
    values = values + _HALF
    return np.floor(values, out=values)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """uint8 image, clipped and rounded by `nearest`; some rows at a time, as long as they are in
    the cache."""
    made = np.empty(image.shape, np.uint8)
    for start in range(0, len(image), _BLOCK):
        values = image[start:start + _BLOCK] + _HALF
        np.clip(values, 0, 255, out=values)
        made[start:start + _BLOCK] = values  # which cuts, and so takes the floor
    return made


def to_levels(image: np.ndarray) -> np.ndarray:
    """float64 image of an uint8 one."""
    return image.astype(np.float64)


def correlate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation of every channel with one kernel; beyond the border the image is mirrored, the
    edge not repeated."""
    import cv2

    return cv2.filter2D(image, cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101)


def resize_linear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """What OpenCV calls INTER_LINEAR: between the two nearest pixels along each axis, whatever the
    factor, no antialiasing.

    By PyTorch, whose weights are float64; OpenCV's are float32 at most and not alike in all its
    builds, which the 8-bit image would show.
    """
    return resize(image, "bilinear", size=(height, width))


def _mirrored(places: np.ndarray, count: int) -> np.ndarray:
    """Places folded back into [0, count) by mirrors at the middle of the first and the last
    pixel."""
    if count == 1:
        return np.zeros_like(places)
    places = np.abs(places) % (2 * count - 2)
    return np.minimum(places, 2 * count - 2 - places)


def _linear_taps(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `resize_linear` along one axis: the first of the two pixels (n_out,) and the weight of the
    second."""
    places = np.clip((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0, n_in - 1)
    first = np.floor(places).astype(int)
    return first, places - first


def _blur_and_resize(line: np.ndarray, n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in): correlation with `line` (k,) along one axis, then `resize_linear`, as one
    matrix."""
    first, weights = _linear_taps(n_in, n_out)
    matrix, reach = np.zeros((n_out, n_in)), np.arange(len(line)) - len(line) // 2
    for pixel, weight in ((first, 1 - weights), (np.minimum(first + 1, n_in - 1), weights)):
        np.add.at(matrix, (np.arange(n_out)[:, None], _mirrored(pixel[:, None] + reach, n_in)),
                  weight[:, None] * line)
    return matrix


def _banded(matrix: np.ndarray, image: np.ndarray) -> np.ndarray:
    """`matrix @ image` of a matrix whose rows are zero but for a band: by blocks of rows, over what
    is not zero in them."""
    made = np.empty((len(matrix), image.shape[1]))
    for start in range(0, len(matrix), _BLOCK):
        rows = slice(start, start + _BLOCK)
        used = np.flatnonzero(matrix[rows].any(0))
        band = slice(used[0], used[-1] + 1)
        np.matmul(matrix[rows, band], image[band], out=made[rows])
    return made


def blur_and_shrink(image: np.ndarray, kernel: np.ndarray, height: int, width: int) -> np.ndarray:
    """`resize_linear(correlate(image, kernel), height, width)`, by whichever of two ways is less
    work.

    A kernel of rank R is a sum of R separable ones, and along one axis blur and resizing are one
    matrix; where few pixels are left, that never makes the blurred pixels that the resizing would
    not look at. The two ways agree within 1e-9.
    """
    rows, strengths, columns = np.linalg.svd(kernel)
    rank = int((strengths > _NEGLIGIBLE * strengths[0]).sum())
    if rank * (height + width) > _MOST_PRODUCTS:
        return resize_linear(correlate(image, kernel), height, width)
    (n_rows, n_columns, depth), small = image.shape, 0
    for i in range(rank):
        partial = _banded(_blur_and_resize(rows[:, i] * strengths[i], n_rows, height),
                          image.reshape(n_rows, -1))
        partial = partial.reshape(height, n_columns, depth).swapaxes(0, 1).reshape(n_columns, -1)
        small = small + _banded(_blur_and_resize(columns[i], n_columns, width), partial)
    return np.ascontiguousarray(small.reshape(width, height, depth).swapaxes(0, 1))


def resize(image: np.ndarray, mode: str, *, size: tuple[int, int] | None = None, factor: float
           | None = None) -> np.ndarray:
    """`torch.nn.functional.interpolate` without antialiasing.

    Args:
        mode: one of MODES.
        size: (height, width); or
        factor: of both sides, rounded down. PyTorch then places the samples by the factor, not by
            the sizes' ratio.
    """
    import torch

    x = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    y = torch.nn.functional.interpolate(x, size=size, scale_factor=factor, mode=mode)
    return np.ascontiguousarray(y.permute(0, 2, 3, 1)[0].numpy())


def sharpen(image: np.ndarray) -> np.ndarray:
    """Unsharp masking as Real-ESRGAN sharpens its ground truths.

    The image minus its blur is added where it exceeds the threshold; the mask of these places is
    blurred as well.
    """
    import cv2

    line = cv2.getGaussianKernel(_USM_SIZE, _USM_SIGMA, cv2.CV_64F)
    kernel = line @ line.T
    residual = image - correlate(image, kernel)
    mask = correlate((np.abs(residual) > _USM_THRESHOLD).astype(np.float64), kernel)
    return mask * np.clip(image + _USM_WEIGHT * residual, 0, 255) + (1 - mask) * image


def gaussian_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float,
                   grey: bool = False) -> np.ndarray:
    """Normal noise (H, W, 3) of deviation `sigma`, or (H, W, 1) where one draw serves all
    channels."""
    return rng.standard_normal((*shape, 1 if grey else 3)) * sigma


def poisson_noise(rng: np.random.Generator, image: np.ndarray, scale: float,
                  grey: bool = False) -> np.ndarray:
    """Shot noise of an image, (H, W, 3), or (H, W, 1) of its luma for all channels.

    The 8-bit image is taken for the mean of a count, of so many photons at full range as it has
    values, rounded up to a power of two.

    Args:
        scale: what the noise is multiplied by.
    """
    levels = to_bytes((image @ _LUMA)[..., None] if grey else image)
    gain = 2.0 ** np.ceil(np.log2(np.count_nonzero(np.bincount(levels.ravel())))) / 255
    return (rng.poisson(levels * gain) / gain - levels) * scale
