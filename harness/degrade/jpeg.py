"""JPEG twice over: the codec that OpenCV carries, and DiffJPEG, the float model of it that
Real-ESRGAN trains with.

The two are not interchangeable (chroma is handled otherwise): a degradation names the one it uses.
libjpeg works on integers, and all libjpeg-turbo builds that we know agree bit for bit; another
library may not. So `libjpeg_id` codes a fixed pattern and names the library by what comes out:
where it is not the pinned one, the name becomes part of the degradation's id, hence of every key
and table.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from fsrbench.degrade.pixels import nearest

# Digest of the pattern through libjpeg-turbo 3.1 (OpenCV 5.0), on x86-64.
PINNED = "6151ede3"
# ITU-T T.81, Annex K.1: luminance and chrominance quantisation at quality 50, rows by vertical
# frequency.
_LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]], dtype=np.float64)
_CHROMINANCE = np.full((8, 8), 99.0)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF's YCbCr (ITU-R BT.601, full range).
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5],
                    [0.5, -0.418688, -0.081312]])
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
_SHIFT = np.array([0.0, 128.0, 128.0])


def libjpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """An uint8 (H, W, 3) RGB image through OpenCV's JPEG codec, 4:2:0.

    Args:
        quality: q, 0 to 100.
    """
    import cv2

    _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]


@cache
def libjpeg_digest() -> str:
    """Eight hex digits of what this machine's codec makes of a fixed pattern, at qualities over the
    whole range.

    The pattern has edges, ramps and noise, and sides that are no multiple of a block; its codes are
    part of the digest."""
    import hashlib

    y, x = np.mgrid[:75, :91]
    pattern = np.stack([x * 255 // 90, y * y % 251, (x // 7 + y // 5) % 2 * 200 + x * y % 56],
                       -1).astype(np.uint8)
    coded = b"".join(libjpeg(pattern, q).tobytes() for q in (1, 10, 30, 50, 60, 75, 90, 95, 100))
    return hashlib.sha256(coded).hexdigest()[:8]


def libjpeg_id() -> str:
    """What a degradation's id says of the codec: nothing where it behaves as the pinned one, else
    "+jpeg-<digest>"."""
    return "" if libjpeg_digest() == PINNED else f"+jpeg-{libjpeg_digest()}"


def libjpeg_version() -> str:
    """OpenCV's version and its JPEG library, for the record of a run."""
    import cv2

    found = [line.partition(":")[2].strip() for line in cv2.getBuildInformation().splitlines()
             if " JPEG: " in line]
    return f"opencv {cv2.__version__}, {found[0] if found else 'unknown JPEG library'}"


@cache
def _dct() -> np.ndarray:
    """(64, 64): the orthonormal 2-D DCT-II of a block whose rows stand one behind the other."""
    frequency, place = np.mgrid[:8, :8]
    line = np.cos((2 * place + 1) * frequency * np.pi / 16) / 2
    line[0] /= np.sqrt(2)
    return np.kron(line, line)


def quality_factor(quality: np.ndarray) -> np.ndarray:
    """What the quantisation tables are multiplied by at a quality in (0, 100], by the Independent
    JPEG Group's rule."""
    quality = np.asarray(quality, dtype=np.float64)
    return np.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100


def _quantised(planes: np.ndarray, table: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Planes (N, H, W), sides multiples of 8, through DCT, quantisation and back; `factor` (N,)."""
    n, height, width = planes.shape
    blocks = planes.reshape(n, height // 8, 8, width // 8, 8).swapaxes(2, 3).reshape(n, -1,
                                                                                     64) - 128
    steps = table.reshape(64) * factor[:, None, None]
    blocks = (nearest(blocks @ _dct().T / steps) * steps) @ _dct() + 128
    return blocks.reshape(n, height // 8, width // 8, 8, 8).swapaxes(2, 3).reshape(n, height, width)


def diffjpeg(images: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """DiffJPEG (mlomnitz, MIT) as Real-ESRGAN calls it, that is with hard rounding.

    Chroma is averaged over 2x2 pixels and repeated; only the DCT coefficients are rounded; sides
    are filled up to multiples of 16 with black on the right and below. The luminance table is used
    transposed, as there.

    Args:
        images: (N, H, W, 3) in grey levels.
        quality: (N,) in (0, 100], not rounded.

    Returns:
        (N, H, W, 3) float64 in grey levels, clipped to their range.
    """
    n, height, width, _ = images.shape
    filled = np.pad(images, ((0, 0), (0, -height % 16), (0, -width % 16), (0, 0)))
    ycc = np.moveaxis(filled @ _TO_YCC.T + _SHIFT, -1, 1)
    factor = quality_factor(quality)
    luma = _quantised(ycc[:, 0], _LUMINANCE.T, factor)
    halves = ycc[:, 1:].reshape(2 * n, ycc.shape[2] // 2, 2, ycc.shape[3] // 2, 2).mean((2, 4))
    chroma = _quantised(halves, _CHROMINANCE,
                        np.repeat(factor, 2)).repeat(2, 1).repeat(2, 2).reshape(n, 2,
                                                                                *luma.shape[1:])
    ycc = np.concatenate([luma[:, None], chroma], 1)
    rgb = (np.moveaxis(ycc, 1, -1) - _SHIFT) @ _TO_RGB.T
    return np.clip(rgb[:, :height, :width], 0, 255)
