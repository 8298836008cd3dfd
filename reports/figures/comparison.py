"""Figures 1 and 9: the pre-trained network against the fitted embedding, and without any reference
(paper 1, C)."""

from __future__ import annotations

import numpy as np

from fsrbench.core import Sample
from fsrbench.engine.stats import summarise
from fsrbench.reports.figures import style
from fsrbench.reports.figures.context import Context, Results, as_sample, at_ranks, people_of, truth
from fsrbench.reports.figures.grid import Panel, Row, detail_boxes, image_grid
from fsrbench.reports.figures.registry import Drawing, figure

PT, FT, NOREF = "idfsr.pt", "idfsr.ft", "idfsr.noref"
SCALE = 16


def restored(results: Results, method: str, scale: int, sample: Sample) -> Panel:
    """A restoration with its IDS below."""
    image = results.image(method, scale, sample.id)
    return Panel(image, f"IDS {results.value(method, scale, sample.id):.3f}" if image is not None
                 else "", "failed")


def reference_panels(results: Results, samples: list[Sample]) -> list[Panel]:
    """The reference of each sample with its IDS from the ground truth."""
    distances = results.distances([(s.reference.digest, as_sample(s.reference, s.person))
                                   for s in samples],
                                  [(s.gt.digest, s) for s in samples])
    return [Panel(s.reference.image, f"IDS {d:.3f}") for s, d in zip(samples, distances)]


def mean_line(results: Results, method: str, scale: int) -> str:
    """"IDFSR (FT) 0.117 [0.110, 0.123]" of all samples."""
    s = summarise(results.values(method, scale), [x.person for x in results.samples])
    return f"{results.titles[method]} {s.said('.3f')}"


def _rows(context: Context, results: Results, chosen: list[Sample], labels: list[str],
          methods: tuple[str, ...], scale: int) -> list[Row]:
    rows, titles = [], {"bicubic": "LR, bicubic", PT: "PT", FT: "FT", NOREF: "w/o reference"}
    heads = ("LR", "Bicubic", "Reference", *[titles[m] for m in methods], "Ground truth")
    for i, (sample, label, reference) in enumerate(zip(chosen, labels,
                                                       reference_panels(results, chosen))):
        panels = [Panel(context.lr(sample, scale)), restored(results, "bicubic", scale, sample),
                  reference,
                  *[restored(results, m, scale, sample) for m in methods],
                  Panel(truth(results, sample), sample.id)]
        rows.append(Row(label, panels, detail_boxes(sample.gt.landmarks.points,
                                                    context.options.profile.size),
                        titles=heads if i == 0 else ()))
    return rows


def _numbers(results: Results, methods: tuple[str, ...], scale: int) -> list[dict]:
    return [{"sample": s.id, "person": s.person, "scale": scale, "method": m,
             "ids": results.value(m, scale, s.id)}
            for s in results.samples for m in methods]


@figure(1, "Pre-training against fine-tuning")
def pt_against_ft(context: Context) -> Drawing:
    """The samples where the fitted embedding gains most, gains the median, and loses most in
    IDS."""
    results = context.run(("bicubic", PT, FT), (SCALE,))
    gain = results.values(PT, SCALE) - results.values(FT, SCALE)
    chosen = at_ranks(results.samples, -gain, (0, 0.5, 1))
    labels = ["largest gain", "median gain", "largest loss"][:len(chosen)]
    if gain[np.isfinite(gain)].min(initial=0) >= 0:
        labels[-1] = "smallest gain"
    size, n, people = context.options.profile.size, len(results.samples), people_of(results.samples)
    canvas = image_grid(_rows(context, results, chosen, labels, (PT, FT), SCALE), size=size)
    style.foot(canvas, context.footline(n, len(people), (SCALE,))
               + " · IDS: 1 - cosine to the ground truth, lower is nearer")
    better = int((gain > 0).sum())
    return Drawing(canvas, (
        "PT: z_id of the reference; FT: z_id fitted to the person's fine-tune half. Rows by the "
        "gain in IDS from PT to FT "
        "among all test images, so the rows are not chosen by eye: the largest, the median, the "
        "last. Below each image an "
        "eye and the mouth, and its IDS (distance of face embeddings from the ground truth, lower "
        "is nearer; dlib's network). "
        f"FT is nearer than PT in {better} of {int(np.isfinite(gain).sum())} images; means with 95 "
        f"% intervals over people: "
        f"{mean_line(results, PT, SCALE)}, {mean_line(results, FT, SCALE)}. "
        + context.protocol(n, len(people), (SCALE,))), _numbers(results, ("bicubic", PT, FT),
                                                                SCALE), images=True)


@figure(9, "Face super-resolution without reference images")
def without_reference(context: Context) -> Drawing:
    """The LR image as its own reference, beside PT with one; at the quartiles of its IDS."""
    results = context.run(("bicubic", NOREF, PT), (SCALE,))
    chosen = at_ranks(results.samples, results.values(NOREF, SCALE), (0.05, 0.5, 0.95))
    labels = ["5th percentile", "median", "95th percentile"][:len(chosen)]
    size, n, people = context.options.profile.size, len(results.samples), people_of(results.samples)
    canvas = image_grid(_rows(context, results, chosen, labels, (NOREF, PT), SCALE), size=size)
    style.foot(canvas, context.footline(n, len(people), (SCALE,))
               + " · IDS: 1 - cosine to the ground truth, lower is nearer")
    return Drawing(canvas, (
        "Without reference, style and identity are read from the LR image itself; PT, which has "
        "the reference shown, stands "
        "beside it. Rows at the 5th, 50th and 95th percentile of the IDS of the restoration "
        "without reference. Means with 95 % "
        f"intervals over people: {mean_line(results, NOREF, SCALE)}, "
        f"{mean_line(results, PT, SCALE)}. "
        + context.protocol(n, len(people), (SCALE,))), _numbers(results, ("bicubic", NOREF, PT),
                                                                SCALE), images=True)
