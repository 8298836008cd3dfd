"""`invoke degrade`: what a degradation makes of one image, as a labelled row of panels in one
PNG."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsrbench.datasets.degradations.severity import LEVELS
from fsrbench.degrade.named import SCALES, Degradation, check_scale, degradations, get_degradation
from fsrbench.engine.folders import read_image
from fsrbench.engine.store import check_file, write_files
from fsrbench.errors import FsrError
from fsrbench.imaging import encode_png, image_digest, imresize, to_float, to_uint8

# Sides of the images that are degraded, and the gap between panels, in pixels; panels of a row.
LARGEST, STEP, GAP, ROW = 512, 32, 8, 6
# The name that stands for all levels of the severity scale.
SEVERITY = "severity"


def square(image: np.ndarray, name: str) -> np.ndarray:
    """The centre square of an image, downsampled to at most 512 px, its side cut to a multiple of
    32.

    Raises:
        FsrError: it is smaller than 64 px, which x32 leaves two of.
    """
    side = min(image.shape[:2])
    if side < 2 * STEP:
        raise FsrError(f"image {name}", f"is {image.shape[1]}x{image.shape[0]} px",
                       f"give one of at least {2 * STEP} px", code=2)
    kept = side if side > LARGEST else side - side % STEP
    top, left = ((length - kept) // 2 for length in image.shape[:2])
    image = image[top:top + kept, left:left + kept]
    return to_uint8(imresize(to_float(image[None]), LARGEST,
                             LARGEST))[0] if kept > LARGEST else image


def _enlarged(lr: np.ndarray, side: int) -> np.ndarray:
    """Each pixel as a square, so that it is seen."""
    return lr.repeat(side // len(lr), 0).repeat(side // len(lr), 1)


def _panels(found: Degradation, hq: np.ndarray, scales: Sequence[int],
            sample_id: str) -> list[tuple[str, np.ndarray]]:
    """The image at full size where the degradation has one, and at each scale."""
    shown = [(found.id, found.full(hq, sample_id))] if found.full else []
    for scale in scales:
        lr = found.apply(hq, scale, sample_id)
        shown.append((f"{found.id} x{scale}: {lr.shape[1]} px", _enlarged(lr, len(hq))))
    return shown


def panels(name: str, hq: np.ndarray, scales: Sequence[int],
           sample_id: str) -> list[tuple[str, np.ndarray]]:
    """Labels and images of the ladder, the HQ image first, all of its size."""
    if name != SEVERITY:
        return [(f"HQ: {len(hq)} px", hq), *_panels(get_degradation(name), hq, scales or SCALES,
                                                    sample_id)]
    levels = [_panels(get_degradation(f"{SEVERITY}-{number}"), hq, scales, sample_id)
              for number in LEVELS]
    # With scales asked for, only these: a level in a row of its own.
    return [(f"HQ: {len(hq)} px", hq), *(panel for level in levels
                                         for panel in (level[1:] if scales else level))]


def sheet(shown: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Panels of one size in rows, each under its label, on white."""
    from PIL import Image, ImageDraw, ImageFont

    side = len(shown[0][1])
    font = ImageFont.load_default(size=max(9, side // 16))
    line = int(font.getbbox("Hg")[3]) + GAP
    wide = max(side, *(int(font.getlength(label)) for label, _ in shown)) + GAP
    columns, rows = min(len(shown), ROW), -(-len(shown) // ROW)
    page = Image.new("RGB", (columns * wide + GAP, rows * (side + line + GAP) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for i, (label, image) in enumerate(shown):
        x, y = GAP + i % ROW * wide, GAP + i // ROW * (side + line + GAP)
        draw.text((x, y), label, fill="black", font=font)
        page.paste(Image.fromarray(image), (x, y + line))
    return np.asarray(page)


def ladder(name: str, image: str, scales: Sequence[str] = (), sample_id: str | None = None,
           out: str | None = None) -> Path:
    """Write the ladder of an image file.

    Args:
        name: of a degradation, or "severity".
        scales: as typed; none for all, and for the severity scale at full size.
        sample_id: what the draws belong to; the file's name without its suffix unless told.
        out: PNG to write; out/degrade-NAME-IMAGE-DIGEST.png unless told, so that no two images
            share it.

    Raises:
        FsrError: the name or a scale is unknown, the image unreadable or too small, or the file
            cannot be written.
    """
    from fsrbench.engine.options import whole
    from fsrbench.errors import unknown

    if name != SEVERITY and name not in degradations():
        raise unknown("degradation", name, [*degradations(), SEVERITY])
    read = read_image(Path(image))
    given = read.pixels
    for remark in read.remarks:
        print(f"note: {image}: {remark}", file=sys.stderr)
    hq = square(given, image)
    wanted = [check_scale(whole("scale", str(s).lstrip("x"), 1), len(hq))
              for s in dict.fromkeys(scales)]
    path = Path(out or f"out/degrade-{name}-{Path(image).stem}-{image_digest(given)[:8]}.png")
    check_file(path)
    png = encode_png(sheet(panels(name, hq, wanted, sample_id or Path(image).stem)))
    return write_files(path.parent, {path.name: png})[0]
