"""Figure 13: t-SNE and UMAP of z_id and z_s of five people with ten images each, fitted embeddings
marked (paper E.5)."""

from __future__ import annotations

from dataclasses import replace

from fsrbench.reports.analysis.embeddings import METHOD, gather
from fsrbench.reports.analysis.projections import places, selected
from fsrbench.reports.figures import style
from fsrbench.reports.figures.context import Context
from fsrbench.reports.figures.registry import Drawing, figure

# People whose fitted embedding is marked: those that are shown.
FITTED = 5


def _panel(axis, part: list[dict], title: str) -> None:
    """One projection: a colour and a marker for each person, a star for a fitted embedding."""
    for i, person in enumerate(dict.fromkeys(row["person"] for row in part)):
        for fitted in (False, True):
            xy = [(row["x"], row["y"]) for row in part if row["person"] == person and row["fitted"]
                  == fitted]
            if xy:
                axis.scatter(*zip(*xy), color=style.PALETTE[i], marker="*" if fitted
                             else style.MARKERS[i],
                             s=150 if fitted else 24, edgecolors="black" if fitted else "white",
                             linewidths=0.5, zorder=2 + fitted, label=None if fitted else person)
    axis.set(title=title, xticks=[], yticks=[])
    axis.margins(0.08)


@figure(13, "Projections of z_id and z_s")
def projected(context: Context) -> Drawing:
    """Four panels; each embedding is projected on its own, as z_s may be shorter than z_id (in the
    paper both have 512)."""
    from matplotlib.lines import Line2D

    e = gather(replace(context.options, methods=(METHOD,), scales=(8,), metrics=()), context.store,
               FITTED)
    rows = places(e, context.store)
    canvas = style.canvas(style.TWO_COLUMNS, 6.9)
    axes = canvas.subplots(2, 2)
    for line, kind in zip(axes, ("z_id", "z_s")):
        for axis, name in zip(line, dict.fromkeys(row["projection"] for row in rows)):
            _panel(axis, [r for r in rows if (r["embedding"], r["projection"]) == (kind, name)],
                   f"{name} of {kind}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    star = Line2D([], [], marker="*", color="none", markerfacecolor=style.PALE,
                  markeredgecolor="black", markersize=10)
    canvas.legend([*handles, star], [*labels, "fitted"], loc="outside upper center", ncols=6)
    chosen = selected(e)
    n, people = len(chosen), len(set(e.people[chosen]))
    style.foot(canvas, context.footline(n, people))
    return Drawing(canvas, (
        f"z_id has {e.z_id.shape[1]} values, by {e.networks[0]}; z_s {e.z_s.shape[1]}, by that of "
        f"{e.networks[1]}. "
        f"Stars: the {len(e.fitted)} embeddings fitted to people's fine-tune halves; what is "
        f"fitted is z_id alone (3.3). "
        "Projections start from principal components; distances between far clusters mean nothing, "
        "and scores of the "
        "embeddings themselves are in the analysis. " + context.protocol(n, people)), rows)
