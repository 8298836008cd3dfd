"""A static site over many result files: `invoke board`. No server, no network, no database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fsrbench.engine.outputs import open_folder
from fsrbench.engine.store import Store, check_folder, write_files
from fsrbench.errors import FsrError
from fsrbench.imaging import encode_png, image_digest, load
from fsrbench.reports.board.groups import Group, Refused, files_of, grouped, load as load_files
from fsrbench.reports.board.pages import (
    group_page,
    history_page,
    index_page,
    method_page,
    robustness_page,
    sample_pages,
)
from fsrbench.reports.board.parts import assets

# The page by which an earlier board is known, and names that only this program gives.
_OURS = "robustness.html"
_PAGE = re.compile(r"(group|method|sample)-[0-9a-f]{16}\.html|image-[0-9a-f]{64}\.png")


def board(paths: Sequence[str], out: str, images: str | None = None,
          store: Store | None = None) -> tuple[list[Path], list[Refused]]:
    """Write the site; returns its files, the first page first, and what was refused.

    Args:
        images: folder of images to show where their pixels are those of a file; None without.
        store: run each method again where that can be done here, with this store; None for not.
    """
    place = Path(out).expanduser()
    check_folder(place)
    if place.is_dir() and any(place.iterdir()) and not (place / _OURS).is_file():
        raise FsrError(f"--out {out}", "is not empty, and no earlier board",
                       "give a new folder, or that of a board", code=2)
    entries, refused = load_files(files_of(paths), store)
    if not entries:
        raise FsrError(f"result file {refused[0].path}", f"does not hold ({refused[0].reasons[0]})",
                       "write it by `invoke export-results`", code=2)
    groups = grouped(entries)
    shown = _images(groups, images) if images else {}
    files = {"index.html": index_page(groups, refused), "robustness.html": robustness_page(groups),
             "history.html": history_page(groups), **assets(), **shown}

    def image(digest: str) -> str:
        name = _image_file(digest)
        return name if name in shown else ""
    for group in groups:
        files |= {group.page: group_page(group), **sample_pages(group, image)}
    files |= {entry.page: method_page(entry, groups) for entry in entries}
    written = write_files(place, files)
    # Pages of an earlier board, of a file that is refused by now, say.
    for path in place.iterdir():
        if _PAGE.fullmatch(path.name) and path.name not in files:
            path.unlink()
    return written, refused


def _image_file(digest: str) -> str:
    return f"image-{digest}.png"


def _images(groups: Sequence[Group], folder: str) -> dict[str, bytes]:
    """The images of a folder that are those of a result file, pixel for pixel, as PNG."""
    wanted = {digest for group in groups for entry in group.entries
              for name in ("restored", "lr", "truth") for digest in entry.record.rows[name]}
    found = {}
    for path in (p for files in open_folder(folder, "--images").files.values() for p in files):
        try:
            image = load(path)
        except FsrError:  # one that cannot be read is nobody's
            continue
        if (digest := image_digest(image)) in wanted:
            found[_image_file(digest)] = encode_png(image)
    return found
