"""Figure 7: how many images the embedding is fitted to (paper 5.3).

The paper takes people with more than ten images, fits to 2 ... 10 of them and shows mean and
confidence interval over ten people of three normalised metrics, pixel-level, identity and
attributes; which measures each is the mean of, it does not say. Where a data set has fewer images,
two of each person's are kept for the test and the sizes end at what is left; which those are, the
caption says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fsrbench.core import FaceImage, Sample
from fsrbench.engine.copies import look, near_duplicates
from fsrbench.engine.stats import jackknife_mean
from fsrbench.errors import FsrError
from fsrbench.metrics import Metric
from fsrbench.reports.figures import style
from fsrbench.reports.figures.comparison import FT
from fsrbench.reports.figures.context import IDS, Context, Results, people_of
from fsrbench.reports.figures.registry import Drawing, figure
from fsrbench.rng import numpy_rng

SCALE = 16
PEOPLE = 10
LEAST, MOST = 2, 10
HELD_OUT = 2
# Curve -> metrics whose normalised values it is the mean of, by family or id.
CURVES = {"Pixels (PSNR, SSIM, LPIPS)": ("psnr", "ssim", "lpips"),
          "Attributes": ("gender", "emotion", "race", "age"), "Identity (IDS)": (IDS,)}


@dataclass(frozen=True)
class Pool:
    """A person's images in the order in which albums grow, and the samples that are kept for the
    test."""

    person: str
    order: tuple[FaceImage, ...]
    test: tuple[Sample, ...]


def pools(samples: list[Sample], seed: int) -> list[Pool]:
    """Of each person: the last `HELD_OUT` test images stay for the test; the others, in an order
    drawn by their names, may be fitted to, unless they are near duplicates of one that stays."""
    made = []
    for person in people_of(samples):
        own = [s for s in samples if s.person == person]
        test = own[-HELD_OUT:]
        left = [*own[0].album, *[s.gt for s in own[:-HELD_OUT]]]
        close = near_duplicates([look(p.image) for p in left],
                                [look(s.gt.image) for s in test]).any(1)
        left = sorted((p for p, copied in zip(left, close) if not copied), key=lambda p: p.id)
        order = numpy_rng("album", seed, person).permutation(len(left))
        made.append(Pool(person, tuple(left[i] for i in order), tuple(test)))
    return made


def sizes_of(made: list[Pool]) -> tuple[list[Pool], list[int]]:
    """The people and album sizes of the curve: the first people who have the most images that
    `PEOPLE` of them share.

    Raises:
        FsrError: nobody has enough images.
    """
    enough = sorted((min(MOST, len(p.order)) for p in made), reverse=True)
    most = enough[min(PEOPLE, len(enough)) - 1] if enough else 0
    if most <= LEAST:
        raise FsrError("figure 7",
                       f"people have {most} images to fit to beside {HELD_OUT} for the test, too "
                       f"few for a curve",
                       "give a data set with more images of each person")
    return [p for p in made if len(p.order) >= most][:PEOPLE], list(range(LEAST, most + 1))


def conditions(chosen: list[Pool], size: int) -> list[Sample]:
    """The test samples with the first so many images as album; the reference is the first image at
    every size, so that only the embedding changes."""
    return [replace(s, album=p.order[:size], reference=p.order[0]) for p in chosen for s in p.test]


def person_means(results: Results, metric: str) -> np.ndarray:
    """Mean of a metric over each person's test images, (P,), in drawing order."""
    values, people = results.values(FT, SCALE, metric), np.array([s.person
                                                                  for s in results.samples])
    return np.array([values[people == person].mean() for person in people_of(results.samples)])


def normalise(values: np.ndarray, direction: int) -> np.ndarray:
    """Values (sizes, P) brought to 0 ... 1 by the worst and the best of all of them, 1 the best;
    0.5 where all are equal."""
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    return scaled if direction > 0 else 1 - scaled


def band(values: np.ndarray, people: list[str]) -> np.ndarray:
    """Mean and 95 % interval over people of values (sizes, P): (sizes, 3) as mean, low, high."""
    found = jackknife_mean(values.T, people)
    return np.stack([found.whole, *found.interval()], 1)


def measure(context: Context) -> tuple[list[Pool], list[int], dict[str, tuple[object, np.ndarray]]]:
    """People, sizes, and by metric id the metric and its person means (sizes, P)."""
    chosen, sizes = sizes_of(pools(context.samples.samples, context.options.seed))
    names = tuple(name for group in CURVES.values() for name in group)
    made = [context.run((FT,), (SCALE,), names, samples=conditions(chosen, size)) for size in sizes]
    here = [m for m in made[0].outcome.options.metrics if m.id not in made[0].outcome.unavailable]
    own = {family_of(m) for m in here if not m.stand_in}
    metrics = {m.id: m for m in here if not m.stand_in or family_of(m) not in own}
    return chosen, sizes, {name: (m, np.stack([person_means(r, name) for r in made]))
                           for name, m in metrics.items()}


def family_of(metric: Metric) -> str:
    """"gender" of gender.agree@dlib."""
    return metric.id.split(".")[0]


def curves(found: dict[str, tuple[object, np.ndarray]]) -> dict[str, np.ndarray]:
    """Normalised values (sizes, P) of each curve: the mean of those of its metrics."""
    scaled = {name: normalise(values, metric.direction) for name, (metric, values) in found.items()}
    groups = {title: [v for name, v in scaled.items() if {name, name.split(".")[0]} & set(group)]
              for title, group in CURVES.items()}
    return {title: np.mean(values, axis=0) for title, values in groups.items() if values}


def keep(context: Context, sizes: list[int], ids: np.ndarray, people: list[str]) -> None:
    """Keep IDS (sizes, P) by album size, and its change over the steps that the paper speaks of."""
    of = dict(zip(sizes, ids))
    for size, values in of.items():
        context.keep(f"references/{size}/ids", values, people)
    for a, b in ((2, 5), (5, 10)):
        if a in of and b in of:
            context.keep(f"references/{a}-{b}/ids", of[b] - of[a], people)


@figure(7, "Number of images that the embedding is fitted to")
def album_size(context: Context) -> Drawing:
    """Normalised metrics by album size: mean and band over people; and the change from the smallest
    album."""
    chosen, sizes, found = measure(context)
    people = [p.person for p in chosen]
    keep(context, sizes, found[IDS][1], people)
    attributes = [name for name, (m, _) in found.items() if family_of(m) in CURVES["Attributes"]]
    drawn = {title: (band(v, people), band(v - v[:1], people))
             for title, v in curves(found).items()}
    canvas = style.canvas(style.TWO_COLUMNS, 2.5)
    axes = canvas.subplots(1, 2)
    for i, (title, pair) in enumerate(drawn.items()):
        for axis, at in zip(axes, pair):
            axis.fill_between(sizes, at[:, 1], at[:, 2], color=style.PALETTE[i], alpha=0.15,
                              linewidth=0)
            axis.plot(sizes, at[:, 0], color=style.PALETTE[i], marker=style.MARKERS[i],
                      linestyle=style.DASHES[i], label=title)
    for axis, label in zip(axes, ("normalised, 1 is best", f"change from {sizes[0]} images")):
        axis.set(xlabel="images fitted to", ylabel=label, xticks=sizes)
        axis.grid(True, axis="y")
    axes[1].axhline(0, color=style.GREY, linewidth=0.6)
    canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    n = len(chosen) * HELD_OUT
    style.foot(canvas, context.footline(n, len(people), (SCALE,)) + " · band: 95 % over people")
    rows = [{"metric": name, "size": size, "person": person, "mean": values[i, j]}
            for name, (_, values) in found.items()
            for i, size in enumerate(sizes) for j, person in enumerate(people)]
    rows += [{"metric": title, "size": size, "person": "all", "mean": at[i, 0], "low": at[i, 1],
              "high": at[i, 2]}
             for title, (at, _) in drawn.items() for i, size in enumerate(sizes)]
    short = ("" if sizes[-1] == MOST and len(people) == PEOPLE else
             f"The paper shows {LEAST} to {MOST} images of {PEOPLE} people; these data allow "
             f"{sizes[-1]} of {len(people)}. ")
    return Drawing(canvas, (
        "Left: mean over people of metrics normalised so that 0 is the worst and 1 the best of all "
        "people and sizes, with a 95 "
        "% band over people, which is wide as people differ. Right: the change of the same from "
        "the smallest album, "
        "paired by person. Albums grow by one image at a time; reference, LR image and noise stay. "
        f"{HELD_OUT} images of each person are for the test, all others may be fitted to. "
        + short +
        f"Attributes: {', '.join(attributes) if attributes else 'no network for them is here'}. "
        + context.protocol(n, len(people), (SCALE,))
        .replace("; half of each person's images are for reference and fitting, "
                                                             "half are for the test", "")), rows)
