"""The page of `invoke probe`: the restorations under each probe, one row a method, and the numbers
behind them."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from fsrbench.core import Sample
from fsrbench.engine.lr_images import lr_images
from fsrbench.engine.plan import Options
from fsrbench.engine.probes import BASE, Probe, Trial
from fsrbench.engine.stats import Summary
from fsrbench.engine.store import Store, write_files
from fsrbench.imaging import encode_png
from fsrbench.reports.analysis.probe_verdicts import RULE
from fsrbench.reports.pages.html import page
from fsrbench.reports.tables import probe as tables
from fsrbench.text import factor

# People whose images are shown.
SHOWN = 4


def _image(pixels: np.ndarray, alt: str) -> str:
    data = base64.b64encode(encode_png(pixels)).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" loading="lazy">'


def _row(head: str, cells: list[str], lead: str = "") -> str:
    return (f'<tr><th scope="row">{head}</th><td>{lead}</td>'
            + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")


def _columns(table: tables.Probed) -> list[Probe | None]:
    """What stands side by side: the unaltered run, then each probe."""
    return [None, *(p for p in table.probes if p.name in table.trials)]


def _seen(table: tables.Probed, column: Probe | None, i: int) -> Sample:
    """Sample i as some method saw it under a probe."""
    of = table.trials[column.name if column else BASE]
    return next(iter(of.values())).samples[i]


def _restored(table: tables.Probed, trial: Trial | None, i: int, words: str) -> str:
    """A restoration, or why there is none."""
    if trial is None:
        return '<span class="none">not its input</span>'
    if not trial.images[i]:
        return '<span class="none">failed</span>'
    return _image(table.store.image(trial.images[i]), words)


def _of_person(table: tables.Probed, i: int) -> str:
    """Inputs above, restorations below, of one sample."""
    sample, o = table.setting.samples.samples[i], table.setting.options
    other, columns = table.setting.intruders[sample.id], _columns(table)
    lr = lr_images(o.degradation, table.store)
    heads = "".join(f'<th scope="col">{escape(c.title if c else BASE)}</th>' for c in columns)
    inputs, references = [], []
    for column in columns:
        seen = _seen(table, column, i)
        inputs.append(_image(lr(seen, o.scales[0]), f"LR image, {column.name if column else BASE}"))
        references.append(_image(seen.reference.image, f"reference {seen.reference.id}"))
    photographs = [_image(s.gt.image, f"photograph of {s.person}") for s in (sample, other)]
    rows = [_row("LR image", inputs, photographs[0]), _row("Reference", references, photographs[1])]
    for line in table.lines:
        name = line.method.name
        cells = [_restored(table, table.trials[c.name if c else BASE].get(name), i,
                           f"{name}, {c.name if c else BASE}") for c in columns]
        rows.append(_row(escape(tables.titled(line)), cells))
    return (f'<div class="scroll"><table class="probed"><caption>{escape(sample.id)}; the intruder '
            f'is {escape(other.person)}</caption><thead><tr><th scope="col"></th>'
            f'<th scope="col">Ground truth, intruder</th>{heads}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table></div>')


def _shaded(summary: Summary | None) -> str:
    """A movement as a cell: the fuller, the farther it went."""
    if summary is None or math.isnan(summary.mean):
        return f"<td>{tables.NOTHING}</td>"
    share = 100 * min(1.0, max(0.0, summary.mean))
    ends = (f"<small>{summary.low:.2f} – {summary.high:.2f}</small>"
            if math.isfinite(summary.low) else "")
    return (f'<td class="moved" style="--moved:{share:.0f}%" '
            f'title="n = {summary.n_ok}; {summary.n_failed} failed">{summary.mean:.2f}{ends}</td>')


def _numbers(table: tables.Probed) -> str:
    """What moved the identity of each method, and what it is named."""
    columns = table.of_kind("towards", "truth", "away")
    heads = ["Method", "Is named", "shows", *(f"{p.title} ({p.kind})" for p in columns), "copied"]
    rows = []
    for line in table.lines:
        effects = line.effects
        copied = effects["other"].copied if "other" in effects else None
        cells = [line.base.shows, *(effects[p.name].moved if p.name in effects else None
                                    for p in columns), copied]
        rows.append(f'<tr><th scope="row">{escape(tables.titled(line))}</th>'
                    f'<td class="named">{escape(", ".join(line.named))}</td>'
                    f'{"".join(map(_shaded, cells))}</tr>')
    return ('<div class="scroll"><table><caption>Movement of the identity: mean and 95 % interval '
            'over people</caption><thead><tr>'
            + "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
            + f'</tr></thead><tbody>{"".join(rows)}</tbody></table></div>')


def _grid(caption: str, rows: list[list[str]]) -> str:
    """A grid of texts as a table."""
    def line(cells: list[str], mark: Callable[[str], str]) -> str:
        return "<tr>" + "".join(map(mark, cells)) + "</tr>"
    head = line(rows[0], lambda text: f'<th scope="col">{escape(text)}</th>')
    body = "".join(line(row, lambda text: f"<td>{escape(text)}</td>") for row in rows[1:])
    return (f'<div class="scroll"><table class="numbers"><caption>{caption}</caption>'
            f"<thead>{head}</thead><tbody>{body}</tbody></table></div>")


def probe_page(table: tables.Probed) -> str:
    """The whole page."""
    first: dict[str, int] = {}
    for i, sample in enumerate(table.setting.samples.samples):
        first.setdefault(sample.person, i)
    images = "".join(_of_person(table, i) for i in list(first.values())[:SHOWN])
    title = f"Probes: what decides the identity ({factor(table.setting.options.scales[0])})"
    notes = "".join(f"<li>{escape(note)}</li>" for note in tables.notes(table))
    rule = "".join(f"<li>{escape(text.removeprefix('- '))}</li>" for text in RULE.split("\n")[1:])
    return page(title, (
        f'<h1>{escape(title)}</h1><p class="lead">{escape(tables.lead(table))}</p>{_numbers(table)}'
        f"<h2>Images</h2>"
        f'<p class="notes">Each column changes one input; the rows below it are what the methods '
        f"make of it.</p>{images}<h2>Change of PSNR</h2>"
        + _grid("dB inside / outside the face", tables.psnr_grid(table))
        + f'<h2>How to read it</h2><ul class="notes">{notes}</ul>'
          f'<h2>The rule</h2><p class="notes">{escape(RULE.split(chr(10))[0])}</p>'
          f'<ul class="notes">{rule}</ul>'))


def make(options: Options, store: Store, out: Path | str, names: Sequence[str] = (),
         images: int = tables.IMAGES) -> list[Path] | int:
    """Compute, and write probe.md, .csv, .tex and .html; or how many records are with other
    shards.

    Args:
        names: of probes, none for all; images: of each person.
    """
    table = tables.compute(options, store, names, images)
    if isinstance(table, int):
        return table
    return write_files(out, {"probe.md": tables.markdown(table), "probe.csv": tables.tidy(table),
                             "probe.tex": tables.latex(table), "probe.html": probe_page(table)})
