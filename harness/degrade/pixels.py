"""Filters, resizing and noise on float64 pictures (H, W, 3) in [0, 1], by the conventions of BasicSR and OpenCV."""

from __future__ import annotations

import numpy as np

# Half, and a hair more: a tie, and what a sum in another order puts just below it, goes up.
_HALF = 0.5 + 2.0**-21
MODES = ("area", "bilinear", "bicubic")
# Unsharp masking of Real-ESRGAN: kernel, its deviation by OpenCV's rule for that size, weight, and the least residual in grey
# levels that is sharpened.
_USM_SIZE, _USM_WEIGHT, _USM_THRESHOLD = 51, 0.5, 10
_USM_SIGMA = 0.3 * ((_USM_SIZE - 1) * 0.5 - 1) + 0.8
# Luma as torchvision weighs it.
_LUMA = np.array([0.2989, 0.587, 0.114])


def nearest(values: np.ndarray) -> np.ndarray:
    """Nearest whole numbers, ties up, as float64; 2^-21 below a tie goes up too.

    Flat regions and factors of two make ties in plenty, and there the last bit of a sum would decide, which another processor
    or thread count may set otherwise.
    """
    return np.floor(values + _HALF)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """uint8 picture of one in [0, 1], clipped and rounded by `nearest`."""
    return nearest(np.clip(image, 0, 1) * 255).astype(np.uint8)


def to_unit(image: np.ndarray) -> np.ndarray:
    """float64 in [0, 1] of an uint8 picture."""
    return image / 255.0


def correlate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation of every channel with one kernel; beyond the border the picture is mirrored, the edge not repeated."""
    import cv2

    return cv2.filter2D(image, cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101)


def resize_linear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's INTER_LINEAR: between the two nearest pixels along each axis, whatever the factor, no antialiasing."""
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize(image: np.ndarray, mode: str, *, size: tuple[int, int] | None = None, factor: float | None = None) -> np.ndarray:
    """`torch.nn.functional.interpolate` without antialiasing.

    Args:
        mode: one of MODES.
        size: (height, width); or
        factor: of both sides, rounded down. PyTorch then places the samples by the factor, not by the sizes' ratio.
    """
    import torch

    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    y = torch.nn.functional.interpolate(x, size=size, scale_factor=factor, mode=mode)
    return np.ascontiguousarray(y[0].numpy().transpose(1, 2, 0))


def sharpen(image: np.ndarray) -> np.ndarray:
    """Unsharp masking as Real-ESRGAN sharpens its ground truths, in [0, 1].

    The picture minus its blur is added where it exceeds the threshold; the mask of these places is blurred as well.
    """
    import cv2

    line = cv2.getGaussianKernel(_USM_SIZE, _USM_SIGMA, cv2.CV_64F)
    kernel = line @ line.T
    residual = image - correlate(image, kernel)
    mask = correlate((np.abs(residual) * 255 > _USM_THRESHOLD).astype(np.float64), kernel)
    return mask * np.clip(image + _USM_WEIGHT * residual, 0, 1) + (1 - mask) * image


def gaussian_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float, grey: bool = False) -> np.ndarray:
    """Normal noise (H, W, 3), or (H, W, 1) where one draw serves all channels.

    Args:
        sigma: deviation in grey levels of 255.
    """
    return rng.standard_normal((*shape, 1 if grey else 3)) * (sigma / 255)


def poisson_noise(rng: np.random.Generator, image: np.ndarray, scale: float, grey: bool = False) -> np.ndarray:
    """Shot noise of a picture, (H, W, 3), or (H, W, 1) of its luma for all channels.

    The 8-bit picture is taken for the mean of a count, of so many photons at full range as it has values, rounded up to a power
    of two.

    Args:
        scale: what the noise is multiplied by.
    """
    levels = to_bytes((image @ _LUMA)[..., None] if grey else image)
    photons = 2.0 ** np.ceil(np.log2(len(np.unique(levels))))
    clean = to_unit(levels)
    return (rng.poisson(clean * photons) / photons - clean) * scale
