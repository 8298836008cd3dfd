"""A table as a figure: a panel for each metric, a mark with its interval for each method.

The paper's value stands beside it where the two may be compared; elsewhere it would only stretch
the axis.
"""

from __future__ import annotations

import io
import math
import warnings

from fsrbench.metrics import Metric
from fsrbench.reports.tables.render import DRAWN, header, labelled
from fsrbench.reports.tables.table import Row, Table
from fsrbench.text import factor

_COLOURS = {"control": "#8a8a94", "method": "#0b6bcb", "paper": "#c2571a"}


def _panel(axis, metric: Metric, rows: list[Row], with_names: bool) -> None:
    """One metric at one scale; the first row stands on top."""
    percent = 100 if metric.percent else 1
    for kind in ("control", "method"):
        of_kind = [(y, row.values[metric.id].summary) for y, row in enumerate(rows)
                   if row.control == (kind == "control")]
        found = [(y, s) for y, s in of_kind if s is not None and math.isfinite(s.mean)]
        lines = [(y, s.low * percent, s.high * percent) for y, s in found if math.isfinite(s.low)]
        if lines:
            axis.hlines(*zip(*lines), color=_COLOURS[kind], linewidth=2, alpha=0.45)
        axis.plot([s.mean * percent for _, s in found], [y for y, _ in found], "o",
                  color=_COLOURS[kind], markersize=6)
    values = [(row.values[metric.id], y + 0.28) for y, row in enumerate(rows)]
    if papers := [(value.paper, y) for value, y in values if value.verdict in DRAWN]:
        axis.plot(*zip(*papers), "d", color=_COLOURS["paper"], markersize=4, fillstyle="none")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    names = [labelled(row.title, row.weights) for row in rows] if with_names else []
    axis.set_yticks(range(len(names)), names)
    axis.set_title(header(metric) + (" (%)" if metric.percent else ""), fontsize=10)
    axis.grid(axis="x", linewidth=0.4)
    axis.tick_params(labelsize=9, length=0, labelbottom=True)
    axis.locator_params(axis="x", nbins=4)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def style(name: str):
    """Context in which figures are drawn: text stays text, and element ids depend on `name`
    alone."""
    import matplotlib

    return matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none",
                                  "font.family": "sans-serif"})


def svg(figure) -> str:
    """A matplotlib figure as an SVG element on white, without date or other traces of when it was
    drawn."""
    text = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text: a letter that is not in matplotlib's font may well be in the reader's.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(text, format="svg", facecolor="white",
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()[text.getvalue().index("<svg"):]


def _nothing(table: Table) -> str:
    """What stands in place of the chart of a table without any value."""
    from matplotlib.figure import Figure

    with style(table.name):
        figure = Figure(figsize=(4, 0.5))
        figure.text(0.5, 0.5, "Nothing could be measured: see the notes.", fontsize=9, ha="center")
        return svg(figure)


def chart(table: Table) -> str:
    """The table as an SVG element, the same bytes for the same table; metrics without any value
    have no panel."""
    from matplotlib.figure import Figure

    columns = [c for c in table.columns if c.id not in table.unavailable]
    scales = list(table.blocks)
    if not columns:
        return _nothing(table)
    height = sum(len(rows) * 0.36 + 0.9 for rows in table.blocks.values())
    with style(table.name):
        figure = Figure(figsize=(1.9 * len(columns) + 2.4, height + 0.3), layout="constrained")
        axes = figure.subplots(len(scales), len(columns), squeeze=False,
                               sharex="col",
                               height_ratios=[len(table.blocks[s]) for s in scales])
        for line, scale in zip(axes, scales):
            for i, (axis, metric) in enumerate(zip(line, columns)):
                _panel(axis, metric, table.blocks[scale], i == 0)
        for axis in (a for a, metric in zip(axes[0], columns) if metric.percent):
            low, high = axis.get_xlim()
            # no share is below 0, and zeros alone are not an axis
            axis.set_xlim(max(low, -3), min(max(high, 10), 103))
        for line, scale in zip(axes, scales):
            line[0].set_ylabel(factor(scale), rotation=0, fontsize=13, fontweight="bold",
                               labelpad=14)
        drawn = [row.values[c.id] for rows in table.blocks.values() for row in rows
                 for c in columns]
        line = "; line: 95 % interval over people" if any(v.summary and math.isfinite(v.summary.low)
                                                          for v in drawn) else ""
        caption = f"● mean{line}; grey: controls"
        if any(v.verdict in DRAWN for v in drawn):
            caption += "; ◇ the paper's value"
        figure.supxlabel(caption, fontsize=9, x=0.01, ha="left")
        return svg(figure)
