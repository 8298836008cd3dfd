"""`invoke figure`: from words to files, one figure after the other; one that cannot be drawn costs
no other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fsrbench.engine.fixed import Fixed
from fsrbench.engine.options import check_data, open_store, plan, whole
from fsrbench.errors import FsrError
from fsrbench.reports.figures.context import Context
from fsrbench.reports.figures.registry import figures, get_figure, write


def draw(numbers: Sequence[str], profile: str, data: Sequence[str], methods: Sequence[str],
         people: str | None,
         seed: str | None, batch: str | None, store: str, out: str, fixed: Fixed = Fixed()) -> int:
    """Draw figures and print their captions.

    Args:
        numbers: of the figures; empty for all.

    Returns:
        Exit code: 0, or that of the first figure of all that could not be drawn, each named on
        stderr.

    Raises:
        FsrError: a wrong word; or a figure that was asked for by number cannot be drawn.
    """
    wanted = [get_figure(whole("n", text, 1)) for text in numbers] or list(figures().values())
    options = plan(profile, data[0] if data else None, (), (), (), people, seed, batch, fixed=fixed)
    records = open_store(store, out=out)
    check_data(data, records)
    context = Context(options, records, tuple(data), tuple(methods))
    code = 0
    for entry in wanted:
        try:
            paths = write(entry, context, Path(out))
        except FsrError as error:
            if numbers:
                raise
            print(f"figure {entry.number} was not drawn: {error}", file=sys.stderr)
            code = code or error.code
            continue
        print(next(p for p in paths if p.suffix == ".txt").read_text())
        print("written: " + ", ".join(map(str, paths)), file=sys.stderr)
    return code
