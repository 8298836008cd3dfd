"""Figure 14: the reference degrades step by step until the person is gone (paper F.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fsrbench.core import FaceImage, Sample
from fsrbench.datasets.degradations.severity import spoil
from fsrbench.engine.stats import summarise
from fsrbench.engine.store import Store
from fsrbench.imaging import image_digest
from fsrbench.reports.figures import style
from fsrbench.reports.figures.comparison import FT, NOREF, PT
from fsrbench.reports.figures.context import (
    IDS,
    Context,
    Results,
    as_sample,
    first_of_each,
    people_of,
)
from fsrbench.reports.figures.grid import Panel, Row, image_grid
from fsrbench.reports.figures.registry import Drawing, figure

SCALE = 16
SHOWN = 2
# Levels of the severity scale that are shown, of ten.
LEVELS = (2, 4, 6, 8, 10)


@dataclass(frozen=True)
class Step:
    """A step of the ladder: its name, and what it makes of an image (uint8, own size) under an
    id."""

    name: str
    apply: Callable[[np.ndarray, str], np.ndarray]


def ladder(levels: tuple[int, ...] = LEVELS) -> list[Step]:
    """Steps from mild to extreme: eq. 10 at rising severity."""
    return [Step(str(n), lambda image, name, n=n: spoil(image, n, name)) for n in levels]


def spoiled(face: FaceImage, step: Step, store: Store) -> FaceImage:
    """An image at a step of the ladder, with the landmarks of the clean one."""
    image = step.apply(face.image, face.id)
    store.put_image(image)
    return FaceImage(face.id, image_digest(image), image, face.landmarks)


def _bands(context: Context, made: list[tuple[str, list[Sample], Results]],
           methods: tuple[str, ...]) -> list[dict]:
    """Mean and 95 % interval over people of each method and metric at each step."""
    rows = []
    for name, samples, results in made:
        people = [s.person for s in samples]
        for method in methods:
            for metric in (IDS, "psnr"):
                s = summarise(results.values(method, SCALE, _id(results, metric)), people)
                rows.append({"step": name, "method": method, "metric": metric, "mean": s.mean,
                             "low": s.low, "high": s.high, "n": s.n_ok})
    return rows


def _id(results: Results, name: str) -> str:
    """The whole id of a metric of this run."""
    return next(m.id for m in results.outcome.options.metrics if name in (m.id, m.id.split(".")[0]))


def _curves(canvas, rows: list[dict], base: dict[str, tuple[float, float, float]], steps: list[str],
            top: float, axis_name: str) -> None:
    height = canvas.get_figheight()
    for k, (metric, label) in enumerate(((IDS, "IDS (lower is nearer)"),
                                         ("psnr", "PSNR, dB (higher is better)"))):
        axis = canvas.add_axes((0.085 + 0.5 * k, (style.FOOT + 0.4) / height, 0.4,
                                (top - 0.7) / height))
        for i, (method, title) in enumerate(((PT, "PT"), (FT, "FT"))):
            part = [r for r in rows if r["method"] == method and r["metric"] == metric]
            x, at = np.arange(len(part)), {name: np.array([r[name] for r in part])
                                           for name in ("mean", "low", "high")}
            axis.fill_between(x, at["low"], at["high"], color=style.PALETTE[i], alpha=0.18,
                              linewidth=0)
            axis.plot(x, at["mean"], color=style.PALETTE[i], marker=style.MARKERS[i],
                      linestyle=style.DASHES[i], label=title)
        axis.axhline(base[metric][0], color=style.PALETTE[6], linestyle=style.DASHES[2],
                     linewidth=1, label="w/o reference")
        axis.set_xticks(range(len(steps)), steps)
        axis.set_xlabel(axis_name)
        axis.set_ylabel(label)
        axis.grid(True, axis="y")
        if k == 0:
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)


def _rows(made: list[tuple[str, list[Sample], Results]], sample: Sample, rule: bool) -> list[Row]:
    """References above, PT and FT below, of one sample."""
    panels = {"reference": [], "PT": [], "FT": []}
    for _, samples, results in made:
        changed = next(s for s in samples if s.id == sample.id)
        d = results.distances([(changed.reference.digest,
                                as_sample(changed.reference, sample.person))],
                              [(sample.gt.digest, sample)])[0]
        panels["reference"].append(Panel(changed.reference.image, f"IDS {d:.3f}"))
        for name, method in (("PT", PT), ("FT", FT)):
            panels[name].append(Panel(results.image(method, SCALE, sample.id),
                                      f"IDS {results.value(method, SCALE, sample.id):.3f}",
                                      "failed"))
    heads = tuple("clean" if i == 0 else name for i, (name, _, _) in enumerate(made))
    return [Row(name, cells, rule=rule and name == "reference", titles=heads if name == "reference"
                else ())
            for name, cells in panels.items()]


def measure(context: Context, levels: tuple[int, ...] = LEVELS) -> list[tuple[str, list[Sample],
                                                                              Results]]:
    """Of each step: its name, the samples with the spoiled reference, and their restorations."""
    samples = context.samples.samples
    made = [("0", samples, context.run((PT, FT), (SCALE,), (IDS, "psnr")))]
    for step in ladder(levels):
        changed = [replace(s, reference=spoiled(s.reference, step, context.store)) for s in samples]
        made.append((step.name, changed, context.run((PT, FT), (SCALE,), (IDS, "psnr"),
                                                     samples=changed)))
    return made


@figure(14, "Progressively degraded reference")
def degraded(context: Context) -> Drawing:
    """References at rising severity, what PT and FT make of them, and the curves over all
    images."""
    made = measure(context)
    samples = context.samples.samples
    none = context.run((NOREF,), (SCALE,), (IDS, "psnr"))
    base = {m: (s.mean, s.low, s.high) for m in (IDS, "psnr")
            for s in [summarise(none.values(NOREF, SCALE, _id(none, m)),
                                [x.person for x in samples])]}
    rows = [row for i, s in enumerate(first_of_each(samples, SHOWN))
            for row in _rows(made, s, i > 0)]
    ids = [results.values(FT, SCALE) for _, _, results in made]
    for name, values in (("mild", ids[1]), ("severe", ids[-1])):
        context.keep(f"degraded-reference/{name}/ids", values - ids[0], [s.person for s in samples])
    height = 2.2
    canvas = image_grid(rows, size=context.options.profile.size, below=height)
    numbers = _bands(context, made, (PT, FT))
    numbers += [{"step": "none", "method": NOREF, "metric": m, "mean": b[0], "low": b[1],
                 "high": b[2], "n": len(samples)}
                for m, b in base.items()]
    _curves(canvas, numbers, base, [name for name, _, _ in made], height,
            "reference: eq. 10 at severity")
    people = people_of(samples)
    style.foot(canvas, context.footline(len(samples), len(people), (SCALE,)))
    return Drawing(canvas, (
        "The reference is degraded (eq. 10 at the severity above the column; 0 is clean) while LR "
        "image, noise and, in FT, "
        "the embedding fitted to the clean reference set stay. Landmarks of the reference are "
        "those of the clean image. Below each "
        "image its IDS to the ground truth; at the foot means over all images with a 95 % band "
        "over people; dotted: the LR "
        "image as its own reference. " + context.protocol(len(samples), len(people), (SCALE,))),
                   numbers, images=True)
