"""Folders of images that somebody else's program wrote: which file belongs to which image, and what
is wrong with it.

Nothing that is wrong is averaged over: such an image counts as failed, with its reason, in every
table.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fsrbench.engine.data import IMAGE_SUFFIXES
from fsrbench.engine.folders import is_image
from fsrbench.engine.store import MARKER
from fsrbench.errors import FsrError
from fsrbench.imaging import Decoded, decoded
from fsrbench.weights.catalogue import file_digest

# More pixels than this are not scored: metrics need some hundred bytes for each.
MOST_PIXELS = 4096 * 4096
# How a PNG file begins.
PNG = b"\x89PNG\r\n\x1a\n"
# Faults that a user may wave through, and what is then done with the image.
ALLOWED = {"jpeg": "lossy, taken as decoded", "alpha": "transparent, laid on white",
           "16-bit": "16 bits a channel, rounded to 8"}
# Formats that lose something, or may, by Pillow's names.
_LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WebP", "AVIF": "AVIF", "HEIF": "HEIC",
          "JPEG2000": "JPEG 2000"}


@dataclass(frozen=True)
class Folder:
    """Image files below a folder.

    Args:
        root: the folder.
        files: by path below it without suffix ("person/0001"); files of one such name stand
            together.
    """

    root: Path
    files: Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True)
class Matched:
    """Which file is whose.

    Args:
        files: by image id; faults: image id -> why it has none; extra: names of files that are
            nobody's.
    """

    files: dict[str, Path]
    faults: dict[str, str]
    extra: list[str]


def plain(name: str) -> str:
    """A file's name as text that can be written anywhere: composed (NFC), and what is no UTF-8 as
    escapes."""
    return unicodedata.normalize("NFC", name).encode("utf-8", "backslashreplace").decode()


def stem(name: str) -> str:
    """An image's id or path below a folder without its suffix: "s1/3.pgm" is "s1/3"."""
    path = PurePosixPath(plain(name))
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else str(path)


@dataclass(frozen=True)
class Named:
    """A folder behind `[NAME=]PATH`.

    Args:
        path: of it; plain: its name, in which nothing is markup to any format of a table; title: as
            the table shows it.
    """

    path: str
    plain: str
    title: str


def named(argument: str, option: str) -> Named:
    """What stands in `[NAME=]PATH`; the name is the folder's where none is given.

    Raises:
        FsrError: the name has no letter.
    """
    name, given, path = argument.rpartition("=")
    if not given or "/" in name:
        name, path = "", argument
    title = plain(name or Path(path).expanduser().resolve().name)
    short = re.sub(r"[^\w.+-]+", "_", title).strip("_")
    if not short:
        raise FsrError(f"{option}{argument}", "its name has no letter", "write NAME=PATH", code=2)
    return Named(path, short, re.sub(r"[|*_<>&$\\{}#%`\[\]]+", " ", title).strip())


def open_folder(path: str | Path, option: str) -> Folder:
    """The image files below a folder, at any depth, by name or content; hidden ones, other files
    and what lies in a store of this program are left alone.

    Args:
        option: what a user typed it behind, for the message.

    Raises:
        FsrError: there is no such folder, or no image in it.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FsrError(f"{option} {path}", "no such folder", "give a folder of images", code=2)
    stores = [mark.parent for mark in root.rglob(MARKER)]
    found: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*")):
        if any(store in file.parents for store in stores):
            continue
        below = file.relative_to(root)
        hidden = any(part.startswith(".") for part in below.parts)
        if not hidden and not file.is_dir() and is_image(file):
            found.setdefault(stem(below.as_posix()), []).append(file)
    if not found:
        raise FsrError(f"{option} {path}", "holds no image", "give a folder of PNG files", code=2)
    return Folder(root, {name: tuple(files) for name, files in found.items()})


def match(ids: Collection[str], folder: Folder, loose: bool = True) -> Matched:
    """The file of each image: by its path below the folder ("s1/3", or in one flat folder "s1_3").

    Args:
        ids: of all images; a suffix does not count.
        loose: also by how a path ends ("run/s1/3", else "3"), where that is nobody else's on either
            side.
    """
    exact = {id: [n for n in (stem(id), stem(id).replace("/", "_")) if n in folder.files][:1]
             for id in ids}
    taken = {name for names in exact.values() for name in names}
    ours = _by_end(map(stem, ids))
    theirs = _by_end(name for name in folder.files if loose and name not in taken)
    files, faults, used = {}, {}, set()
    for id in ids:
        end = stem(id) if stem(id) in theirs else stem(id).rpartition("/")[2]
        found = exact[id] or theirs.get(end, [])
        used.update(found)
        if not found:
            faults[id] = "missing"
            continue
        # Several files for one image, one file for several images, or one name with several
        # suffixes.
        rivals = max(found, [] if exact[id] else ours[end],
                     [plain(file.name) for file in folder.files[found[0]]], key=len)
        if len(rivals) > 1:
            faults[id] = "ambiguous: " + ", ".join(rivals[:3])
        else:
            files[id] = folder.files[found[0]][0]
    extra = [plain(str(file.relative_to(folder.root))) for name, group in folder.files.items()
             if name not in used for file in group]
    return Matched(files, faults, extra)


def _by_end(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by each of their ends: of "run/s1/3" that, "s1/3" and "3"."""
    by: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        for i in range(len(parts)):
            by.setdefault("/".join(parts[i:]), []).append(name)
    return by


def content_of(path: Path) -> str:
    """sha256 of a file; of one that cannot be read, why."""
    try:
        return (file_digest(path) if path.is_file() else
                "a link to nothing" if path.is_symlink() else "no regular file")
    except OSError as error:
        return f"{error.strerror}"


def kind_of(path: Path) -> tuple[tuple[int, int], dict[str, str]]:
    """(width, height) of an image file, and which of `ALLOWED` it is, in words; only as much is
    decoded as that needs.

    Raises:
        FsrError: it is no image, or has too many pixels.
    """
    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    if not path.is_file():
        raise FsrError(f"image {path}", "cannot be read (a link to nothing)" if path.is_symlink()
                       else "is no regular file", "write it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path)
        with image:
            if image.size[0] * image.size[1] <= MOST_PIXELS:
                return image.size, _kinds(image, path)
            size = "{} x {}".format(*image.size)
    except Image.DecompressionBombError:
        size = "over 178 million"
    except Exception as error:
        cause = getattr(error, "strerror", None) or (
            "the file is empty" if not path.stat().st_size else "not a whole image")
        raise FsrError(f"image {path}", f"cannot be read ({cause})", "write it again") from None
    raise FsrError(f"image {path}", f"has {size} pixels, more than the {MOST_PIXELS:,} that are "
                   "scored", "crop or downsample it")


def _kinds(image, path: Path) -> dict[str, str]:
    found = {}
    if image.format == "WEBP":
        image.load()
    if image.format in _LOSSY and not (image.format == "WEBP" and image.info.get(
            "lossless", _lossless_webp(path))):
        found["jpeg"] = f"lossy {_LOSSY[image.format]}"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        found["16-bit"] = "16 bits a channel"
    if ("A" in image.getbands() or "transparency" in image.info) \
            and image.convert("RGBA").getextrema()[3][0] < 255:
        found["alpha"] = "transparent"
    return found


def _lossless_webp(path: Path) -> bool:
    """Whether the first image chunk of a WebP file is coded without loss (the container's
    "VP8L")."""
    return b"VP8L" in path.read_bytes()[:4096]


def read_whole(path: Path) -> tuple[bytes, Decoded]:
    """A file and the image in it.

    Raises:
        FsrError: it is no image, or has too many pixels.
    """
    kind_of(path)
    return _read(path)


def _read(path: Path) -> tuple[bytes, Decoded]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FsrError(f"image {path}", f"cannot be read ({error.strerror})", "") from None
    return data, decoded(data, str(path))


def read_output(path: Path, size: int | tuple[int, int] | None, allow: Collection[str] = ()
                ) -> tuple[np.ndarray | None, str]:
    """An output as uint8 (H, W, 3), and why there is none; what is allowed counts as no fault.

    Args:
        size: (width, height) that it must have, or the side of a square; None for any.
    """
    return read_with_png(path, (size, size) if isinstance(size, int) else size, allow)[:2]


def read_with_png(path: Path, size: tuple[int, int] | None, allow: Collection[str]
                  ) -> tuple[np.ndarray | None, str, bytes]:
    """`read_output`, and the file itself where it is a PNG that holds just these pixels."""
    try:
        (width, height), kinds = kind_of(path)
        if faults := [words for kind, words in kinds.items() if kind not in allow]:
            return None, " and ".join(faults), b""
        if size and (width, height) != size:
            return None, "is {} x {} pixels, not {} x {}".format(width, height, *size), b""
        data, read = _read(path)
    except FsrError as error:
        return None, error.cause, b""
    return read.pixels, "", data if data.startswith(PNG) and not kinds else b""
