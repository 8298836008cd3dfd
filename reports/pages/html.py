"""A table as one self-contained page: the numbers with their intervals, and the images behind
them."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from fsrbench.engine.run import Outcome
from fsrbench.engine.store import Store
from fsrbench.metrics import Metric
from fsrbench.reports.analysis.identity_map import identity_map, mapped_samples
from fsrbench.reports.tables.judges import DAGGER
from fsrbench.reports.tables.render import (
    NOTHING,
    difference,
    header,
    labelled,
    number,
    paper_shown,
    shown,
)
from fsrbench.reports.tables.table import Row, Table, Value
from fsrbench.text import factor

# Images of each person in the gallery, and the most strips of a scale.
PER_PERSON, STRIPS = 2, 24
# Longest side in pixels of an image in the gallery.
LARGEST = 384


def page(title: str, body: str) -> str:
    """A whole HTML document with the project's style."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<style>{style}</style></head>\n'
            f"<body><main>{body}</main></body></html>\n")


def counted(value: Value) -> str:
    """What a measured cell is of, and whether it leads: "n = 57; 2 failed; best"."""
    s, spoken = value.summary, {"best": "best", "second": "second best", "": ""}[value.mark]
    return "; ".join(filter(None, [f"n = {s.n_ok}", f"{s.n_failed} failed" if s.n_failed else "",
                                   spoken]))


def _cell(metric: Metric, row: Row) -> str:
    value = row.values[metric.id]
    if value.summary is None:
        return "<td>n/a</td>"
    if not row.n_ok:
        return f'<td title="{row.n_failed} failed">{NOTHING}</td>'
    s = value.summary
    spread = ("" if np.isnan(s.low)
              else f"<small>{number(metric, s.low)} – {number(metric, s.high)}</small>")
    return (f'<td class="{value.mark}" title="{counted(value)}">{shown(metric, s)}'
            f"{DAGGER * value.seen}{spread}</td>")


def _paper_cell(metric: Metric, value: Value) -> str:
    """The published number; where it may be compared, the difference below it."""
    if value.paper is None:
        return "<td></td>"
    drawn = f"<small>{said}</small>" if (said := difference(metric, value)) else ""
    return f'<td title="{value.verdict}">{paper_shown(metric, value)}{drawn}</td>'


def table_html(table: Table, scale: int) -> str:
    """One scale's table."""
    out = [f'<div class="scroll"><table><caption>{factor(scale)}: mean and 95 % interval</caption>'
           f'<thead><tr>',
           *[f'<th scope="col">{h}</th>' for h in ("Method", "Weights", "n",
                                                   *map(header, table.columns))],
           "</tr></thead><tbody>"]
    for row in table.blocks[scale]:
        count = str(row.n_ok) + (f" ({row.n_failed} failed)" if row.n_failed else "")
        out.append(f'<tr class="{"control" if row.control else ""}"><td>{escape(row.title)}</td>'
                   f'<td>{row.weights}</td>'
                   f"<td>{count}</td>{''.join(_cell(c, row) for c in table.columns)}</tr>")
        papers = [row.values[c.id].paper for c in table.columns]
        if any(p is not None for p in papers):
            cells = "".join(_paper_cell(c, row.values[c.id]) for c in table.columns)
            out.append(f'<tr class="paper"><td>paper</td><td></td><td></td>{cells}</tr>')
    return "".join(out) + "</tbody></table></div>"


def _figure(store: Store, digest: str, caption: str, alt: str) -> str:
    """An image of the store as it is; a large one smaller, as it is shown and not measured."""
    data, kind = store.png(digest), "png"
    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) > LARGEST:
            image.thumbnail((LARGEST, LARGEST))
            small, kind = io.BytesIO(), "webp"
            image.convert("RGB").save(small, "WEBP", quality=90)
            data = small.getvalue()
    return (f'<figure><img src="data:image/{kind};base64,{base64.b64encode(data).decode()}" '
            f'alt="{escape(alt)}" loading="lazy"><figcaption>{caption}</figcaption></figure>')


def _shown(outcome: Outcome) -> list:
    """The first few samples of each person."""
    count: dict[str, int] = {}
    shown = []
    for sample in outcome.samples.samples:
        count[sample.person] = count.get(sample.person, 0) + 1
        if count[sample.person] <= PER_PERSON:
            shown.append(sample)
    return shown[:STRIPS]


def gallery(outcome: Outcome, scale: int, captions: list[Metric]) -> str:
    """Strips LR, each method, ground truth, reference.

    Args:
        captions: metrics whose values stand below each restoration.
    """
    samples = _shown(outcome)
    records = outcome.records[(outcome.records["scale"] == scale)
                              & outcome.records["sample"].isin([s.id for s in samples])]
    restored = records[records["metric"] == "restored"].set_index(["method", "sample"])
    values = records.set_index(["method", "sample", "metric"])["value"].to_dict()
    store, strips = outcome.measures.store, []
    methods = [cell.method for cell in outcome.cells if cell.scale == scale]
    for sample in samples:
        name = escape(sample.id)
        figures = []
        lr = outcome.lr.digest(sample, scale) if scale > 1 else outcome.shown.get(sample.id)
        if lr:
            height, width = store.image(lr).shape[:2]
            figures.append(_figure(store, lr, f"LR {width}×{height}<br>{name}",
                                   f"low-resolution input of {sample.id}"))
        for method in methods:
            title = escape(labelled(method.title, method.weights))
            row = restored.loc[(method.name, sample.id)]
            if not row["image"]:
                figures.append(f"<figure><figcaption>{title}<br>failed</figcaption></figure>")
                continue
            words = [f"{m.title} {number(m, values.get((method.name, sample.id, m.id)))}"
                     for m in captions]
            figures.append(_figure(store, row["image"], "<br>".join([title, *words]),
                                   f"{title} of {sample.id}"))
        if sample.gt.digest:
            figures.append(_figure(store, sample.gt.digest, "Ground truth",
                                   f"ground truth of {sample.id}"))
        if sample.reference is not sample.gt:
            figures.append(_figure(store, sample.reference.digest,
                                   f"Reference<br>{escape(sample.reference.id)}",
                                   f"reference of {sample.id}"))
        strips.append(f'<div class="strip">{"".join(figures)}</div>')
    return f'<div class="gallery">{"".join(strips)}</div>'


def table_page(table: Table, outcome: Outcome, drawn: str) -> str:
    """The page of a table; drawn: its chart."""
    captions = [m for m in table.columns if m.id.startswith(("ids.", "lpips."))
                and m.id not in table.unavailable]
    sections = [f"<h2>{'Scale ' * (scale > 1)}{factor(scale)}</h2>{table_html(table, scale)}"
                f"<h3>Images</h3>{gallery(outcome, scale, captions)}" for scale in table.blocks]
    notes = "".join(f"<li>{escape(n).replace('**bold**', '<b>bold</b>')}</li>" for n in table.notes)
    lead = f"{table.dataset}, profile {table.profile}, {len(outcome.samples.samples)} test images."
    drawn = f'<div class="scroll chart">{drawn}</div>'
    mapped = identity_map(outcome, table)
    if mapped:
        people = len({s.person for s in outcome.samples.samples})
        some = len({s.person for s in mapped_samples(outcome)})
        sections.append('<h2>Identity map</h2><p class="notes">t-SNE of the embeddings behind IDS: '
                        f'one colour a person{f", the first {some} of {people}" * (some < people)}'
                        '. A '
                        "restoration with the right identity lies by its person's stars; distances "
                        "between far "
                        f'clusters mean nothing.</p><div class="scroll">{mapped}</div>')
    return page(table.title,
                f'<h1>{escape(table.title)}</h1>'
                f'<p class="lead">{escape(lead)}</p>{drawn}{"".join(sections)}'
                             f'<h2>Notes</h2><ul class="notes">{notes}</ul>')
