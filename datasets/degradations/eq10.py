"""Equation 10 of the paper, the classical model of a spoilt face image, with the ranges of blind
face restorers:

    I_L = { [ (I_H * g_{s,sigma}) down_r + eta_delta ] JPEG(q) } up_r

Gaussian blur of size s and deviation sigma, downsampling by r, normal noise of deviation delta (the
paper calls delta its variance), JPEG of quality q, upsampling by r. Filters and resizing are
OpenCV's, as in GFPGAN (Apache-2.0) and BasicSR: border mirrored without its edge, INTER_LINEAR down
to int(S // r) pixels and up again, noise clipped to the image's range, q cut to a whole number, 8
bit before and after JPEG.

The ranges are those of the training configurations, all uniform, the angle in +-pi, both deviations
of an anisotropic kernel on their own. Colour jitter and grey images, with which some of them train,
are left out: eq. 10 has none, and the ground truth would no longer be what is asked for.

They are made for faces of 512 px. On an image of S px sigma and s are multiplied by S/512, while r,
which is relative to the image, delta and q, which are of its pixels, stay: an S-px image is treated
as a small photograph of the same face. (So JPEG's 8-px blocks are larger beside the face.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsrbench.degrade.jpeg import libjpeg
from fsrbench.degrade.kernels import blur_kernel
from fsrbench.degrade.named import degradation_at_full_size
from fsrbench.degrade.pixels import (
    blur_and_shrink,
    gaussian_noise,
    resize_linear,
    to_bytes,
    to_levels,
)
from fsrbench.rng import numpy_rng

VERSION = 1
# Side of the images that the ranges are made for.
SIDE = 512


@dataclass(frozen=True)
class Pass:
    """Parameters of one pass of eq. 10 on a 512-px image.

    Args:
        radius: (s - 1) / 2 in pixels.
        sigma_x, sigma_y, theta: of the Gaussian, in pixels and radians.
        r: factor of downsampling, upsampling below 1.
        delta: deviation of the noise in grey levels.
        q: JPEG quality.
    """

    radius: float
    sigma_x: float
    sigma_y: float
    theta: float
    r: float
    delta: float
    q: int

    def kernel(self, side: int) -> np.ndarray:
        """g for images of that side."""
        part = side / SIDE
        return blur_kernel("aniso", 2 * int(np.ceil(self.radius * part)) + 1, self.sigma_x * part,
                           self.sigma_y * part, self.theta)


@dataclass(frozen=True)
class Ranges:
    """Uniform ranges of a preset; half of its kernels are isotropic, and s is 41."""

    name: str
    origin: str
    sigma: tuple[float, float]
    r: tuple[float, float]
    delta: tuple[float, float]
    q: tuple[float, float]

    def draw(self, sample_id: str) -> Pass:
        """The parameters of a sample."""
        rng = numpy_rng("degradation", self.name, VERSION, sample_id)
        isotropic = rng.random() < 0.5
        sigma_x, sigma_y, theta = (rng.uniform(*self.sigma), rng.uniform(*self.sigma),
                                   rng.uniform(-np.pi, np.pi))
        if isotropic:
            sigma_y, theta = sigma_x, 0.0
        return Pass(20, sigma_x, sigma_y, theta, rng.uniform(*self.r), rng.uniform(*self.delta),
                    int(rng.uniform(*self.q)))


PRESETS = (
    Ranges("eq10-gfpgan", "GFPGAN v1", (0.1, 10), (0.8, 8), (0, 20), (60, 100)),
    Ranges("eq10-codeformer", "CodeFormer stage II", (1, 15), (4, 30), (0, 20), (30, 80)),
    Ranges("eq10-codeformer-small", "CodeFormer stage III", (0.1, 10), (1, 12), (0, 15), (60, 100)),
    Ranges("eq10-stablesr-face", "StableSR's face model", (0.1, 15), (0.8, 32), (0, 20), (30, 100)),
)


def spoilt(image: np.ndarray, how: Pass, rng: np.random.Generator) -> np.ndarray:
    """What is left of an uint8 image (H, W, 3) before it is upsampled again, uint8 (H // r, W // r,
    3)."""
    height, width = (max(1, int(side // how.r)) for side in image.shape[:2])
    small = blur_and_shrink(to_levels(image), how.kernel(min(image.shape[:2])), height, width)
    return libjpeg(to_bytes(small + gaussian_noise(rng, (height, width), how.delta)), how.q)


def one_pass(image: np.ndarray, how: Pass, rng: np.random.Generator) -> np.ndarray:
    """Eq. 10: an uint8 image of the same size.

    Args:
        rng: of the noise.
    """
    return to_bytes(resize_linear(to_levels(spoilt(image, how, rng)), *image.shape[:2]))


def _register(preset: Ranges) -> None:
    summary = (f"eq. 10 as {preset.origin} trains: blur {preset.sigma[0]:g}-{preset.sigma[1]:g} px "
               f"of 512, down "
               f"{preset.r[0]:g}-{preset.r[1]:g}, noise {preset.delta[0]:g}-{preset.delta[1]:g}, "
               f"JPEG "
               f"{preset.q[0]:g}-{preset.q[1]:g}, up; then bicubic")

    @degradation_at_full_size(preset.name, VERSION, summary, libjpeg=True)
    def full(image: np.ndarray, sample_id: str) -> np.ndarray:
        return one_pass(image, preset.draw(sample_id), numpy_rng("degradation", preset.name,
                                                                 VERSION, sample_id, "noise"))


for _preset in PRESETS:
    _register(_preset)
