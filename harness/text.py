"""Tables and data as text: aligned for the terminal, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fsrbench.errors import FsrError


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Rows of text, aligned; the last column runs free."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join("  ".join([*(text.ljust(w) for text, w in zip(line, widths)), line[-1]])
                     .rstrip() for line in lines)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]],
                   left: int | None = None) -> str:
    """A Markdown table, aligned so that it also reads in a terminal.

    Args:
        left: how many columns stand left, the others right; None for all.
    """
    lines = [[str(cell) for cell in line] for line in (head, *rows)]
    left = len(head) if left is None else left
    # A rule of less than three characters is no table to some readers.
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    text = [[cell.ljust(w) if i < left else cell.rjust(w)
             for i, (cell, w) in enumerate(zip(line, widths))] for line in lines]
    text.insert(1, ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    return "\n".join("| " + " | ".join(line) + " |" for line in text)


def csv_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table with a line feed behind each line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def factor(scale: int) -> str:
    """Heading of a scale; 1 stands for outputs that were scored as they are."""
    return f"×{scale}" if scale > 1 else "as given"


def json_text(data: object) -> str:
    """JSON as this program writes it into files."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def read_json(path: Path, *names: str, remedy: str = "replace it") -> dict:
    """The object of a JSON file, which must have these names.

    Raises:
        FsrError: the file cannot be read, or is none such.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lacking = [f"has no {name!r}" for name in names if name not in found]
        cause = "holds no object" if not isinstance(found, dict) else ", ".join(lacking)
    except OSError as error:
        raise FsrError(f"file {path}", f"cannot be read ({error.strerror})",
                       "check that it is there") from None
    except (ValueError, TypeError) as error:
        cause = str(error).splitlines()[0][:100]
    if cause:
        raise FsrError(f"file {path}", f"is damaged ({cause})", remedy)
    return found
