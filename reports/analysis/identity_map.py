"""Where restorations stand among the people: t-SNE of the face embeddings that IDS compares."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

import numpy as np

from fsrbench.core import Sample
from fsrbench.engine.run import Outcome
from fsrbench.metrics import Metric, get_feature
from fsrbench.metrics.panel import unit
from fsrbench.reports.analysis.projections import project
from fsrbench.reports.pages.chart import style, svg
from fsrbench.reports.tables.table import Table
from fsrbench.text import factor

_MARKERS = "ovs^DP<>Xph"
# Most points of a panel: more than can be told apart, and what a browser still draws.
MOST = 4000


def mapped_samples(outcome: Outcome) -> list[Sample]:
    """Samples of the first people drawn, as many as fit on the map."""
    marks = 1 + max(Counter(cell.scale for cell in outcome.cells).values())
    of = Counter(s.person for s in outcome.samples.samples)
    fit = {person for person, count in zip(of, accumulate(of.values())) if count * marks <= MOST}
    return [s for s in outcome.samples.samples if s.person in fit]


def _points(outcome: Outcome, metric: Metric, scale: int) -> list[tuple[str, str, str]]:
    """(title, person, key of the embedding) of every ground truth and restoration at a scale."""
    measures = outcome.measures
    samples = {s.id: s for s in mapped_samples(outcome)}
    feature = get_feature(metric.feature)
    found = [("Ground truth", s.person, measures.feature_key(feature, s.gt.digest, s))
             for s in samples.values()]
    records = outcome.records
    restored = records[(records["metric"] == "restored") & (records["scale"] == scale)
                       & (records["status"] == "ok")]
    for cell in (cell for cell in outcome.cells if cell.scale == scale):
        rows = restored[restored["method"] == cell.method.name]
        found += [(cell.method.title, samples[sample].person,
                   measures.feature_key(feature, image, samples[sample]))
                  for sample, image in zip(rows["sample"], rows["image"]) if sample in samples]
    known = measures.vectors.of(key for _, _, key in found)
    # NaN stands for an image in which no face was found.
    return [point for point in found if np.isfinite(known.get(point[2], np.nan)).all()]


def identity_map(outcome: Outcome, table: Table) -> str:
    """SVG element: one panel a scale, one colour a person, one marker a method; empty without an
    identity metric.

    Ground truths and restorations of a scale are projected together. Close points look alike to the
    embedding network; distances between far clusters mean nothing in t-SNE.
    """
    import matplotlib
    from matplotlib.figure import Figure

    metric = next((c for c in table.columns if c.kind == "identity" and c.id not in
                   table.unavailable and get_feature(c.feature).aligned), None)
    panels = {scale: _points(outcome, metric, scale) for scale in table.blocks} if metric else {}
    if not panels or min(map(len, panels.values())) < 5:
        return ""
    people = sorted({person for points in panels.values() for _, person, _ in points})
    colours = matplotlib.colormaps["tab20"](np.arange(len(people)) % 20)
    with style(f"{table.name}-map"):
        figure = Figure(figsize=(5.6 * len(panels), 5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (scale, points) in zip(axes, panels.items()):
            known = outcome.measures.vectors.of(key for _, _, key in points)
            # Between vectors of length one Euclidean distance and the cosine order alike.
            vectors = unit(np.stack([known[key] for _, _, key in points]))
            xy = project("t-SNE", vectors, outcome.measures.store)
            titles = list(dict.fromkeys(title for title, _, _ in points))
            for title, marker in zip(titles, ["*", *_MARKERS * 4]):
                index = [i for i, point in enumerate(points) if point[0] == title]
                axis.scatter(*xy[index].T, marker=marker, s=90 if marker == "*" else 22,
                             label=title, linewidths=0.4,
                             edgecolors="black", c=[colours[people.index(points[i][1])]
                                                    for i in index])
            axis.set_title(factor(scale), fontsize=11)
            axis.set_xticks([])
            axis.set_yticks([])
        handles, labels = axes[0].get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False,
                               fontsize=9)
        for handle in legend.legend_handles:
            handle.set_facecolor("white")
        return svg(figure)
