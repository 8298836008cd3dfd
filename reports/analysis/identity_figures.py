"""Figures of identity: what it costs in fidelity, whom the errors are taken for, and how it falls
with the factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsrbench.engine.run import Outcome
from fsrbench.metrics import Metric, get_feature
from fsrbench.metrics.panel import to_people
from fsrbench.reports.figures import style
from fsrbench.reports.tables.table import Row, Table
from fsrbench.text import factor

_MARKERS = "os^DvPX<>ph*d"


def _looks(rows: Sequence[Row]) -> dict[str, dict]:
    """Colour and marker of each method, the same in all panels; controls are grey."""
    looks = {}
    for i, row in enumerate(row for row in rows if row.method != "ground-truth"):
        colour = style.GREY if row.control else style.PALETTE[i % len(style.PALETTE)]
        looks[row.method] = {"color": colour, "marker": _MARKERS[i % len(_MARKERS)]}
    return looks


def _reach(summary) -> list[list[float]] | None:
    """Error bar of an interval; None where there is none."""
    if not np.isfinite(summary.low):
        return None
    return [[summary.mean - summary.low], [summary.high - summary.mean]]


def _legend(canvas, axis) -> None:
    handles, labels = axis.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside right center")


def trade(table: Table, gap: Metric) -> str:
    """The gap against PSNR and LPIPS, a line of panels for each scale, as SVG."""
    others = [c for c in table.columns if c.id.startswith(("psnr", "lpips"))]
    with style.use("identity"):
        canvas = style.canvas(style.TWO_COLUMNS, 2.5 * len(table.blocks))
        axes = canvas.subplots(len(table.blocks), len(others), squeeze=False, sharey="row",
                               sharex="col")
        for line, (scale, rows) in zip(axes, table.blocks.items()):
            looks = _looks(rows)
            for axis, other in zip(line, others):
                for row in (row for row in rows if row.method in looks and row.n_ok):
                    x, y = row.values[other.id].summary, row.values[gap.id].summary
                    axis.errorbar(x.mean, y.mean, yerr=_reach(y), label=row.title, linewidth=0.6,
                                  linestyle="none", **looks[row.method])
                if (top := rows[0]).method == "ground-truth":
                    axis.axhline(top.values[gap.id].summary.mean, color=style.GREY, linewidth=0.8,
                                 linestyle="--")
                axis.axhline(0, color=style.PALE, linewidth=0.8)
                axis.set_xlabel(other.title)
            line[0].set_ylabel(f"{gap.title}, {factor(scale)}")
        _legend(canvas, axes[0][0])
        return style.svg(canvas)


def scales(table: Table, gaps: Sequence[Metric]) -> str:
    """The gap of each method over the factor, a panel for each judge, as SVG."""
    factors = sorted(table.blocks)
    with style.use("identity-scales"):
        canvas = style.canvas(style.TWO_COLUMNS, 2.8)
        axes = canvas.subplots(1, len(gaps), squeeze=False)[0]
        rows = {scale: {row.method: row for row in table.blocks[scale]} for scale in factors}
        looks = _looks(table.blocks[factors[0]])
        for axis, gap in zip(axes, gaps):
            for name, look in looks.items():
                means = [rows[x][name].values[gap.id].summary.mean for x in factors]
                axis.plot(factors, means, label=rows[factors[0]][name].title, linewidth=0.9, **look)
            axis.axhline(0, color=style.PALE, linewidth=0.8)
            axis.set_xscale("log", base=2)
            axis.set_xlim(factors[0] / 1.1, factors[-1] * 1.1)  # also where nothing was restored
            axis.set_xticks(factors, [factor(x) for x in factors])
            axis.set_title(gap.title)
        _legend(canvas, axes[0])
        return style.svg(canvas)


def cosines(outcome: Outcome, gap: Metric, method: str | None, scale: int) -> np.ndarray:
    """Mean cosine (P, P) of the faces of each person to each person's reference set, and how many
    faces are nearest to it (P, P), stacked (2, P, P); of the ground truths without a method."""
    samples, measures, feature = outcome.samples.samples, outcome.measures, get_feature(gap.feature)
    pairs = [(s, s.gt.digest) for s in samples]
    if method:
        r = outcome.records
        rows = r[(r["method"] == method) & (r["scale"] == scale) & (r["metric"] == "restored")
                 & (r["status"] == "ok")]
        images = dict(zip(rows["sample"], rows["image"]))
        pairs = [(s, images[s.id]) for s in samples if s.id in images]
    vectors = measures.embedded(feature, pairs)
    gallery = measures.gallery(feature, [s for s, _ in pairs])
    found = to_people(vectors, gallery)
    member = (np.arange(found.shape[1])[:, None] == gallery.own).astype(np.float64)
    nearest = (found == found.max(1, keepdims=True)).astype(np.float64)
    return np.stack([member @ found / np.maximum(member.sum(1), 1)[:, None], member @ nearest])


def confusion(outcome: Outcome, gap: Metric, method: str | None) -> str:
    """Heat map people x people of the ground truths and of a method at each scale at which it
    restored anything, as SVG."""
    r = outcome.records
    scales = set(r[(r["method"] == method) & (r["metric"] == "restored")
                   & (r["status"] == "ok")]["scale"])
    title = next((c.method.title for c in outcome.cells if c.method.name == method), "")
    panels = {"Ground truth": (None, 0), **{f"{title}, {factor(scale)}": (method, scale)
                                            for scale in outcome.options.scales if scale in scales}}
    names = list(outcome.measures.albums)
    with style.use("identity-map"):
        canvas = style.canvas(style.TWO_COLUMNS, style.TWO_COLUMNS / len(panels) + 0.5)
        for axis, (name, which) in zip(canvas.subplots(1, len(panels), squeeze=False)[0],
                                       panels.items()):
            found, nearest = cosines(outcome, gap, *which)
            centred = found - found.mean(0)
            reach = np.nanmax(np.abs(centred))
            axis.imshow(centred, cmap="RdBu_r", vmin=-reach, vmax=reach)
            if len(names) <= 20:
                for i, j in zip(*np.nonzero(nearest)):
                    dark = abs(centred[i, j]) > 0.6 * reach
                    axis.text(j, i, int(nearest[i, j]), ha="center", va="center", fontsize=5,
                              color="white" if dark else "black")
            axis.set_title(name)
            axis.set_xticks(range(len(names)) if len(names) <= 20 else [], names[:20]
                            if len(names) <= 20 else [], rotation=90)
            axis.set_yticks(range(len(names)) if len(names) <= 20 else [],
                            names if len(names) <= 20 else [])
            axis.set_xlabel("reference set")
        return style.svg(canvas)
