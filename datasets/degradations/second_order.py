"""The second-order degradation of Real-ESRGAN (BSD-3, its x4plus configuration), and the milder one
of StableSR.

Sharpen, then twice [blur, resize, noise], JPEG between; at the end, in either order, JPEG and
[resize to the LR size, sinc]. Kernels are bells of six shapes or a sinc, of odd size 7 to 21;
resizing is area, bilinear or bicubic without antialiasing; noise is normal or Poisson, of colour or
grey; JPEG is DiffJPEG, so no library decides. Everything is in pixels: the chain is made for
patches cut out of images of any size, so nothing is scaled with S.

Official only at x4. At another factor the chain is the same, with its second resizing around S/4
pixels, and only the last resizing goes to S/s. A blur whose kernel is wider than a tiny image
mirrors at both sides as often as it must.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsrbench.degrade.jpeg import diffjpeg
from fsrbench.degrade.kernels import KINDS, blur_kernel, sinc_kernel
from fsrbench.degrade.named import bicubic, degradation
from fsrbench.degrade.pixels import (
    MODES,
    correlate,
    gaussian_noise,
    poisson_noise,
    resize,
    sharpen,
    to_bytes,
    to_levels,
)
from fsrbench.rng import numpy_rng

VERSION = 1
SIZES = tuple(range(7, 22, 2))
KIND_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
SINC_SHARE, FINAL_SINC_SHARE, GAUSSIAN_SHARE, GREY_SHARE = 0.1, 0.8, 0.5, 0.4


@dataclass(frozen=True)
class PassRanges:
    """Ranges of one of the two passes; all uniform.

    Args:
        sigma: of the blur in pixels; blur: its probability.
        generalized, plateau: lower and upper beta; one half of the draws lies below 1.
        resize: least and greatest factor; ways: probabilities of upsampling, downsampling and
            neither.
        noise: deviation in grey levels; poisson: factor of the shot noise; jpeg: quality.
    """

    sigma: tuple[float, float]
    blur: float
    generalized: tuple[float, float]
    plateau: tuple[float, float]
    resize: tuple[float, float]
    ways: tuple[float, float, float]
    noise: tuple[float, float]
    poisson: tuple[float, float]
    jpeg: tuple[float, float]


@dataclass(frozen=True)
class Setting:
    """A published configuration: the two passes, and how often an image is spared all but bicubic
    downsampling."""

    name: str
    first: PassRanges
    second: PassRanges
    spared: float = 0.0


@dataclass(frozen=True)
class PassDraw:
    """What a sample drew for one pass; `kernel` is None where it is not blurred, `grey` for noise
    of all channels alike."""

    kernel: np.ndarray | None
    factor: float
    mode: str
    gaussian: bool
    amount: float
    grey: bool
    quality: float


@dataclass(frozen=True)
class Draw:
    """What a sample drew: two passes, the last resizing's mode, the last sinc or None, and whether
    JPEG comes last."""

    spared: bool
    first: PassDraw
    second: PassDraw
    mode: str
    sinc: np.ndarray | None
    jpeg_last: bool


REALESRGAN = Setting(
    "realesrgan",
    PassRanges((0.2, 3), 1.0, (0.5, 4), (1, 2), (0.15, 1.5), (0.2, 0.7, 0.1), (1, 30), (0.05, 3),
               (30, 95)),
    PassRanges((0.2, 1.5), 0.8, (0.5, 4), (1, 2), (0.3, 1.2), (0.3, 0.4, 0.3), (1, 25), (0.05, 2.5),
               (30, 95)))
STABLESR = Setting(
    "stablesr-general",
    PassRanges((0.2, 1.5), 1.0, (0.5, 2), (1, 1.5), (0.3, 1.5), (0.2, 0.7, 0.1), (1, 15), (0.05, 2),
               (60, 95)),
    PassRanges((0.2, 1), 0.5, (0.5, 2), (1, 1.5), (0.6, 1.2), (0.3, 0.4, 0.3), (1, 12), (0.05, 1),
               (60, 100)), spared=0.01)


def _beta(rng: np.random.Generator, low: float, high: float) -> float:
    return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)


def _pick(rng: np.random.Generator, names: tuple, shares: tuple | None = None):
    return names[int(rng.choice(len(names), p=shares))]


def draw_kernel(rng: np.random.Generator, ranges: PassRanges) -> np.ndarray:
    """A blur or, now and then, a sinc."""
    size = _pick(rng, SIZES)
    if rng.random() < SINC_SHARE:
        return sinc_kernel(size, rng.uniform(np.pi / (3 if size < 13 else 5), np.pi))
    kind = _pick(rng, KINDS, KIND_SHARES)
    sigma_x, sigma_y, theta = (rng.uniform(*ranges.sigma), rng.uniform(*ranges.sigma),
                               rng.uniform(-np.pi, np.pi))
    beta = _beta(rng, *(ranges.plateau if kind.startswith("plateau") else ranges.generalized))
    return blur_kernel(kind, size, sigma_x, sigma_y, theta, beta)


def _draw_pass(rng: np.random.Generator, ranges: PassRanges) -> PassDraw:
    kernel = draw_kernel(rng, ranges)
    blurred = rng.random() < ranges.blur
    way = _pick(rng, ("up", "down", "keep"), ranges.ways)
    factor = {"up": rng.uniform(1, ranges.resize[1]), "down": rng.uniform(ranges.resize[0], 1),
              "keep": 1.0}[way]
    gaussian = rng.random() < GAUSSIAN_SHARE
    return PassDraw(kernel if blurred else None, factor, _pick(rng, MODES), gaussian,
                    rng.uniform(*(ranges.noise if gaussian else ranges.poisson)), rng.random()
                    < GREY_SHARE, rng.uniform(*ranges.jpeg))


def draw(setting: Setting, sample_id: str) -> Draw:
    """The parameters of a sample."""
    rng = numpy_rng("degradation", setting.name, VERSION, sample_id)
    first, second = _draw_pass(rng, setting.first), _draw_pass(rng, setting.second)
    sinc = sinc_kernel(_pick(rng, SIZES),
                       rng.uniform(np.pi / 3, np.pi)) if rng.random() < FINAL_SINC_SHARE else None
    return Draw(rng.random() < setting.spared, first, second, _pick(rng, MODES), sinc, rng.random()
                < 0.5)


def _noisy(image: np.ndarray, how: PassDraw, rng: np.random.Generator) -> np.ndarray:
    """With its noise, clipped."""
    noise = gaussian_noise(rng, image.shape[:2], how.amount, how.grey) if how.gaussian \
        else poisson_noise(rng, image, how.amount, how.grey)
    return np.clip(image + noise, 0, 255)


def _coded(image: np.ndarray, quality: float) -> np.ndarray:
    return diffjpeg(np.clip(image, 0, 255)[None], np.array([quality]))[0]


def _scaled(side: int, factor: float) -> int:
    return max(1, int(side * factor))


def second_order(image: np.ndarray, scale: int, how: Draw, rng: np.random.Generator) -> np.ndarray:
    """The chain on an uint8 image (H, W, 3): uint8 (H/s, W/s, 3).

    Args:
        rng: of the noise.
    """
    sides, (first, second) = image.shape[:2], (how.first, how.second)
    x = correlate(sharpen(to_levels(image)), first.kernel)
    x = resize(x, first.mode, factor=first.factor)
    x = _coded(_noisy(x, first, rng), first.quality)
    if second.kernel is not None:
        x = correlate(x, second.kernel)
    x = resize(x, second.mode, size=tuple(_scaled(side, second.factor / 4) for side in sides))
    x = _noisy(x, second, rng)
    if not how.jpeg_last:
        x = _coded(x, second.quality)
    x = resize(x, how.mode, size=tuple(side // scale for side in sides))
    if how.sinc is not None:
        x = correlate(x, how.sinc)
    return to_bytes(_coded(x, second.quality) if how.jpeg_last else x)


def _register(setting: Setting, summary: str) -> None:
    @degradation(setting.name, VERSION, summary)
    def apply(image: np.ndarray, scale: int, sample_id: str) -> np.ndarray:
        how = draw(setting, sample_id)
        if how.spared:
            return bicubic(image, scale, sample_id)
        return second_order(image, scale, how, numpy_rng("degradation", setting.name, VERSION,
                                                         sample_id, "noise"))


_register(REALESRGAN,
          "Real-ESRGAN x4plus: sharpened, then two passes of blur or sinc, resizing, noise and "
          "DiffJPEG")
_register(STABLESR,
          "the same chain with StableSR's milder ranges; 1 of 100 images only downsampled by "
          "bicubic")
