"""The registry of figures: one file for a figure or for its kin, found by being in this folder.

A figure is a function of a `Context` (data, people, profile, store) that returns a `Drawing`;
`write` makes its files.
"""

from __future__ import annotations

import html
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fsrbench.engine.store import write_files
from fsrbench.errors import FsrError
from fsrbench.text import csv_table

if TYPE_CHECKING:
    import matplotlib.figure

    from fsrbench.reports.figures.context import Context


@dataclass(frozen=True)
class Drawing:
    """What a figure's function returns.

    Args:
        canvas: the matplotlib figure.
        caption: what is shown, of how many, under which protocol; whole sentences.
        rows: the numbers behind the image, one dict a line of the CSV; empty where there are none.
        images: whether it shows images, which are also wanted as a PNG.
    """

    canvas: matplotlib.figure.Figure
    caption: str
    rows: list[dict] = field(default_factory=list)
    images: bool = False


@dataclass(frozen=True)
class Entry:
    """A registered figure: its number in the paper, its title, and what draws it."""

    number: int
    title: str
    draw: Callable[[Context], Drawing]


_figures: dict[int, Entry] = {}


def figure(number: int, title: str):
    """Register a function as the paper's figure of that number.

    Raises:
        FsrError: the number is taken.
    """
    def register(function: Callable[[Context], Drawing]) -> Callable[[Context], Drawing]:
        if number in _figures:
            raise FsrError(f"figure {number}", "registered twice", "give it another number", code=2)
        _figures[number] = Entry(number, title, function)
        return function
    return register


@cache
def _load() -> None:
    package = importlib.import_module("fsrbench.reports.figures")
    for info in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{info.name}")


def figures() -> dict[int, Entry]:
    """All registered figures by number."""
    _load()
    return dict(sorted(_figures.items()))


def get_figure(number: int) -> Entry:
    """The figure of that number.

    Raises:
        FsrError: there is none; names those that there are.
    """
    known = figures()
    if number not in known:
        raise FsrError(f"figure {number}", "unknown", f"known: {', '.join(map(str, known))}",
                       code=2)
    return known[number]


def _table(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return csv_table(names, ([row.get(name, "") for name in names] for row in rows))


def write(entry: Entry, context: Context, out: Path) -> list[Path]:
    """Draw a figure and write figureN.svg, .txt (caption), and where it has them .png and .csv;
    returns the paths.

    The same records give the same bytes. The SVG carries title and caption for those who do not see
    it.

    Raises:
        FsrError: the folder cannot be written, or what the figure shows cannot be computed here.
    """
    from fsrbench.reports.figures import style

    name = f"figure{entry.number}"
    with style.use(name):
        drawing = entry.draw(context)
        caption = f"Figure {entry.number}. {entry.title}. {drawing.caption}"
        described = f"<title>{html.escape(entry.title)}</title><desc>{html.escape(caption)}</desc>"
        files = {"svg": style.svg(drawing.canvas, described).encode(),
                 "txt": f"{caption}\n".encode()}
        if drawing.images:
            files["png"] = style.png(drawing.canvas)
    if drawing.rows:
        files["csv"] = _table(drawing.rows).encode()
    return write_files(out, {f"{name}.{suffix}": data for suffix, data in files.items()})
