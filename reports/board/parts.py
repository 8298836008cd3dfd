"""Pieces of the board's pages. Whatever comes out of a result file is escaped, and no address in
one is made a link."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from fsrbench.metrics import Metric
from fsrbench.reports.board.groups import Entry, Group
from fsrbench.reports.pages import site
from fsrbench.reports.tables.render import NOTHING, header, labelled, number, shown
from fsrbench.reports.tables.table import Measured

PAGES = (("index.html", "Tables"), ("robustness.html", "Robustness"),
         ("history.html", "History"))


def assets() -> dict[str, str]:
    """The style and the script that all pages share, by file name."""
    pages, here = Path(site.__file__).parent, Path(__file__).parent
    style = [pages / "page.css", pages / "site.css", here / "board.css"]
    return {"board.css": "".join(path.read_text(encoding="utf-8") for path in style),
            "board.js": (pages / "sort.js").read_text(encoding="utf-8")}


def document(title: str, body: str, lead: str = "") -> str:
    """A page that works from a file, without network; title and lead are text, body is HTML."""
    links = "".join(f'<li><a href="{page}">{name}</a></li>' for page, name in PAGES)
    said = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title>"
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="stylesheet" href="board.css"></head>\n'
            f'<body><a class="skip" href="#main">Skip to the content</a>'
            f'<header><h1>{escape(title)}</h1>{said}'
            f'<nav aria-label="Board"><ul>{links}</ul></nav></header>'
            f'<main id="main" tabindex="-1">{body}</main>'
            f'<script src="board.js"></script></body></html>\n')


def link(page: str, text: str) -> str:
    """A link to a page of the board."""
    return f'<a href="{page}">{escape(text)}</a>'


def cell(text: str, sort: object = None, kind: str = "") -> str:
    """A table's cell of text; sort: what its column sorts by, where that is not its text."""
    key = "" if sort is None else f' data-sort="{escape(str(sort))}"'
    return f'<td{key} class="{kind}">{escape(text)}</td>'


def table(caption: str, heads: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """A sortable table; heads and caption are text, rows are HTML. It scrolls by keyboard where it
    is wider than the page."""
    columns = "".join(f'<th scope="col" aria-sort="none"><button>{escape(h)}</button></th>'
                      for h in heads)
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
            f'<table class="sortable {kind}"><caption>{escape(caption)}</caption><thead><tr>'
            f'{columns}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>')


def facts(pairs: Mapping[str, object]) -> str:
    """Names and what is said of them, as text."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
                            for name, value in pairs.items()) + "</dl>"


def sort_key(value: float) -> str:
    """What a number sorts by; missing ones stay last."""
    return f"{value:.9g}" if math.isfinite(value) else ""


def value_cell(metric: Metric, found: Measured, mark: str) -> str:
    """A mean with its interval."""
    s = found.summary
    if not math.isfinite(s.mean):
        return cell(NOTHING, "")
    spoken = {"best": "best", "second": "second best", "": ""}[mark]
    spread = "" if math.isnan(s.low) else \
        f"<small>{number(metric, s.low)} – {number(metric, s.high)}</small>"
    counted = f' title="n = {s.n_ok}{"; " + spoken if spoken else ""}"'
    return (f'<td class="{mark}" data-sort="{sort_key(s.mean)}"{counted}>{shown(metric, s)}'
            f"{spread}</td>")


def row_head(entry: Entry) -> str:
    """A row's head: the method, by its page."""
    title = labelled(entry.method["title"], entry.method["weights"])
    return f'<th scope="row" data-sort="{escape(title)}">{link(entry.page, title)}</th>'


def group_table(group: Group) -> str:
    """The table of a group."""
    rows = []
    for entry in group.entries:
        why, failed = group.unranked(entry), entry.values.failed(group.scale)
        n = len(entry.values.samples) - failed
        cells = "".join(value_cell(m, group.cells[entry.id, m.id],
                                   group.marks.get((entry.id, m.id), "")) for m in group.metrics)
        rows.append(f'<tr class="{"control" if why else ""}">{row_head(entry)}'
                    f'<td>{entry.tier(group.scale)}<small>{escape(why)}</small></td>'
                    f"{cell(f'{n} ({failed} failed)' if failed else str(n), n)}"
                    f"{cells}{cell(entry.date or 'not said')}"
                    f"{cell(said_by(entry), kind='by')}</tr>")
    heads = ["Method", "Tier", "n", *map(header, group.metrics), "Measured", "By"]
    return table(f"{group.title}: mean and 95 % interval over people", heads, rows)


def said_by(entry: Entry) -> str:
    """Who published a file."""
    by = entry.header["submitter"]
    return f"{by['name']} ({by['relation']})" if by["name"] else by["relation"]
