"""Figures 4 and 12: all methods side by side with upsampled details (paper 4.2, F.2, F.3)."""

from __future__ import annotations

from fsrbench.core import Sample
from fsrbench.errors import FsrError
from fsrbench.reports.figures import style
from fsrbench.reports.figures.comparison import restored
from fsrbench.reports.figures.context import (
    IDS,
    Context,
    Results,
    at_ranks,
    first_of_each,
    people_of,
    truth,
)
from fsrbench.reports.figures.grid import Panel, Row, detail_boxes, image_grid
from fsrbench.reports.figures.registry import Drawing, figure

# The paper's columns in its order, and StableSR, of which only the official files exist.
METHODS = ("codeformer", "pgdiff", "dr2", "difface", "stablesr", "dpi", "asffnet", "dmdnet",
           "idfsr.pt", "idfsr.ft")
SHORT = {"IDFSR (PT)": "Ours (PT)", "IDFSR (FT)": "Ours (FT)",
         "IDFSR (w/o reference)": "Ours (w/o)"}


def _results(context: Context, scales: tuple[int, ...]) -> Results:
    return context.run(context.methods or METHODS, scales, lenient=not context.methods)


def _head(results: Results, method: str) -> str:
    """Title of a method's column, with the kind of its weights below where it has any."""
    title, weights = results.titles[method], results.weights[method]
    return SHORT.get(title, title) + f"\n{weights}" * (weights != "none")


def _row(context: Context, results: Results, sample: Sample, scale: int, label: str, titles: bool,
         rule: bool) -> Row:
    panels = [Panel(context.lr(sample, scale)), *[restored(results, m, scale, sample)
                                                  for m in results.titles],
              Panel(sample.reference.image), Panel(truth(results, sample), sample.id)]
    heads = ("LR", *[_head(results, m) for m in results.titles], "Reference", "Truth")
    return Row(label, panels, detail_boxes(sample.gt.landmarks.points,
                                           context.options.profile.size), rule,
               heads if titles else ())


def _left_out(results: Results) -> str:
    names = results.outcome.left_out
    return f" Left out, as their weights are not here: {', '.join(names)}." if names else ""


def _failed(results: Results, scales: tuple[int, ...]) -> str:
    """How many restorations of the whole set failed, by method and scale."""
    found = [f"{title} {failed} of {len(results.samples)} at ×{scale}"
             for m, title in results.titles.items() for scale in scales
             if (failed := sum(not results.digest(m, scale, s.id) for s in results.samples))]
    return f" Failed in the whole set: {'; '.join(found)}." if found else ""


def _numbers(results: Results, chosen: list[tuple[Sample, int]], data: str) -> list[dict]:
    return [{"data": data, "sample": s.id, "scale": scale, "method": m,
             "ids": results.value(m, scale, s.id)}
            for s, scale in chosen for m in results.titles]


@figure(4, "Qualitative comparison at ×8 and ×16")
def at_both_scales(context: Context) -> Drawing:
    """The first test image of each of the first two people at x8, then at x16."""
    scales = (8, 16)
    results = _results(context, scales)
    shown = [(s, scale) for scale in scales for s in first_of_each(results.samples, 2)]
    starts = {scale: next(i for i, (_, x) in enumerate(shown) if x == scale) for scale in scales}
    rows = [_row(context, results, s, scale, f"×{scale}", i == 0, i > 0 and i == starts[scale])
            for i, (s, scale) in enumerate(shown)]
    n, people = len(shown) // len(scales), len(people_of([s for s, _ in shown]))
    canvas = image_grid(rows, size=context.options.profile.size)
    style.foot(canvas, context.footline(n, people, scales)
               + " · IDS: 1 - cosine to the ground truth, lower is nearer")
    return Drawing(canvas, (
        "One row an image and scale, one column a method; below each an eye and the mouth, "
        "upsampled by repeating pixels, and "
        "its IDS. Shown is the first test image of each of the first people drawn, whatever it "
        "looks like. Methods with a "
        "reference were given the one shown, FT's embedding was fitted to the person's reference "
        "set; a grey place is a restoration "
        "that failed."
        + _left_out(results) + _failed(results, scales) + " "
        + context.protocol(n, people, scales)),
        _numbers(results, shown, context.options.data), images=True)


@figure(12, "Qualitative comparison on video and real-world images at ×16")
def in_the_wild(context: Context) -> Drawing:
    """Of each data set given, the samples at the 10th, 50th and 90th percentile of the last
    method's IDS."""
    scale, rows, numbers, said, images, people = 16, [], [], [], 0, 0
    for data in context.data or (context.options.data,):
        here = context.of(data)
        results = _results(here, (scale,))
        ranked = list(results.titles)[-1]
        chosen = at_ranks(results.samples, results.values(ranked, scale, IDS), (0.1, 0.5, 0.9))
        if not chosen:
            raise FsrError(f"figure 12 on {data}", f"{ranked} restored no image",
                           "choose other methods with --method")
        rows += [_row(here, results, s, scale, place, i == 0, bool(rows) and i == 0)
                 for i, (s, place) in enumerate(zip(chosen, ("10th pct.", "median", "90th pct.")))]
        numbers += _numbers(results, [(s, scale) for s in chosen], data)
        images, people = images + len(chosen), people + len(people_of(chosen))
        said.append(f"{here.samples.source.name}: by the IDS of "
                    f"{results.titles[ranked]}.{_left_out(results)}"
                    f"{_failed(results, (scale,))} "
                    + here.protocol(len(chosen), len(people_of(chosen)), (scale,)))
    columns = max(len(row.panels) for row in rows)
    canvas = image_grid(rows, size=context.options.profile.size, columns=columns)
    style.foot(canvas, context.footline(images, people, (scale,))
               + " · IDS: 1 - cosine to the ground truth, lower is nearer")
    wanted = {"celebv-text", "casia-webface"}
    other = "" if wanted <= {d.partition(":")[0] for d in context.data} else \
        "The paper shows CelebV-Text and CASIA-WebFace; give both with --data. "
    return Drawing(canvas, (
        "Rows at the 10th, 50th and 90th percentile of the last method's IDS over the whole set "
        "(low is near the ground truth), so "
        "the rows are not chosen by eye. " + other + " ".join(said)), numbers, images=True)
