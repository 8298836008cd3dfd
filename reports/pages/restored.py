"""What `invoke restore` leaves behind: the picture, before and after side by side, and what is invention."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fsrbench.core import Method
from fsrbench.engine.keys import method_digest
from fsrbench.engine.provenance import describe
from fsrbench.engine.store import write_files
from fsrbench.imaging import encode_png, imresize, to_float, to_uint8
from fsrbench.restore import Restored
from fsrbench.text import json_text

PANEL, GAP, LINE = 256, 12, 16
# Undecided detail of this strength (share of full range) is drawn as full colour.
FULL = 0.25


def notice(method: Method, restored: Restored) -> str:
    """One sentence that belongs to every picture."""
    return (f"Drawn by {method.name} ({method.weights} weights) from a face of {restored.face.lr.shape[0]} pixels: details are "
            "likely, not true. No evidence of who this is or how they looked.")


def _panel(image: np.ndarray, smooth: bool = False) -> np.ndarray:
    """A picture at panel size: pixels stay visible unless it is asked to be smooth."""
    if smooth:
        return to_uint8(np.clip(imresize(to_float(image[None]), PANEL, PANEL), 0, 1))[0]
    index = np.arange(PANEL) * image.shape[0] // PANEL
    return image[index][:, index]


def _map(undecided: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    return to_uint8(colormaps["cividis"](np.clip(undecided / FULL, 0, 1))[..., :3].transpose(2, 0, 1)[None])[0]


def before_after(method: Method, restored: Restored) -> np.ndarray:
    """One picture, uint8: given pixels, their smooth enlargement, the restoration, the reference, and what is undecided."""
    from PIL import Image, ImageDraw, ImageFont

    face = restored.face
    used, whole = face.lr.shape[0], round(face.side)
    panels = [(f"given: {used} pixels" + f" of {whole}" * (whole > used), _panel(face.lr)),
              ("enlarged (bicubic)", _panel(face.lr, smooth=True)),
              (f"restored by {method.name} ({method.weights})", _panel(restored.crop, smooth=True))]
    if restored.album:
        panels.append((f"reference, 1 of {len(restored.album)} in the album", _panel(restored.album[0].image, smooth=True)))
    panels.append(("yellow: not decided by the given pixels", _panel(_map(restored.undecided))))
    width = len(panels) * (PANEL + GAP) + GAP
    sheet = Image.new("RGB", (width, PANEL + 3 * GAP + 4 * LINE), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, (title, picture) in enumerate(panels):
        left = GAP + i * (PANEL + GAP)
        pen.text((left, GAP), title, fill="black", font=font)
        sheet.paste(Image.fromarray(picture), (left, GAP + LINE + 4))
    words = [notice(method, restored),
             f"Shrunk again it differs from the given pixels by {restored.disagreement:.1f} of 255 grey levels; "
             f"{restored.undecided_share:.0%} of its contrast is in details that they do not decide."]
    for i, line in enumerate(words):
        pen.text((GAP, PANEL + 2 * GAP + LINE + i * (LINE + 2)), line, fill="black", font=font)
    return np.asarray(sheet)


def _with_notice(image: np.ndarray, text: str) -> bytes:
    """PNG whose metadata say what it is."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def write(restored: Restored, method: Method, image: Path, out: Path) -> list[Path]:
    """Write NAME-before-after.png, NAME-restored.png (the whole picture), NAME-face.png and NAME.json; returns the paths.

    Raises:
        FsrError: the folder cannot be written.
    """
    face, text = restored.face, notice(method, restored)
    record = {
        "notice": text, "method": method.name, "weights": method.weights, "method_digest": method_digest(method),
        "licence": method.licence, "scale": face.scale, "face_pixels": round(face.side, 1), "landmarks": face.landmarks.source,
        "album": [p.id for p in restored.album], "left_out": restored.left_out.reasons,
        "disagreement_grey_levels": round(restored.disagreement, 2), "undecided_share": round(restored.undecided_share, 4),
        **describe({"image": image.name, "profile": method.profile.name})}
    files = {"-before-after.png": encode_png(before_after(method, restored)),
             "-restored.png": _with_notice(restored.whole, text),
             "-face.png": _with_notice(restored.crop, text), ".json": json_text(record)}
    return write_files(out, {f"{image.stem}{suffix}": data for suffix, data in files.items()})
