"""Figure 8: the ablation's metrics, normalised, over the raw table (paper 5.4)."""

from __future__ import annotations

import math
from dataclasses import replace

from fsrbench.metrics import family
from fsrbench.reports.figures import style
from fsrbench.reports.figures.context import Context, people_of
from fsrbench.reports.figures.registry import Drawing, figure
from fsrbench.reports.tables import ablation
from fsrbench.reports.tables.render import header, number
from fsrbench.reports.tables.table import Table

# IDV counts images below a threshold that IDS has already measured; it stays in the table of
# `invoke ablation`.
METRICS = tuple(name for name in ablation.METRICS if not name.startswith("idv"))


def _bars(axis, table: Table, scale: int) -> None:
    """A group of bars for each metric, one for each variant; a mark on each bar shows also where it
    is zero."""
    rows, metrics, values = table.blocks[scale], ablation.shown(table), ablation.normalised(table,
                                                                                            scale)
    step = 0.84 / len(rows)
    for i, row in enumerate(rows):
        x = [k + (i - (len(rows) - 1) / 2) * step for k in range(len(metrics))]
        heights = [values[m.id][row.method] for m in metrics]
        axis.bar(x, heights, step * 0.9, color=style.PALETTE[i % 7], hatch=style.HATCHES[i % 7],
                 edgecolor="white", linewidth=0.4, alpha=0.85)
        axis.plot(x, heights, style.MARKERS[i % 7], color=style.PALETTE[i % 7],
                  markeredgecolor="black", markeredgewidth=0.4,
                  markersize=4.5, label=row.title.replace("z_id", "$z_{id}$")
                  .replace("z_s", "$z_s$"), clip_on=False, zorder=3)
    axis.set_xticks(range(len(metrics)), [header(m) for m in metrics])
    axis.set_ylabel("normalised, 1 is best")
    axis.set_ylim(0, 1.08)
    axis.tick_params(axis="x", length=0)
    axis.grid(True, axis="y")


def _raw(axis, table: Table, scale: int) -> None:
    """The raw means with their intervals as text."""
    rows, metrics = table.blocks[scale], ablation.shown(table)
    cells = []
    for row in rows:
        line = [row.title.replace("z_id", "$z_{id}$").replace("z_s", "$z_s$")]
        for m in metrics:
            s = row.values[m.id].summary
            ends = f"\n[{number(m, s.low)}, {number(m, s.high)}]" if math.isfinite(s.low) else ""
            line.append(number(m, s.mean) + ends)
        cells.append(line)
    axis.set_axis_off()
    drawn = axis.table(cells, colLabels=["Variant", *[header(m) for m in metrics]],
                       bbox=(-0.07, 0, 1.07, 1),
                       colWidths=[1.9, *[1.25] * len(metrics)], cellLoc="center",
                       edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(5.8)
    for (_, column), cell in drawn.get_celld().items():
        cell.set_linewidth(0.4)
        if column == 0:
            cell.set_text_props(ha="left")


@figure(8, "Ablation of the components")
def components(context: Context) -> Drawing:
    """Normalised metrics of all variants whose weights are here, and the raw table."""
    scale = int(ablation.SCALES[0])
    options = replace(context.options, scales=(scale,), methods=ablation.METHODS, lenient=True,
                      metrics=tuple(dict.fromkeys(m for name in METRICS for m in family(name))))
    table, outcome = ablation.compute(options, context.store)
    rows = table.blocks[scale]
    canvas = style.canvas(style.TWO_COLUMNS, 2.1 + 0.27 * (len(rows) + 1))
    bars, raw = canvas.subplots(2, 1, height_ratios=(1.7, 0.27 * (len(rows) + 1)))
    _bars(bars, table, scale)
    _raw(raw, table, scale)
    canvas.legend(*bars.get_legend_handles_labels(), loc="outside upper center",
                  ncols=min(3, len(rows)))
    samples = outcome.samples.samples
    style.foot(canvas, context.footline(len(samples), len(people_of(samples)), (scale,))
               + " · [95 % interval over people]")
    values = ablation.normalised(table, scale)
    numbers = [{"method": row.method, "title": row.title, "metric": m.id,
                "mean": row.values[m.id].summary.mean,
                "low": row.values[m.id].summary.low, "high": row.values[m.id].summary.high,
                "normalised": values[m.id][row.method]} for row in rows
               for m in ablation.shown(table)]
    left_out = "".join(f" Without a row, as its weights are missing: {name}."
                       for name in outcome.left_out)
    return Drawing(canvas, (
        "Above: each metric brought to 0 for the worst and 1 for the best of the variants, so a "
        "bar says how they rank and not "
        "by how much; below: the raw means with 95 % intervals over people. " + table.notes[0]
        + left_out + " "
        + context.protocol(len(samples), len(people_of(samples)), (scale,))), numbers)
