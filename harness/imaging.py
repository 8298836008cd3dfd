"""Images in and out, digests, and MATLAB's bicubic imresize.

Everywhere: an image is RGB, either uint8 (H, W, 3) or float32 in [0, 1] (N, 3, H, W).
"""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from pathlib import Path

import numpy as np

from fsrbench.errors import FsrError


def digest(data: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def image_digest(image: np.ndarray) -> str:
    """sha256 of an uint8 image's shape and pixels, independent of the file format."""
    return digest(repr(image.shape).encode() + np.ascontiguousarray(image, dtype=np.uint8).tobytes())


def decode(data: bytes, name: str) -> np.ndarray:
    """RGB uint8 (H, W, 3) of an encoded image; grey images get three equal channels, EXIF rotation is applied.

    Raises:
        FsrError: the bytes are not a complete image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except Exception as error:
        raise FsrError(f"image {name}", f"cannot be read ({error})", "replace or remove the file") from None


def load(path: Path) -> np.ndarray:
    """`decode` of a file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FsrError(f"image {path}", f"cannot be read ({error.strerror})", "check the path") from None
    return decode(data, str(path))


def encode_png(image: np.ndarray) -> bytes:
    """Lossless PNG of an uint8 image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def encode_ppm(image: np.ndarray) -> bytes:
    """PPM of an uint8 RGB image: a header and the pixels, the same bytes on every machine."""
    return b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + np.ascontiguousarray(image, dtype=np.uint8).tobytes()


def to_uint8(images: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] to uint8 (N, H, W, 3), clipped and rounded half up (as MATLAB's uint8)."""
    scaled = np.clip(np.asarray(images, dtype=np.float64), 0, 1) * 255
    return np.floor(scaled + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    return np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -0.5."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


@lru_cache(maxsize=64)
def resize_matrix(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in) float64 weights of MATLAB's imresize along one axis.

    Cubic kernel, widened by the scale when shrinking (antialiasing), symmetric padding (the edge pixel repeats),
    rows normalised to one. Source: MATLAB imresize; basicsr.utils.matlab_functions gives the same within 1e-6.
    """
    scale = n_out / n_in
    width = 4 / min(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(width)) + 2)
    squeeze = min(scale, 1.0)
    weights = squeeze * _cubic(squeeze * (centre[:, None] - taps))
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.mod(taps, 2 * n_in)
    mirrored = np.where(mirrored >= n_in, 2 * n_in - 1 - mirrored, mirrored)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out)[:, None], mirrored), weights)
    matrix.setflags(write=False)
    return matrix


def imresize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bicubic resize equal to MATLAB's imresize, in float64.

    Args:
        images: (..., H, W) of any float type, any range.

    Returns:
        (..., height, width) float64, neither clipped nor rounded: overshoot beyond the input range is possible.
    """
    images = np.asarray(images, dtype=np.float64)
    rows = resize_matrix(images.shape[-2], height)
    columns = resize_matrix(images.shape[-1], width)
    return rows @ images @ columns.T


def enlarged_by_opencv(images: np.ndarray, size: int, mode: str) -> np.ndarray:
    """(N, 3, h, w) float32 in [0, 1] of 8-bit values to (N, 3, size, size), likewise, by OpenCV on bytes.

    Some official scripts enlarge so, and OpenCV's "area" enlarges by a rule of its own.

    Args:
        mode: "linear" or "area".
    """
    import cv2

    how = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[mode]
    return to_float(np.stack([cv2.resize(image, (size, size), interpolation=how) for image in to_uint8(images)]))
