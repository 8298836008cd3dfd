"""Images in and out, digests, and MATLAB's bicubic imresize.

Everywhere: an image is RGB, either uint8 (H, W, 3) or float32 in [0, 1] (N, 3, H, W).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fsrbench.errors import FsrError, reason

# What shows behind the transparent parts of an image: white, as a viewer shows them.
BACKGROUND = 255
_HEIC = (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1")
_ADOBE_TO_SRGB = np.array([[1.398356, -0.398356, 0], [0, 1, 0], [0, -0.042929, 1.042929]])


def digest(data: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def image_digest(image: np.ndarray) -> str:
    """sha256 of an uint8 image's shape and pixels, independent of the file format."""
    return digest(repr(image.shape).encode() + np.ascontiguousarray(image, dtype=np.uint8)
                  .tobytes())


@dataclass(frozen=True)
class Decoded:
    """An encoded image as the benchmark sees it.

    Args:
        pixels: uint8 (H, W, 3), sRGB.
        remarks: what of the file is not in them, or was guessed, each as a short sentence.
    """

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


def decode(data: bytes, name: str) -> np.ndarray:
    """`decoded`, the pixels alone."""
    return decoded(data, name).pixels


def decoded(data: bytes, name: str) -> Decoded:
    """An encoded image of any kind that Pillow reads, as 8-bit sRGB.

    EXIF rotation is applied, grey images get three equal channels, 16-bit and float values are
    scaled, colour profiles are converted, transparent parts are laid on `BACKGROUND`, of several
    images in a file the first is taken.

    Raises:
        FsrError: the bytes are not a complete image, or their range of values cannot be told.
    """
    remarks: list[str] = []
    try:
        with warnings.catch_warnings():
            # of oddities in metadata; what decides pixels is remarked
            warnings.simplefilter("ignore")
            pixels = _pixels(data, remarks)
    except Exception as error:
        raise FsrError(f"image {name}", f"cannot be read ({_why(data, error)})",
                       "replace or remove the file") from None
    return Decoded(pixels, tuple(remarks))


def _why(data: bytes, error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if not data:
        return "the file is empty"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC and isinstance(error, UnidentifiedImageError):
        return ("not a whole HEIC image" if importlib.util.find_spec("pillow_heif")
                else "HEIC, which needs the package pillow-heif")
    return "no known image format" if isinstance(error, UnidentifiedImageError) else reason(error)


def _pixels(data: bytes, remarks: list[str]) -> np.ndarray:
    from PIL import Image, ImageOps

    if data[8:12] in _HEIC:
        _register_heic()
    try:
        opened = Image.open(io.BytesIO(data))
    except (OSError, ValueError):
        # Pillow knows no TIFF of several float channels; OpenCV does.
        if data[:4] not in (b"II*\0", b"MM\0*") or (pixels := _tiff_by_opencv(data,
                                                                              remarks)) is None:
            raise
        return pixels
    with opened as image:
        # A phone's MPO holds a photograph and what belongs to it (a depth map, a preview).
        if getattr(image, "is_animated", False) and image.format != "MPO":
            remarks.append("holds several images, the first was taken")
        profile, turned = image.info.get("icc_profile"), ImageOps.exif_transpose(image)
        return _on_background(*_srgb(_eight_bit(turned, image.format, remarks), profile, remarks),
                              remarks)


def _register_heic() -> None:
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _tiff_by_opencv(data: bytes, remarks: list[str]) -> np.ndarray | None:
    import cv2

    logging = cv2.utils.logging
    # It would write what it cannot read to standard error.
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        logging.setLogLevel(level)
    if read is None or read.ndim == 3 and read.shape[2] != 3:
        return None
    return np.ascontiguousarray(_levels(np.atleast_3d(read)[..., ::-1], remarks)
                                + np.zeros(3, np.uint8))


def _eight_bit(image, kind: str | None, remarks: list[str]):
    """An image of a mode of 8 bits a channel, in which every pixel stands for itself."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        # Pillow brings grey PNG and PGM of more than 8 bits to the full range of 16.
        full = 65535 if "16" in image.mode or image.mode == "I" and kind in ("PNG", "PPM") else 0
        return Image.fromarray(_levels(np.asarray(image), remarks, full))
    if image.has_transparency_data and image.mode not in ("LA", "RGBA"):
        return image.convert("LA" if image.mode == "L" else "RGBA")
    return image if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK",
                                   "LAB") else image.convert("RGB")


def _levels(values: np.ndarray, remarks: list[str], full: float = 0) -> np.ndarray:
    """Values of any range as uint8, rounded half up.

    Args:
        full: what stands for white; 0 to take the least of 1 (floats only), 255 and 65535 that
            fits.

    Raises:
        ValueError: some are not finite, or none fits.
    """
    if values.dtype == np.uint8:
        return values
    full = full or (65535 if values.dtype == np.uint16 else _white(values, remarks))
    return np.floor(np.clip(values.astype(np.float64) / full, 0, 1) * 255 + 0.5).astype(np.uint8)


def _white(values: np.ndarray, remarks: list[str]) -> int:
    low, high = float(values.min()), float(values.max())
    # Resampling overshoots; a float image of [0, 255] that never gets over 2 would show nothing.
    whites = [(1, 2.0)] * (values.dtype.kind == "f") + [(255, 300.0), (65535, 65535.0)]
    full = next((white for white, most in whites if high <= most), 0)
    if not (full and -full / 4 <= low):
        raise ValueError(f"values from {low:.6g} to {high:.6g} are of no known range")
    remarks.append(f"{values.dtype.name} values taken as 0 to {full}")
    return full


def _srgb(image, profile: bytes | None, remarks: list[str]) -> tuple:
    """The image in sRGB, and its alpha channel or None."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None:
        image = image.convert(image.mode[:-1])
    if profile is None and _says_adobe_rgb(image):
        return _from_adobe_rgb(image), alpha
    if profile or image.mode == "LAB":
        try:
            transform = _to_srgb(profile, image.mode)
        except Exception:  # littlecms says no more than that it could not
            remarks.append("damaged colour profile, taken as sRGB")
        else:
            from PIL import ImageCms

            image = ImageCms.applyTransform(image, transform) if transform else image
    return image.convert("RGB"), alpha


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes | None, mode: str):
    """Transform of a colour profile (None: of Lab) to sRGB; None if it moves no level by more than
    one."""
    from PIL import Image, ImageCms

    source = (ImageCms.getOpenProfile(io.BytesIO(profile)) if profile
              else ImageCms.createProfile("LAB"))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode not in ("L", "RGB"):
        return transform
    axis = np.arange(0, 256, 15, dtype=np.uint8)
    grid = axis if mode == "L" else np.stack(np.meshgrid(axis, axis, axis), -1).reshape(len(axis),
                                                                                        -1, 3)
    tried = Image.fromarray(np.atleast_2d(grid))
    moved = np.asarray(ImageCms.applyTransform(tried, transform),
                       int) - np.asarray(tried.convert("RGB"), int)
    return transform if np.abs(moved).max() > 1 else None


def _says_adobe_rgb(image) -> bool:
    """Whether a camera wrote Adobe RGB without a profile, as DCF has it: interoperability "R03"."""
    from PIL import ExifTags

    return image.mode == "RGB" and "exif" in image.info and \
        str(image.getexif().get_ifd(ExifTags.IFD.Interop).get(1, "")).startswith("R03")


def _from_adobe_rgb(image):
    """Adobe RGB (1998) to sRGB, by the specification's gamma and both sets of primaries (D65)."""
    from PIL import Image

    linear = (np.asarray(image) / 255.0) ** (563 / 256) @ _ADOBE_TO_SRGB.T
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4)
                     - 0.055)
    return Image.fromarray(_levels(coded, [], 1))


def _on_background(image, alpha, remarks: list[str]) -> np.ndarray:
    pixels = np.asarray(image)
    if alpha is None or (opaque := np.asarray(alpha, dtype=np.uint16)[..., None]).min() == 255:
        return pixels
    remarks.append("transparent parts laid on white")
    return ((pixels * opaque + BACKGROUND * (255 - opaque) + 127) // 255).astype(np.uint8)


def load(path: Path) -> np.ndarray:
    """`decode` of a file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FsrError(f"image {path}", f"cannot be read ({error.strerror})",
                       "check the path") from None
    return decode(data, str(path))


def encode_png(image: np.ndarray) -> bytes:
    """Lossless PNG of an uint8 image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def encode_ppm(image: np.ndarray) -> bytes:
    """PPM of an uint8 RGB image: a header and the pixels, the same bytes on every machine."""
    return (b"P6 %d %d 255\n" % (image.shape[1], image.shape[0])
            + np.ascontiguousarray(image, dtype=np.uint8).tobytes())


def to_uint8(images: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] to uint8 (N, H, W, 3), clipped and rounded half up (as MATLAB's
    uint8)."""
    scaled = np.clip(np.asarray(images, dtype=np.float64), 0, 1) * 255
    return np.floor(scaled + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    return np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2),
                                dtype=np.float32) / np.float32(255)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -0.5."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


@lru_cache(maxsize=64)
def resize_matrix(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in) float64 weights of MATLAB's imresize along one axis.

    Cubic kernel, widened by the scale when downsampling (antialiasing), symmetric padding (the edge
    pixel repeats), rows normalised to one. Source: MATLAB imresize; basicsr.utils.matlab_functions
    gives the same within 1e-6.
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
        (..., height, width) float64, neither clipped nor rounded: overshoot beyond the input range
        is possible.
    """
    images = np.asarray(images, dtype=np.float64)
    rows = resize_matrix(images.shape[-2], height)
    columns = resize_matrix(images.shape[-1], width)
    return rows @ images @ columns.T


def enlarged_by_opencv(images: np.ndarray, size: int, mode: str) -> np.ndarray:
    """(N, 3, h, w) float32 in [0, 1] of 8-bit values to (N, 3, size, size), likewise, by OpenCV on
    bytes.

    Some official scripts upsample so, and OpenCV's "area" upsamples by a rule of its own.

    Args:
        mode: "linear" or "area".
    """
    import cv2

    how = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[mode]
    return to_float(np.stack([cv2.resize(image, (size, size), interpolation=how)
                              for image in to_uint8(images)]))
