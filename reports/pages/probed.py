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
from fsrbench.reports.analysis.probes import Effect
from fsrbench.reports.pages.html import page
from fsrbench.reports.tables import probe as tables
from fsrbench.reports.tables.render import NOTHING
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


def _cell(summary: Summary | None, shaded: bool, digits: str) -> str:
    """A value with its interval; a movement is shaded, the fuller the farther it went."""
    if summary is None or math.isnan(summary.mean):
        return f"<td>{NOTHING}</td>"
    ends = (f"<small>{summary.low:{digits}} – {summary.high:{digits}}</small>"
            if math.isfinite(summary.low) else "")
    share = 100 * min(1.0, max(0.0, summary.mean))
    style = f' class="moved" style="--moved:{share:.0f}%"' if shaded else ""
    return (f'<td{style} title="n = {summary.n_ok}; {summary.n_failed} failed">'
            f"{summary.mean:{digits}}{ends}</td>")


def _values(caption: str, heads: list[str], rows: list[list[Summary | None]],
            table: tables.Probed, shaded: bool = False, digits: str = "z.2f") -> str:
    """A table of values, a row a method; where they are shaded, with what the rule names it."""
    names = ["Method", *["Is named"] * shaded, *heads]
    body = ""
    for line, values in zip(table.lines, rows):
        named = f'<td class="named">{escape(", ".join(line.named))}</td>' * shaded
        cells = "".join(_cell(value, shaded, digits) for value in values)
        body += f'<tr><th scope="row">{escape(tables.titled(line))}</th>{named}{cells}</tr>'
    return (f'<div class="scroll"><table class="values"><caption>{caption}: mean and 95 % interval '
            "over people</caption><thead><tr>"
            + "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
            + f"</tr></thead><tbody>{body}</tbody></table></div>")


def _of_effects(table: tables.Probed, probes: list[Probe],
                value: Callable[[Effect], Summary]) -> list[list[Summary | None]]:
    return [[value(line.effects[p.name]) if p.name in line.effects else None for p in probes]
            for line in table.lines]


def _movement(table: tables.Probed) -> str:
    """What moved the identity of each method, and what it is named."""
    probes = table.of_kind("towards", "truth", "away")
    heads = ["shows", *(f"{p.title} ({p.kind})" for p in probes)]
    moved = _of_effects(table, probes, lambda e: e.moved)
    rows = [[line.base.shows, *own] for line, own in zip(table.lines, moved)]
    return _values("Movement of the identity", heads, rows, table, shaded=True)


def _pixels(table: tables.Probed) -> str:
    """What the probes cost, change and copy."""
    probes = table.of_kind("towards", "truth", "away")
    copying = [p for p in probes if any(p.name in line.effects and line.effects[p.name].copied.n_ok
                                        for line in table.lines)]
    asked = (("Change of PSNR inside the face, dB", probes, lambda e: e.inside, "+z.2f"),
             ("Change of PSNR outside the face, dB", probes, lambda e: e.outside, "+z.2f"),
             ("Change of the face, grey levels", probes, lambda e: e.changed, "z.1f"),
             ("Share of the altered reference that is copied", copying, lambda e: e.copied, "z.2f"))
    return "".join(_values(caption, [p.title for p in of], _of_effects(table, of, value), table,
                           digits=digits) for caption, of, value, digits in asked if of)


def probe_page(table: tables.Probed) -> str:
    """The whole page."""
    first: dict[str, int] = {}
    for i, sample in enumerate(table.setting.samples.samples):
        first.setdefault(sample.person, i)
    images = "".join(_of_person(table, i) for i in list(first.values())[:SHOWN])
    title = f"Probes: what decides the identity ({factor(table.setting.options.scales[0])})"
    above = (tables.lead(table), tables.READING)
    notes = "".join(f"<li>{escape(note)}</li>" for note in tables.notes(table) if note not in above)
    rule = "".join(f"<li>{escape(text.removeprefix('- '))}</li>" for text in RULE.split("\n")[1:])
    return page(title, (
        f"<h1>{escape(title)}</h1>"
        + "".join(f'<p class="lead">{escape(text.replace("`", ""))}</p>' for text in above)
        + f"{_movement(table)}"
        f"<h2>Images</h2>"
        f'<p class="notes">Each column changes one input; the rows below it are what the methods '
        f"make of it.</p>{images}<h2>What it costs, changes and copies</h2>{_pixels(table)}"
        f'<h2>The probes, and what else to know</h2><ul class="notes">{notes}</ul>'
          f'<h2>The rule</h2><p class="notes">{escape(RULE.split(chr(10))[0])}</p>'
          f'<ul class="notes">{rule}</ul>'))


def make(options: Options, store: Store, out: Path | str, names: Sequence[str] = (),
         images: int = tables.IMAGES, judges: Sequence[str] = ()) -> list[Path] | int:
    """Compute, and write probe.md, .csv, .tex and .html; or how many records are with other
    shards.

    Args:
        names, images, judges: as of `tables.compute`.
    """
    table = tables.compute(options, store, names, images, judges)
    if isinstance(table, int):
        return table
    return write_files(out, {"probe.md": tables.markdown(table), "probe.csv": tables.tidy(table),
                             "probe.tex": tables.latex(table), "probe.html": probe_page(table)})
