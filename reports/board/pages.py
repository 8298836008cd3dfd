"""The board's pages: tables of a group, a method, a sample, robustness, history."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from fsrbench.engine.keys import digest_of
from fsrbench.metrics import Metric
from fsrbench.reports.board.drawing import Axis, Point, lines, pareto, scatter
from fsrbench.reports.board.groups import Entry, Group, Refused
from fsrbench.reports.board.parts import (
    cell,
    document,
    facts,
    group_table,
    link,
    row_head,
    said_by,
    sort_key,
    table,
    value_cell,
)
from fsrbench.reports.tables.render import header, number
from fsrbench.text import factor

LEAD = ("Files stand in one table only where data, LR images, size, scale, seed and metrics are "
        "the same. Best (bold) and second best (underlined) are told from every row behind them, "
        "paired by people (each left out in turn, Student's t), a column's comparisons corrected "
        "by Holm to 5 %. A tier is what was followed where this page was made: reported (the file "
        "agrees with itself) or re-run (the method was run and measured again).")
# What a restoration costs: field, title, words of a value. References by how many are seen.
COSTS = (("seconds", "Seconds an image, alone"), ("memory_mb", "Peak memory of a GPU, MB"),
         ("nfe", "Network evaluations"), ("references", "References seen"))
_REFERENCES = {"none": 0, "one": 1, "all": 2}
ImageOf = Callable[[str], str]


def index_page(groups: Sequence[Group], refused: Sequence[Refused]) -> str:
    """All tables, and the files that are on none."""
    body = [_refused(refused)]
    for group in groups:
        body.append(f"<section><h2>{link(group.page, group.title)}</h2>{group_table(group)}"
                    f"</section>")
    if not groups:
        body.append("<p>No file holds.</p>")
    return document("Face super-resolution: results", "".join(body), LEAD)


def _refused(refused: Sequence[Refused]) -> str:
    if not refused:
        return ""
    lines_ = "".join(f"<li><b>{escape(r.path.name)}</b>: {escape(r.reasons[0])}"
                     f"{escape(f' (and {len(r.reasons) - 1} more)') if r.reasons[1:] else ''}</li>"
                     for r in refused)
    return (f'<section class="refused"><h2>Refused files: {len(refused)}</h2>'
            f"<ul>{lines_}</ul></section>")


# --- a group --------------------------------------------------------------------------------------


def group_page(group: Group) -> str:
    """A table with its charts, costs and samples."""
    notes = "".join(f"<li>{escape(m.described)}.</li>" for m in group.metrics)
    data, made = group.header["data"], group.header["degradation"]
    shared = facts({"Data": f"{data['name']} ({data['licence']}); {data['rule']}",
                    "Manifest": data["manifest_sha256"], "Protocol": group.header["protocol"],
                    "Degradation": f"{made['id']}, {made['summary']}",
                    "LR images": made["lr_sha256"][str(group.scale)],
                    "Seed": group.header["seed"]})
    body = (f"{group_table(group)}<h2>What is shared</h2>{shared}"
            f'<h2>Columns</h2><ul class="notes">{notes}</ul>{_costs(group)}{_gap(group)}'
            f"<h2>Samples</h2><ul class='names'>{_sample_links(group)}</ul>")
    return document(group.title, body, LEAD)


def _cost(entry: Entry, name: str) -> float:
    value = entry.header["cost"][name]
    value = _REFERENCES.get(value) if name == "references" else value
    return math.nan if value is None else float(value)


def _mean(group: Group, entry: Entry, metric: Metric) -> float:
    return group.cells[entry.id, metric.id].summary.mean


def _costs(group: Group) -> str:
    """What each row costs, and quality against it."""
    heads = ["Method", *(title for _, title in COSTS), "Weights, MB"]
    rows = []
    for e in group.entries:
        seen = [(_cost(e, name), e.header["cost"][name]) for name, _ in COSTS]
        cells = "".join(cell(_said(said), sort_key(value)) for value, said in seen)
        size = e.header["cost"]["weights_bytes"] / 1e6
        rows.append(f"<tr>{row_head(e)}{cells}{cell(f'{size:.1f}', size)}</tr>")
    charts = [chart for name, title in COSTS for metric in group.main_metrics()
              if (chart := _against_cost(group, name, title, metric))]
    return (f"<h2>Quality against cost</h2>{table('Cost of one restoration', heads, rows)}"
            f"<p class='notes'>Seconds and a GPU's memory are of the machine that each file names, "
            f"so they compare on one machine only. Filled marks are on the Pareto front: nothing "
            f"is both "
            f"cheaper and better. Rows that see the ground truth or failed on a sample are left "
            f"out.</p><div class='charts'>{''.join(charts)}</div>")


def _said(value: object) -> str:
    if value is None:
        return "not said"
    return value if isinstance(value, str) else f"{value:g}"


def _shown_rows(group: Group) -> list[Entry]:
    return [e for e in group.entries if group.unranked(e) in ("", "control")]


def _against_cost(group: Group, name: str, title: str, metric: Metric) -> str:
    found = [(e, _cost(e, name), _mean(group, e, metric)) for e in _shown_rows(group)]
    found = [f for f in found if math.isfinite(f[1]) and math.isfinite(f[2])]
    if len(found) < 2 or len({cost for _, cost, _ in found}) < 2:
        return ""
    costs, means = [c for _, c, _ in found], [v for *_, v in found]
    front = pareto(costs, [metric.direction * v for v in means])
    points = [Point(e.method["title"], c, v, on) for (e, c, v), on in zip(found, front)]
    said = title + (" (2: the whole set)" if name == "references" else "")
    return (f"<div><h3>{escape(f'{metric.title} against {title[0].lower()}{title[1:]}')}</h3>"
            + scatter(f"{metric.title} against {title}", Axis.of(said, costs, name != "references"),
                      Axis.of(header(metric), means), points) + "</div>")


def _gap(group: Group) -> str:
    """Identity gap against LPIPS, where both were measured."""
    gap, lpips = group.metric_of("gap"), group.metric_of("lpips")
    if not gap or not lpips:
        return ""
    found = [(e, _mean(group, e, lpips), _mean(group, e, gap)) for e in _shown_rows(group)]
    found = [f for f in found if math.isfinite(f[1]) and math.isfinite(f[2])]
    if len(found) < 2:
        return ""
    xs, ys = [x for _, x, _ in found], [y for *_, y in found]
    front = pareto(xs, [gap.direction * y for y in ys])
    points = [Point(e.method["title"], x, y, on) for (e, x, y), on in zip(found, front)]
    return "<h2>Identity gap against LPIPS</h2>" + scatter(
        "Identity gap against LPIPS", Axis.of(header(lpips), xs), Axis.of(header(gap), ys), points)


# --- a method -------------------------------------------------------------------------------------


def method_page(entry: Entry, groups: Sequence[Group]) -> str:
    """What a file says of its method, and its values."""
    h, m = entry.header, entry.method
    own = [g for g in groups if entry in g.entries]
    runs = [f"commit {(r['commit'] or 'unknown')[:12]}{' with changes' if r['dirty'] else ''}, "
            f"{r['device'] or 'device not said'}, {r['cpu_capability'] or ''} {r['machine'] or ''}"
            for r in h["runs"]]
    weights = [f"{w['name']} {w['sha256'][:16]} ({w['licence']})" for w in h["weights"]]
    told = {"Method": m["name"], "Result file": entry.record.path.name if entry.record.path
            else "", "Its id": entry.id, "Measured": h["measured"] or "not said",
            "By": said_by(entry), "Weights": m["weights"], "Files": "; ".join(weights) or "none",
            "Needs": ", ".join(m["needs"]) or "the LR image alone", "Licence": m["licence"],
            "Origin": m["origin"], "Precision": h["precision"], "Remark": m["remark"] or "none",
            "Code and settings": m["digest"], "Runs": "; ".join(dict.fromkeys(runs)) or "not said"}
    parts = [facts(told)]
    for group in own:
        parts.append(f"<h2>{link(group.page, group.title)}</h2>{_of_method(entry, group)}")
    return document(m["title"], "".join(parts))


def _of_method(entry: Entry, group: Group) -> str:
    heads = ["Metric", "Mean", "n", "Failed"]
    rows = []
    for metric in group.metrics:
        found = group.cells[entry.id, metric.id]
        mark = group.marks.get((entry.id, metric.id), "")
        rows.append(f'<tr><th scope="row">{escape(header(metric))}</th>'
                    f"{value_cell(metric, found, mark)}{cell(str(found.summary.n_ok))}"
                    f"{cell(str(found.summary.n_failed))}</tr>")
    return (table("Mean and 95 % interval over people", heads, rows, "numbers")
            + f"<details><summary>Every sample</summary>{_samples_of(entry, group)}</details>")


def _samples_of(entry: Entry, group: Group) -> str:
    metrics = [m for m in group.metrics if m.kind != "set"]
    values = [entry.values.of(group.scale, m.id) for m in metrics]
    restored, rows = entry.values.restored(group.scale), []
    for i, (name, person) in enumerate(zip(entry.values.samples, entry.values.people)):
        status = restored[name][0]
        cells = "".join(cell(number(m, v[i]), sort_key(v[i])) for m, v in zip(metrics, values))
        rows.append(f'<tr><th scope="row">{link(sample_file(group, name), name)}</th>'
                    f"{cell(person)}{cells}{cell(status, kind='by')}</tr>")
    return table("Every sample", ["Sample", "Person", *map(header, metrics), "Status"], rows)


# --- a sample -------------------------------------------------------------------------------------


def sample_file(group: Group, name: str) -> str:
    """The page of a sample of a table."""
    return f"sample-{digest_of(group.key, name)[:16]}.html"


def _sample_links(group: Group) -> str:
    return "".join(f"<li>{link(sample_file(group, name), name)}</li>"
                   for name in group.entries[0].values.samples)


def sample_pages(group: Group, image: ImageOf) -> dict[str, str]:
    """A page for each sample: all rows' values; images where the user gave them.

    Args:
        image: file of the image of a digest; empty where it is not there.
    """
    metrics = [m for m in group.metrics if m.kind != "set"]
    values = {(e.id, m.id): e.values.of(group.scale, m.id) for e in group.entries for m in metrics}
    restored = {e.id: e.values.restored(group.scale) for e in group.entries}
    truths = _truths(group)
    pages = {}
    for i, (name, person) in enumerate(zip(*_names(group))):
        rows, figures = [], [_figure(image(d), title) for title, d in truths[name]]
        for e in group.entries:
            status, digest = restored[e.id][name]
            cells = "".join(cell(number(m, v := values[e.id, m.id][i]), sort_key(v))
                            for m in metrics)
            rows.append(f"<tr>{row_head(e)}{cells}{cell(status, kind='by')}</tr>")
            figures.append(_figure(image(digest), e.method["title"]))
        shown = "".join(filter(None, figures))
        body = (f"<p>{link(group.page, group.title)}; person {escape(person)}</p>"
                + table("Values of this sample", ["Method", *map(header, metrics), "Status"], rows)
                + (f'<h2>Images</h2><div class="images">{shown}</div>' if shown else ""))
        pages[sample_file(group, name)] = document(f"{name} {factor(group.scale)}", body)
    return pages


def _names(group: Group) -> tuple[list[str], list[str]]:
    return group.entries[0].values.samples, group.entries[0].values.people


def _truths(group: Group) -> dict[str, list[tuple[str, str]]]:
    rows = group.entries[0].record.rows
    rows = rows[(rows["scale"] == group.scale) & (rows["metric"] == "restored")]
    return {r.sample: [("LR image", r.lr), ("Ground truth", r.truth)] for r in rows.itertuples()}


def _figure(file: str, title: str) -> str:
    if not file:
        return ""
    return (f'<figure><img src="{file}" alt="{escape(title)}" loading="lazy">'
            f"<figcaption>{escape(title)}</figcaption></figure>")


# --- robustness and history -----------------------------------------------------------------------


def _severity(group: Group) -> int | None:
    word = group.header["degradation"]["name"].removeprefix("severity-")
    return int(word) if word.isdecimal() else None


def robustness_page(groups: Sequence[Group]) -> str:
    """How values change over scales, and over the ten severities."""
    series: dict[tuple, list[Group]] = {}
    for g in groups:
        first, ids = g.entries[0], tuple(m.id for m in g.metrics)
        series.setdefault(("Scale", first.setting, g.header["degradation"]["id"], ids),
                          []).append(g)
        if _severity(g) is not None:
            series.setdefault(("Severity", first.setting, g.scale, ids), []).append(g)
    parts = [_series(kind, own) for (kind, *_), own in series.items() if len(own) > 1]
    lead = "The same data and metrics, at several factors or severities."
    return document("Robustness", "".join(parts) or "<p>No file stands at more than one scale or "
                    "severity.</p>", lead)


def _series(kind: str, groups: Sequence[Group]) -> str:
    at = {g.key: g.scale if kind == "Scale" else _severity(g) for g in groups}
    groups = sorted(groups, key=lambda g: at[g.key])
    last = groups[-1]
    shared = last.header["degradation"]["id"] if kind == "Scale" else factor(last.scale)
    name = f"{kind}: {last.header['data']['name']}, {shared}"
    out = [f"<h2>{escape(name)}</h2>"]
    for metric in last.main_metrics():
        found: dict[str, list[tuple[float, float]]] = {}
        for g in groups:
            for e in _shown_rows(g):
                if math.isfinite(value := _mean(g, e, metric)):
                    found.setdefault(e.method["title"], []).append((at[g.key], value))
        drawn = [(name, points) for name, points in found.items() if len(dict(points)) > 1]
        if not drawn:
            continue
        xs, ys = zip(*[p for _, points in drawn for p in points])
        heads = ["Method", *(f"{kind} {at[g.key]}" for g in groups)]
        rows = [f'<tr><th scope="row">{escape(name)}</th>'
                + "".join(cell(number(metric, v := dict(points).get(at[g.key], math.nan)),
                               sort_key(v)) for g in groups) + "</tr>"
                for name, points in drawn]
        out += [f"<h3>{escape(header(metric))}</h3>",
                lines(f"{metric.title} by {kind.lower()}", Axis.of(kind, xs),
                      Axis.of(header(metric), ys), drawn),
                table(f"{metric.title} by {kind.lower()}", heads, rows, "numbers")]
    return "".join(out)


def history_page(groups: Sequence[Group]) -> str:
    """All rows by the day on which they were measured, the last first."""
    parts = []
    for group in groups:
        metrics = group.main_metrics()
        rows = []
        for e in sorted(group.entries, key=lambda e: e.header["measured"] or "", reverse=True):
            commits = ", ".join(dict.fromkeys((r["commit"] or "unknown")[:12]
                                              for r in e.header["runs"]))
            cells = "".join(value_cell(m, group.cells[e.id, m.id], "") for m in metrics)
            rows.append(f"<tr>{row_head(e)}{cell(e.header['measured'] or 'not said')}"
                        f"{cell(commits)}{cells}</tr>")
        heads = ["Method", "Measured", "Commit", *map(header, metrics)]
        parts.append(f"<h2>{link(group.page, group.title)}</h2>"
                     + table("By date, the last first", heads, rows))
    return document("History", "".join(parts) or "<p>Nothing yet.</p>")
