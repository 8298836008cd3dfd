"""Figure 5: an embedding fitted to person A in restorations of person B (paper 5.1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fsrbench.core import Sample
from fsrbench.engine.stats import Summary, summarise
from fsrbench.errors import FsrError
from fsrbench.reports.figures import style
from fsrbench.reports.figures.comparison import FT
from fsrbench.reports.figures.context import Context, Results, people_of, truth
from fsrbench.reports.figures.grid import Panel, Row, image_grid
from fsrbench.reports.figures.registry import Drawing, figure

SCALE = 16
SHOWN = 3


def swapped(samples: list[Sample]) -> tuple[list[Sample], dict[str, str]]:
    """Samples whose LR image, ground truth and reference are those of B, but whose person and
    reference set are those of A, the person drawn next; and A by B.

    A method that fits a person thus uses A's fit.

    Raises:
        FsrError: there is one person only.
    """
    people = people_of(samples)
    if len(people) < 2:
        raise FsrError("figure 5", "needs two people at least", "give more with --people")
    album = {s.person: s.album for s in samples}
    other = dict(zip(people, people[1:] + people[:1]))
    return [replace(s, person=other[s.person], album=album[other[s.person]])
            for s in samples], other


def distance_to(results: Results, names: list[str], samples: list[Sample],
                targets: list[list[Sample]]) -> np.ndarray:
    """Mean IDS of each image (by digest, cut by its sample's landmarks) to test images of a person;
    NaN where it failed."""
    out = np.full(len(names), np.nan)
    for i, (name, sample, images) in enumerate(zip(names, samples, targets)):
        if name:
            out[i] = results.distances([(name, sample)] * len(images),
                                       [(p.gt.digest, p) for p in images]).mean()
    return out


def measure(context: Context) -> tuple[Results, Results, dict[str, str], dict[str, np.ndarray]]:
    """Restorations with B's own embedding and with A's, A by B, and per sample the IDS of each to A
    and to B.

    To A: the mean over A's test images. To B: from the ground truth of the sample, as everywhere.
    """
    own = context.run((FT,), (SCALE,))
    crossed, other = swapped(own.samples)
    cross = context.run((FT,), (SCALE,), samples=crossed)
    of = {p: [s for s in own.samples if s.person == p] for p in people_of(own.samples)}
    targets = [of[other[s.person]] for s in own.samples]
    found = {}
    for name, results in (("own", own), ("cross", cross)):
        digests = [results.digest(FT, SCALE, s.id) for s in own.samples]
        found[f"{name}_to_a"] = distance_to(results, digests, own.samples, targets)
        found[f"{name}_to_b"] = results.values(FT, SCALE)
    return own, cross, other, found


def change(own: np.ndarray, cross: np.ndarray, people: list[str]) -> Summary:
    """Mean of cross - own with its paired 95 % interval over people."""
    return summarise(cross - own, people)


def _scatter(canvas, found: dict[str, np.ndarray], top: float) -> None:
    height = canvas.get_figheight()
    axis = canvas.add_axes((0.09, (style.FOOT + 0.4) / height, 0.6, (top - 0.55) / height))
    for a, b, c, d in zip(found["own_to_a"], found["own_to_b"], found["cross_to_a"],
                          found["cross_to_b"]):
        axis.plot([a, c], [b, d], color=style.PALE, linewidth=0.7, zorder=1)
    for name, label, i in (("own", "embedding of B (own)", 0), ("cross", "embedding of A", 1)):
        axis.plot(found[f"{name}_to_a"], found[f"{name}_to_b"], style.MARKERS[i],
                  color=style.PALETTE[i], markersize=3.5,
                  markeredgecolor="white", markeredgewidth=0.4, label=label)
    axis.set_xlabel("IDS to A (lower is nearer)")
    axis.set_ylabel("IDS to B")
    axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1))


@figure(5, "Cross-identity transfer of a fitted embedding")
def transfer(context: Context) -> Drawing:
    """LR image and reference of B, restored with B's and with A's embedding; IDS to A and B below
    each."""
    own, cross, other, found = measure(context)
    samples, people = own.samples, [s.person for s in own.samples]
    place = {s.id: i for i, s in enumerate(samples)}
    first = {p: next(s for s in samples if s.person == p) for p in people_of(samples)}
    rows = []
    for sample in [first[p] for p in list(first)[:SHOWN]]:
        i = place[sample.id]
        texts = [f"to A {found[f'{n}_to_a'][i]:.3f}\nto B {found[f'{n}_to_b'][i]:.3f}"
                 for n in ("own", "cross")]
        shown = [results.image(FT, SCALE, sample.id) for results in (own, cross)]
        a = first[other[sample.person]]
        rows.append(Row("", [
            Panel(context.lr(sample, SCALE)), Panel(sample.reference.image),
            Panel(shown[0], texts[0], "failed"),
            Panel(shown[1], texts[1], "failed"), Panel(truth(own, sample), f"B: {sample.person}"),
            Panel(truth(own, a), f"A: {a.person}")],
            titles=("LR of B", "Reference of B", "Embedding of B", "Embedding of A",
                    "Ground truth (B)", "Person A")
            if not rows else ()))
    height = 2.0
    canvas = image_grid(rows, size=context.options.profile.size, columns=6, below=height)
    _scatter(canvas, found, height)
    style.foot(canvas, context.footline(len(samples), len(first), (SCALE,)))
    numbers = [{"sample": s.id, "b": s.person, "a": other[s.person],
                **{k: v[i] for k, v in found.items()}}
               for i, s in enumerate(samples)]
    context.keep("crossid/towards-a/ids", found["own_to_a"] - found["cross_to_a"], people)
    shift = {k: change(found[f"own_to_{k}"], found[f"cross_to_{k}"], people) for k in "ab"}
    said = "; ".join(f"IDS to {k.upper()} changes by {s.said('+.4f')}" for k, s in shift.items())
    return Drawing(canvas, (
        "B's LR image and reference are restored with the embedding fitted to B and with the one "
        "fitted to A, the person "
        "drawn next. Below each restoration its IDS to A (mean over A's test images) and to B (the "
        "ground truth); below the rows "
        "all test images, joined in pairs. If identity is in the embedding, A's embedding moves "
        "the face towards A and away "
        f"from B. Over all pairs, with 95 % intervals over people: {said}. "
        + context.protocol(len(samples), len(first), (SCALE,))), numbers, images=True)
