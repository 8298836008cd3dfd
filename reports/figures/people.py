"""The people of a data set as files to take along, and on one sheet."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fsrbench.engine.data import open_source
from fsrbench.engine.store import check_folder, write_files
from fsrbench.errors import FsrError
from fsrbench.imaging import load

# Side of an image on the sheet; quality of JPEG, which makes 12 kB of 256 px.
SIDE, QUALITY = 128, 85


def jpeg(image: Image.Image) -> bytes:
    """An image in a file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def sheet(people: dict[str, list[Image.Image]]) -> Image.Image:
    """A row of images for each person."""
    rows = [np.hstack([image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for image in images])
            for images in people.values()]
    return Image.fromarray(np.vstack(rows))


def make(data: str, out: str, overview: str) -> list[Path]:
    """Write the images of a data set of files, of each person as many, and the sheet; returns both
    paths.

    Raises:
        FsrError: one of both cannot be written, or the sheet is called otherwise than a JPEG file.
    """
    where = Path(overview).expanduser()
    if where.is_dir() or where.suffix.lower() not in (".jpg", ".jpeg"):
        raise FsrError(f"--sheet {overview}", "is a folder" if where.is_dir()
                       else "is not called as a JPEG file is", "give a file NAME.jpg", code=2)
    out = Path(out).expanduser()
    check_folder(out)  # before the minutes that drawing takes
    check_folder(where.parent, "--sheet")
    source, people, files = open_source(data), {}, {}
    for entry in source.entries:
        image = Image.fromarray(load(source.root / entry.path))
        people.setdefault(entry.person, []).append(image)
        files[f"{entry.person}/{Path(entry.image).stem}.jpg"] = jpeg(image)
    write_files(out, files)
    return [out, *write_files(where.parent, {where.name: jpeg(sheet(people))})]
