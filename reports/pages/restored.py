"""`invoke restore`: the faces of an image one by one, and what is left behind: the image, before
and after side by side, and what is invention."""

from __future__ import annotations

import io
import itertools
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fsrbench import album as albums
from fsrbench import restore as engine
from fsrbench.core import Method, Profile
from fsrbench.engine.findings import Excluded
from fsrbench.engine.keys import method_digest
from fsrbench.engine.provenance import describe
from fsrbench.engine.store import Store, write_files
from fsrbench.errors import FsrError
from fsrbench.imaging import digest, encode_png, imresize, to_float, to_uint8
from fsrbench.restore import Face, Restored
from fsrbench.text import json_text

PANEL, GAP, LINE = 256, 12, 17
# Undecided detail of this strength (share of full range) is drawn as full colour.
FULL = 0.25
# Said where neither a method nor an album was given. On the example's faces, x4 and x8, PSNR and
# LPIPS: realsr 24.9 and .064, 20.9 and .215; srmd 26.7 and .164, 22.4 and .368; realesrgan 21.1
# and .090, 19.0 and .258; codeformer (mini) 26.1 and .064, 23.2 and .084.
UNASKED = ("note: without an album codeformer restores, which draws a likely face; of the methods "
           "with published weights, which know no faces, --method realsr is the sharpest and "
           "--method srmd the nearest to the given pixels")
KEPT, WARNED, MARKED = "#1a7f37", "#b3261e", "#ffd400"
# An image with several faces is shown at this long side or more, so that their numbers can be
# read.
LEGIBLE = 640


def run(image: Path, album: Path | None, name: str | None, profile: Profile, store: Store,
        out: Path, scale: int | None = None, aligned: bool = False, number: int | None = None,
        seed: int = 0) -> str:
    """Restore a face of an image and write what is to be seen; returns what is to be said.

    Args:
        album: folder of the person's images; name: of the method; number: of the face.

    Raises:
        FsrError: see `fsrbench.restore`; or it is not clear which face is meant.
    """
    if name and "," in name and ":" not in name:
        raise FsrError(f"--method {name}", "restore takes one",
                       "call it for each: their pictures are written side by side", code=2)
    method = engine.open_method(name or ("idfsr.ft" if album else "codeformer"), profile,
                                bool(album))
    faces = engine.faces_in(image, profile, scale, aligned)
    references, left_out = albums.open_album(album, profile, store) if album else ([], Excluded())
    embed, unasked = _embed() if references else (None, [])
    face = engine.choose(faces, image, number, references, embed)
    if face is None:
        raise _which(faces, image, out)
    if not name and not album:
        print(UNASKED, file=sys.stderr)
    fits = " (the first time it is fitted to the album)" * ("fit" in method.needs)
    of = f", album of {len(references)}{fits}" * bool(references)
    print(f"restoring {face.place} by {method.name}{of}", file=sys.stderr)
    restored = engine.restore(method, face, references, left_out, store, embed, seed)
    restored = replace(restored, doubts=(*restored.doubts, *unasked))
    paths = write(restored, method, image, out)
    notes = [*(f"note: {image.name}: {remark}" for remark in face.remarks),
             *(f"note: album: {line}" for line in left_out.lines())]
    return "\n".join([*notes, *words(method, restored), "written: " + ", ".join(map(str, paths))])


def _embed() -> tuple[albums.Embed | None, list[str]]:
    """SFace, whatever the profile: the distances that tell people apart are measured with it.
    Without its file None, and what to say of that."""
    import torch

    from fsrbench.methods.common.identity import load_identity

    try:
        encoder = load_identity("mini")
    except FsrError as error:
        return None, [f"nobody looked whether the album is of this person ({error})"]

    def embed(images: Sequence[np.ndarray], points: Sequence[np.ndarray]) -> np.ndarray:
        return encoder(torch.from_numpy(to_float(np.stack(images))), points).numpy()
    return embed, []


def _which(faces: Sequence[Face], image: Path, out: Path) -> FsrError:
    """The question which of several faces is meant; the image with their numbers is written, and
    the list shown."""
    (path,) = _write(out, image.stem, {"-faces.png": encode_png(numbered(faces))})
    print("\n".join(face.place for face in faces))
    return FsrError(f"image {image}",
                    f"shows {len(faces)} faces, and nothing says clearly which is meant",
                    f"give --face 1 to --face {len(faces)}; {path} shows their numbers", code=2)


def numbered(faces: Sequence[Face]) -> np.ndarray:
    """The image, uint8, with a numbered square around each face."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(faces[0].image)
    factor = max(1.0, LEGIBLE / max(canvas.size))
    canvas = canvas.resize([round(n * factor) for n in canvas.size], Image.Resampling.BICUBIC)
    pen, thick = ImageDraw.Draw(canvas), max(2, round(max(canvas.size) / 300))
    font = ImageFont.load_default(size=max(20, max(canvas.size) // 24))
    for face in faces:
        corners = (face.given.corners + 0.5) * factor - 0.5
        points = [tuple(corner) for corner in (*corners, corners[0])]
        pen.line(points, fill="black", width=3 * thick)
        pen.line(points, fill=MARKED, width=thick)
        at = tuple(np.clip(corners.min(0), 0, None) + 3 * thick)
        box = pen.textbbox(at, str(face.number), font=font)
        pen.rectangle((box[0] - 6, box[1] - 4, box[2] + 6, box[3] + 4), fill="black")
        pen.text(at, str(face.number), fill=MARKED, font=font)
    return np.asarray(canvas)


def notice(method: Method, restored: Restored) -> str:
    """One sentence that belongs to every image."""
    face = restored.face
    if restored.kept == "upsampled":
        return f"Upsampled from a face of {face.side:.0f} pixels; nothing is drawn."
    pixels = face.lr.shape[0] if face.thrown_away else round(face.side)
    if method.weights == "none":
        return (f"Made by {method.name} from a face of {pixels} pixels: nothing is learned, so no "
                "detail is drawn.")
    # Of an image whose pixels were thrown away to try a method the upsampled one has them all.
    sharper = "" if face.thrown_away else ("and the face is sharper than the upsampled one, not "
                                           "surely nearer to the ground truth")
    return (f"Drawn by {method.name} ({method.weights} weights) from a face of {pixels} pixels: "
            f"details are likely, not true{', ' * bool(sharper)}{sharper}. No evidence of who this "
            "is or how they looked.")


def agreement(restored: Restored) -> str:
    """How far the images are from the given pixels."""
    apart, count = restored.apart, round(restored.face.side)
    return (f"From the {count} x {count} given pixels the restored face differs by "
            f"{apart['restored']:.1f} of 255 grey levels, the upsampled one by "
            f"{apart['upsampled']:.1f}, what the method drew by {apart['drawn']:.1f}; "
            f"{restored.undecided_share:.1%} of the restored contrast is in details that "
            f"{_deciding(restored)} do not decide.")


def _deciding(restored: Restored) -> str:
    """The pixels that the method got, in words."""
    count = restored.face.got.count
    if restored.face.thrown_away:
        return f"the {count} x {count} pixels that the method got"
    return "the given pixels"


def words(method: Method, restored: Restored) -> list[str]:
    """What a user must know, a line each."""
    face = restored.face
    which = "face"
    if face.of > 1:
        which += f" {face.number} of {face.of}" + f", {face.which}" * bool(face.which)
    said = f"{which}: {face.side:.0f} pixels, now {face.size}, landmarks: {face.landmarks.source}. "
    return [said + notice(method, restored), *filter(None, [restored.verdict]), agreement(restored),
            *(f"warning: {doubt}" for doubt in restored.doubts)]


def _panel(image: np.ndarray, smooth: bool = False) -> np.ndarray:
    """An image at panel size: pixels stay visible unless it is asked to be smooth."""
    if smooth:
        return to_uint8(np.clip(imresize(to_float(image[None]), PANEL, PANEL), 0, 1))[0]
    index = np.arange(PANEL) * image.shape[0] // PANEL
    return image[index][:, index]


def _map(undecided: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    colours = colormaps["cividis"](np.clip(undecided / FULL, 0, 1))[..., :3]
    return to_uint8(colours.transpose(2, 0, 1)[None])[0]


def _panels(method: Method, restored: Restored) -> list[tuple[str, np.ndarray, bool]]:
    """Title, image, and whether it is the one that is kept."""
    face, kept = restored.face, restored.kept
    title, count = f"restored by {method.name} ({method.weights})", round(face.side)
    given = _panel(face.given.seen_at(face.given.count))
    got = [(f"the method got {len(face.lr)} x {len(face.lr)}", _panel(face.lr), False)]
    plain = "upsampled" + " from all given pixels" * face.thrown_away
    shown = [(f"given: {count} x {count} pixels", given, False), *got * face.thrown_away,
             (plain, _panel(face.shown, smooth=True), kept == "upsampled"),
             (title, _panel(restored.restored, smooth=True), kept == "restored")]
    if restored.album:
        title = f"reference, 1 of {len(restored.album)} in the album"
        shown.append((title, _panel(restored.album[0].image, smooth=True), False))
    undecided = _panel(_map(restored.undecided))
    title = "yellow: not decided by " + ("what it got" if face.thrown_away else "the given pixels")
    return [*shown, (title, undecided, False)]


def before_after(method: Method, restored: Restored) -> np.ndarray:
    """One image, uint8: given pixels, upsampled, the restoration, the reference, what is
    undecided, and what to know."""
    from PIL import Image, ImageDraw, ImageFont

    panels, font = _panels(method, restored), ImageFont.load_default(size=13)
    width = len(panels) * (PANEL + GAP) + GAP
    warned = [restored.verdict, *(f"Warning: {doubt}." for doubt in restored.doubts)]
    said = [*((text, WARNED) for text in warned), (notice(method, restored), "black"),
            (agreement(restored), "black")]
    lines = [(line, colour) for text, colour in said
             for line in textwrap.wrap(text, (width - 2 * GAP) // 6)]
    sheet = Image.new("RGB", (width, PANEL + 3 * GAP + LINE * (len(lines) + 1) + 4), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (title, image, kept) in enumerate(panels):
        left, top = GAP + i * (PANEL + GAP), GAP + LINE + 4
        pen.text((left, GAP), title + " - kept" * kept, fill=KEPT if kept else "black", font=font)
        if kept:
            pen.rectangle((left - 4, top - 4, left + PANEL + 3, top + PANEL + 3), fill=KEPT)
        sheet.paste(Image.fromarray(image), (left, top))
    for i, (line, colour) in enumerate(lines):
        pen.text((GAP, PANEL + 2 * GAP + LINE * (i + 1) + 4), line, fill=colour, font=font)
    return np.asarray(sheet)


def _with_notice(image: np.ndarray, text: str) -> bytes:
    """PNG whose metadata say what it is."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def _write(out: Path, stem: str, files: dict[str, bytes], method: str = "") -> list[Path]:
    """Write files by their endings. Where files of that name are there, whoever made them, and
    differ, the method comes into the name, and then a number: nothing is replaced but a record
    beside the very same pictures."""
    def free(name: str) -> bool:
        there = {end: out / f"{name}{end}" for end in files if (out / f"{name}{end}").exists()}
        record = there.pop(".json", None)
        return ((bool(there) or record is None)
                and all(path.is_file() and path.read_bytes() == files[end]
                        for end, path in there.items()))
    own = f"{stem}-{method}" if method else stem
    further = (f"{own}-{n}" for n in itertools.count(2))
    stem = next(filter(free, itertools.chain((stem, own), further)))
    return write_files(out, {f"{stem}{end}": data for end, data in files.items()})


def _source(image: Path) -> str:
    """Name and content of an image: what its outputs belong to."""
    return f"{image.name} sha256 {digest(image.read_bytes())}"


def write(restored: Restored, method: Method, image: Path, out: Path) -> list[Path]:
    """Write NAME-before-after.png, NAME-restored.png (the whole image), NAME-face.png,
    NAME-drawn.png (what the method drew) and NAME.json; returns the paths. NAME is the image's,
    and its face's where it has several; where other files have it, the method's too, and a number.

    Raises:
        FsrError: the folder cannot be written.
    """
    face, text = restored.face, notice(method, restored)
    record = {
        "notice": text, "kept": restored.kept, "verdict": restored.verdict,
        "doubts": list(restored.doubts),
        "method": method.name, "weights": method.weights, "method_digest": method_digest(method),
        "licence": method.licence, "scale": face.scale, "face": face.number, "faces": face.of,
        "which": face.which, "sure": face.sure, "remarks": list(face.remarks),
        "face_pixels": round(face.side, 1), "landmarks": face.landmarks.source, "grey": face.grey,
        "album": [p.id for p in restored.album], "left_out": restored.left_out.reasons,
        "disagreement_grey_levels": round(restored.apart[restored.kept], 2),
        "grey_levels_from_given": {name: round(value, 2) for name, value in restored.apart.items()},
        "undecided_share": round(restored.undecided_share, 4), "source": _source(image),
        **describe({"image": image.name, "profile": method.profile.name})}
    images = {"-restored.png": restored.whole, "-face.png": restored.crop}
    files = {"-before-after.png": encode_png(before_after(method, restored)),
             **{suffix: _with_notice(pixels, text) for suffix, pixels in images.items()},
             "-drawn.png": _with_notice(restored.drawn, f"Drawn by {method.name}, before the given "
                                        "pixels were put into it."),
             ".json": json_text(record).encode()}
    stem = image.stem + (f"-face{face.number}" if face.of > 1 else "")
    return _write(out, stem, files, method.name)
