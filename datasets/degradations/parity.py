"""Parity of every operator of the degradations with recorded outputs of BasicSR 1.4.2, OpenCV and
PyTorch.

Each array of the fixture has a tolerance of its own, so the check's error is in units of it: the
largest of all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fsrbench.degrade.jpeg import diffjpeg, libjpeg
from fsrbench.degrade.kernels import blur_kernel, padded, sinc_kernel
from fsrbench.degrade.pixels import (
    MODES,
    blur_and_shrink,
    correlate,
    resize,
    resize_linear,
    sharpen,
    to_bytes,
    to_levels,
)
from fsrbench.imaging import imresize
from fsrbench.proof.parity import check, error

# Kernels as formulas; filters and resizing in float32 there; JPEG in steps of two grey levels.
KERNEL, FLOAT, GREY_LEVELS = 1e-10, 5e-6, 2 / 255
# Sharpening has a threshold: float32 may put one pixel on its other side.
SHARPENED = 1e-4


def _kernels(fixture: dict) -> Iterator[tuple[str, np.ndarray, float]]:
    p = fixture["params"]
    iso, aniso = (p["sig"],), (p["sx"], p["sy"], p["th"])
    yield "k_iso", blur_kernel("iso", p["k"], *iso), KERNEL
    yield "k_aniso", blur_kernel("aniso", p["k"], *aniso), KERNEL
    yield "k_gen_iso", blur_kernel("generalized_iso", p["k"], *iso, beta=p["bg"]), KERNEL
    yield "k_gen_aniso", blur_kernel("generalized_aniso", p["k"], *aniso, beta=p["bg"]), KERNEL
    yield "k_plat_iso", blur_kernel("plateau_iso", p["k"], *iso, beta=p["bp"]), KERNEL
    yield "k_plat_aniso", blur_kernel("plateau_aniso", p["k"], *aniso, beta=p["bp"]), KERNEL
    yield "k_sinc_nopad", sinc_kernel(p["sz"], p["wc"]), KERNEL
    yield "k_sinc", padded(sinc_kernel(p["sz"], p["wc"]), len(fixture["k_sinc"])), KERNEL


def _resizes(fixture: dict) -> Iterator[tuple[str, np.ndarray, float]]:
    """MATLAB's imresize, down at every factor there and up at one, and PyTorch's three modes."""
    image = fixture["image_u8"] / 255

    def matlab(array, height, width):
        return imresize(array.transpose(2, 0, 1), height, width).transpose(1, 2, 0)
    for name in (key for key in fixture if key.startswith("imresize_x")):
        yield name, matlab(image, *fixture[name].shape[:2]), 1e-6
    yield "imresize_up4_of_x4", matlab(fixture["imresize_x4"], *image.shape[:2]), 1e-6
    for mode in MODES:
        name = f"interp_{mode}_x4"
        yield name, resize(image, mode, size=fixture[name].shape[:2]), FLOAT


def _filters(fixture: dict) -> Iterator[tuple[str, np.ndarray, float]]:
    image, quality = fixture["image_u8"], fixture["params"]["q"]
    levels = to_levels(image)
    yield "filter2D_aniso", correlate(levels, fixture["k_aniso"]) / 255, FLOAT
    yield "cv2_filter2D_iso", correlate(levels, fixture["k_iso"]) / 255, FLOAT
    yield "usm", sharpen(levels) / 255, SHARPENED
    yield "cv2_jpeg_rgb", libjpeg(image, quality) / 255, GREY_LEVELS
    yield "diffjpeg_rgb", diffjpeg(levels[None], np.array([quality]))[0] / 255, GREY_LEVELS


def _chain(fixture: dict) -> Iterator[tuple[str, np.ndarray, float]]:
    """Eq. 10 with the recorded noise; the fixture's arrays are BGR in [0, 1]."""
    p, image, noise = (fixture["params"], to_levels(fixture["image_u8"]),
                       fixture["chain_noise_bgr"][..., ::-1] * 255.0)
    small = blur_and_shrink(image, blur_kernel("iso", p["k"], p["sig"]), *noise.shape[:2])
    small = to_levels(libjpeg(to_bytes(small + noise), p["q"]))
    yield "chain_lr_bgr", small[..., ::-1] / 255, GREY_LEVELS
    yield "chain_out_bgr", resize_linear(small, *image.shape[:2])[..., ::-1] / 255, GREY_LEVELS


def compared(fixture: dict) -> dict[str, tuple[float, float]]:
    """(largest error, tolerance) of every array that we make ourselves."""
    parts = (_kernels, _resizes, _filters, _chain)
    return {name: (error(ours, fixture[name]), tolerance)
            for part in parts for name, ours, tolerance in part(fixture)}


@check("degradation", 1.0)
def _degradation(fixture: dict) -> float:
    """The largest error over its tolerance."""
    return max(worst / tolerance for worst, tolerance in compared(fixture).values())
