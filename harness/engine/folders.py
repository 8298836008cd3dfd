"""Images in a user's folders: everything that can be one is taken, everything else is named."""

from __future__ import annotations

import os
from pathlib import Path

from fsrbench.engine.data import IMAGE_SUFFIXES, Entry
from fsrbench.engine.findings import Findings
from fsrbench.errors import FsrError
from fsrbench.imaging import Decoded, decoded


def people_folder(root: Path, what: str, findings: Findings | None = None) -> tuple[Entry, ...]:
    """Entries of a folder of people, `<person>/<image>`, sorted by id.

    Args:
        findings: for what is no image, or cannot be one.

    Raises:
        FsrError: the folder is missing, cannot be read or holds no people.
    """
    findings = Findings() if findings is None else findings
    try:
        people, fault = _visible(root), ""
    except (FileNotFoundError, NotADirectoryError):
        fault = "no such folder"
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    if fault:
        raise FsrError(f"{what} {root}", fault, "give the folder that holds one folder a person",
                       code=2)
    entries = []
    for person in people:
        if _is(person.is_dir):
            paths = images_in(Path(person.path), findings, f"{person.name}/")
            entries += [Entry(p.parent.name, p.name, str(p.relative_to(root))) for p in paths]
        elif _is_dangling(person):
            findings.add("dangling link", _shown(person.name))
        else:
            findings.remarks.add("left alone, in no person's folder", _shown(person.name))
    if not entries:
        raise FsrError(f"{what} {root}",
                       "; ".join(["holds no <person>/<image>", *findings.lines(3)]),
                       "put one folder a person there, with at least two images each", code=2)
    return tuple(sorted(entries, key=lambda e: e.id))


def images_in(folder: Path, findings: Findings, prefix: str = "") -> list[Path]:
    """Files of a folder that are images by their name or, under any other name, by their content;
    by name.

    Hidden files are passed over. A dangling link, a folder or a device under an image's name, and a
    name that cannot be written are left out; what is no image is left alone. Both are named.

    Args:
        prefix: stands before the names.
    """
    found = []
    try:
        items = _visible(folder)
    except OSError as error:
        findings.add(f"folder that cannot be read ({error.strerror})",
                     _shown(prefix.rstrip("/") or folder.name))
        return []
    for item in items:
        if why := _unfit(item, prefix + item.name):
            findings.add(why, _shown(prefix + item.name))
        elif is_image(item.path):
            found.append(Path(item.path))
        else:
            findings.remarks.add("left alone, not an image", prefix + item.name)
    if prefix and not found:
        findings.add("person's folder without an image", _shown(prefix.rstrip("/")))
    return found


def is_folder(path: Path) -> bool:
    """Whether a path that a user typed is a folder; no where it cannot even be looked for."""
    return _is(path.is_dir)


def _visible(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as items:
        return sorted((item for item in items if not item.name.startswith(".")),
                      key=lambda item: item.name)


def _shown(name: str) -> str:
    """A name that can be printed and written anywhere."""
    return name if name.isprintable() else ascii(name)


def _is(question) -> bool:
    """The answer of `is_dir` or `is_file`; no where there is none (a link in a circle)."""
    try:
        return question()
    except OSError:
        return False


def _unfit(item: os.DirEntry, name: str) -> str:
    """Why an entry of a folder cannot be an image; empty if it may be one."""
    if not name.isprintable():
        return "name that cannot be written"
    if _is(item.is_dir):
        return "a folder in a person's folder"
    if not _is(item.is_file):
        return "dangling link" if _is_dangling(item) else "not a regular file"
    return ""


def _is_dangling(item: os.DirEntry) -> bool:
    return item.is_symlink() and not os.path.exists(item.path)


def is_image(path: str | Path) -> bool:
    """Whether a file is an image by its name or by its first bytes."""
    import pillow_heif
    from PIL import Image

    if str(path).lower().endswith(tuple(IMAGE_SUFFIXES)):
        return True
    if not os.path.isfile(path):  # a pipe would never end
        return False
    pillow_heif.register_heif_opener()
    try:
        with Image.open(path):
            return True
    except Exception:  # decoders raise anything on what is not theirs
        return False


def read_image(path: Path) -> Decoded:
    """An image that a user gave.

    Raises:
        FsrError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FsrError(f"image {path}", f"cannot be read ({error.strerror})",
                       "check the path") from None
    return decoded(data, str(path))
