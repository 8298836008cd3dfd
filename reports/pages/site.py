"""The report: one self-contained HTML page of everything that a run left behind, `invoke report`.

It works from a file, without network and without a build: overview, sortable tables, figures, an
explorer of every sample, failures, and for each number where it comes from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fsrbench.core import Method
from fsrbench.engine.keys import method_digest
from fsrbench.engine.provenance import run_of
from fsrbench.engine.run import Outcome
from fsrbench.metrics import Metric
from fsrbench.registry import family
from fsrbench.reports.pages.chart import chart
from fsrbench.reports.pages.html import counted
from fsrbench.reports.tables.render import NOTHING, header, number, paper_shown, shown
from fsrbench.reports.tables.table import Row, Table, Value
from fsrbench.weights.catalogue import file_digest, require

@dataclass(frozen=True)
class Section:
    """A part of the page: an anchor, a heading, and its HTML."""

    id: str
    title: str
    html: str


def _embedded(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _json(data: object) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")


def page(title: str, lead: str, sections: Sequence[Section], data: dict) -> str:
    """The document.

    Args:
        lead: what a reader must know before the first number.
        data: what the page's script reads: see `explorer.data` and `provenance`.
    """
    links = "".join(f'<li><a href="#{s.id}">{escape(s.title)}</a></li>' for s in sections)
    body = "".join(f'<section id="{s.id}" aria-labelledby="h-{s.id}">'
                   f'<h2 id="h-{s.id}">{escape(s.title)}</h2>{s.html}</section>'
                   for s in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_embedded('page.css')}{_embedded('site.css')}</style></head>\n"
        f'<body><a class="skip" href="#main">Skip to the content</a><header>'
        f'<h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(lead)}</p><nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'</header>'
        f'<main id="main" tabindex="-1">{body}</main>'
        f'<dialog id="provenance" aria-labelledby="provenance-title"><h2 id="provenance-title">'
        f'</h2><div></div>'
        f'<form method="dialog"><button>Close</button></form></dialog>'
        f'<script type="application/json" id="data">{_json(data)}</script>'
        f'<script>{_embedded("sort.js")}{_embedded("site.js")}</script>'
        "</body></html>\n")


# --- tables ---------------------------------------------------------------------------------------


def _cell(metric: Metric, row: Row, scale: int) -> str:
    """A value as a button that opens its provenance; sorted by its number, whatever it shows."""
    value: Value = row.values[metric.id]
    if value.summary is None:
        return '<td data-sort="">n/a</td>'
    if not row.n_ok or math.isnan(value.summary.mean):
        return f'<td data-sort="" title="{row.n_failed} failed">{NOTHING}</td>'
    s = value.summary
    spread = ("no interval" if math.isnan(s.low)
              else f"95 % interval {number(metric, s.low)} to {number(metric, s.high)}")
    hint = f"{spread}; {counted(value)}"
    return (f'<td class="{value.mark}" data-sort="{s.mean:.9g}">'
            f'<button class="value" title="{hint}" '
            f'data-cell="{escape(row.method)}|{scale}|{escape(metric.id)}" '
            f'aria-label="{shown(metric, s)}, {hint}. '
            f'Where it comes from">{shown(metric, s)}</button></td>')


def _paper_cell(metric: Metric, row: Row) -> str:
    value = row.values[metric.id]
    if value.paper is None:
        return ""
    return (f'<small class="published" title="{value.verdict}">paper '
            f'{paper_shown(metric, value)}</small>')


def sortable(table: Table, scale: int) -> str:
    """One scale's table; each column head sorts by it."""
    heads = ["Method", "Weights", "n", *map(header, table.columns)]
    out = [f'<div class="scroll"><table class="sortable"><caption>×{scale}: mean over test images. '
           'Hover or focus a value for its interval, press it for its origin.</caption><thead><tr>',
           *[f'<th scope="col" aria-sort="none"><button>{h}</button></th>' for h in heads],
           "</tr></thead><tbody>"]
    for row in table.blocks[scale]:
        cells = [_cell(c, row, scale).replace("</td>", f"{_paper_cell(c, row)}</td>")
                 for c in table.columns]
        failed = f" ({row.n_failed} failed)" if row.n_failed else ""
        out.append(f'<tr class="{"control" if row.control else ""}">'
                   f'<th scope="row" data-sort="{escape(row.title)}">'
                   f'{escape(row.title)}</th><td data-sort="{row.weights}">{row.weights}</td>'
                   f'<td data-sort="{row.n_ok}">{row.n_ok}{failed}</td>{"".join(cells)}</tr>')
    return "".join(out) + "</tbody></table></div>"


def table_section(table: Table) -> Section:
    """A table, its chart and its notes."""
    notes = "".join(f"<li>{escape(n).replace('**bold**', '<b>bold</b>')}</li>" for n in table.notes)
    blocks = "".join(f"<h3>×{scale}</h3>{sortable(table, scale)}" for scale in table.blocks)
    drawn = (f'<details><summary>The same as a chart</summary>'
             f'<div class="scroll chart">{chart(table)}</div></details>')
    return Section(table.name, table.title,
                   f'{blocks}{drawn}<h3>Notes</h3><ul class="notes">{notes}</ul>')


def failures_section(outcome: Outcome) -> Section:
    """Every restoration or metric that failed, with its cause."""
    records = outcome.records
    failed = records[records["status"] != "ok"].sort_values(["scale", "method", "metric", "sample"])
    lines = [f"<tr><td>×{r.scale}</td><td>{escape(family(r.method))}</td>"
             f"<td>{escape(r.sample)}</td><td>{escape(r.metric)}</td>"
             f'<td class="wide">{escape(r.status.removeprefix("failed: "))}</td></tr>'
             for r in failed.itertuples()]
    kept = [f"<li>{escape(line)}</li>" for line in outcome.samples.excluded.lines(10)]
    heads = "".join(f'<th scope="col" aria-sort="none"><button>{h}</button></th>' for h in
                    ("Scale", "Method", "Sample", "Step", "Cause"))
    table = "<p>Nothing failed.</p>" if not lines else (
        f'<div class="scroll tall"><table class="sortable prose"><caption>{len(lines)} of '
        f'{len(records)} records failed'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>")
    return Section("failures", "Failures",
                   table + (f"<h3>Images left out</h3><ul>{''.join(kept)}</ul>" if kept else ""))


# --- provenance -----------------------------------------------------------------------------------


def _origin(method: Method, outcome: Outcome) -> dict:
    digests = {name: file_digest(require(name)) for name in method.weight_files}
    return {"title": method.title, "weights": method.weights, "digest": method_digest(method),
            "files": digests,
            "licence": method.licence, "origin": method.origin, "settings": method.settings()[:400]}


_ORIGIN = ["scale", "method", "metric", "run", "degradation"]


def provenance(outcome: Outcome, *others: Outcome) -> dict:
    """What decides the values of each cell: code, weights, data, degradation, seed, and the runs
    that computed them.

    Args:
        others: of further tables of the same data.
    """
    import pandas as pd

    runs, records = {}, pd.concat([o.records[_ORIGIN] for o in (outcome, *others)])
    for name in sorted(set(records["run"])):
        known = run_of(outcome.measures.store.root, name)
        runs[name] = {key: known.get(key) for key in ("commit", "dirty", "python", "packages",
                                                      "cpu_capability", "threads", "device")}
    made = {f"{scale}|{method}|{metric}": sorted(set(rows["run"]))
            for (scale, method, metric), rows in records.groupby(["scale", "method", "metric"])}
    methods = {cell.method.name: cell.method for o in (*others, outcome) for cell in o.cells}
    return {"runs": runs, "made": made, "methods": {name: _origin(m, outcome)
                                                    for name, m in methods.items()},
            "shared": {"data set": outcome.samples.source.name,
                       "data set digest": outcome.samples.digest,
                       "degradation": str(records["degradation"].iloc[0]),
                       "profile": outcome.options.profile.name,
                       "seed": outcome.options.seed, "precision": outcome.options.precision,
                       "test images": len(outcome.samples.samples)}}


def provenance_section(found: dict) -> Section:
    """The same as a table, for readers and for print."""
    shared = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>"
                     for k, v in found["shared"].items())
    lines = []
    for name, entry in found["methods"].items():
        files = "<br>".join(f"{escape(f)} <code>{d[:16]}</code>"
                            for f, d in entry["files"].items()) or "none"
        lines.append(f'<tr><th scope="row">{escape(name)}</th><td>'
                     f'<code>{entry["digest"][:16]}</code></td><td>{files}</td>'
                     f'<td class="wide">{escape(entry["licence"])}</td></tr>')
    runs = "".join(f"<tr><td><code>{name[:12]}</code></td><td>"
                   f"<code>{str(run['commit'])[:12]}</code>"
                   f"{' and changes' if run['dirty'] else ''}</td>"
                   f"<td>{escape(str(run['device']))}, {run['threads']} threads, "
                   f"{escape(str(run['cpu_capability']))}</td></tr>" for name, run in found["runs"]
                   .items())
    return Section("origins", "Where the numbers come from", (
        f"<dl>{shared}</dl><div class='scroll'><table><caption>Methods: digest of code and "
        f"settings, weights</caption>"
        "<thead><tr><th scope='col'>Method</th><th scope='col'>Digest</th>"
        "<th scope='col'>Weights</th>"
        "<th scope='col'>Licence</th></tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table></div><div class='scroll'><table>"
        f"<caption>Runs</caption><thead><tr>"
        "<th scope='col'>Run</th><th scope='col'>Commit</th><th scope='col'>Machine</th></tr>"
        "</thead>"
        f"<tbody>{runs}</tbody></table></div>"))
