"""Figure 6: the reference edits style: one LR image, one fitted embedding, several references
(paper 5.2)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from fsrbench.core import FaceImage, Sample
from fsrbench.errors import FsrError
from fsrbench.faces.align import five_points, similarity, transform
from fsrbench.faces.lr import lr_landmarks
from fsrbench.faces.warp import face_mask
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.reports.figures import style
from fsrbench.reports.figures.comparison import FT
from fsrbench.reports.figures.context import (
    Context,
    Results,
    as_sample,
    first_of_each,
    people_of,
    truth,
)
from fsrbench.reports.figures.grid import Panel, Row, image_grid
from fsrbench.reports.figures.registry import Drawing, figure

SCALE = 16
SHOWN = 2


def motion(a: FaceImage, b: FaceImage) -> float:
    """How differently two faces are moved: mean distance of their landmarks behind a similarity of
    eyes, nose and mouth."""
    moved = transform(similarity(five_points(a.landmarks.points), five_points(b.landmarks.points)),
                      a.landmarks.points)
    return float(np.linalg.norm(moved - b.landmarks.points, axis=1).mean())


def references(sample: Sample, others: list[Sample]) -> list[tuple[str, FaceImage]]:
    """The references to try: the two images of the reference set that differ most in motion, then
    one of each of two other people, the first that is not the sample's own."""
    pairs = list(combinations(sample.album, 2))
    own = max(pairs, key=lambda pair: motion(*pair)) if pairs else sample.album[:1]
    picked = {s.person: s.reference for s in others if s.person != sample.person}
    return [(f"own {k + 1}", p) for k, p in enumerate(own)] + [(f"of {name}", p) for name,
                                                               p in list(picked.items())[:2]]


def _mask(context: Context, sample: Sample) -> np.ndarray:
    """The region that is restored from embeddings alone, of the landmarks in the LR image; bool (S,
    S)."""
    size = context.options.profile.size
    enlarged = to_uint8(np.clip(imresize(to_float(context.lr(sample, SCALE)[None]), size, size), 0,
                                1))[0]
    return face_mask(lr_landmarks(enlarged, context.options.profile.frame).points, size)


def spread(images: list[np.ndarray], mask: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference in grey levels between images of one LR image, inside and outside
    the face's mask; NaN of fewer than two."""
    if len(images) < 2:
        return float("nan"), float("nan")
    differences = [np.abs(a.astype(float) - b.astype(float)).mean(-1)
                   for a, b in combinations(images, 2)]
    mean = np.mean(differences, axis=0)
    return float(mean[mask].mean()), float(mean[~mask].mean())


def conditions(samples: list[Sample], everyone: list[Sample]) -> list[list[tuple[str, Sample]]]:
    """For each place among the references: what it is called and the sample with that reference,
    for every sample."""
    tried = [references(s, everyone) for s in samples]
    count = min(map(len, tried))
    return [[(of[k][0], replace(s, reference=of[k][1])) for s, of in zip(samples, tried)]
            for k in range(count)]


def _rows(context: Context, made: list[tuple[list[tuple[str, Sample]], Results]], k: int,
          sample: Sample) -> list[Row]:
    """References above, restorations below, of one sample."""
    above, below, heads = [Panel(truth(made[0][1], sample),
                                 sample.id)], [Panel(context.lr(sample, SCALE), "LR")], ["Truth"]
    for condition, results in made:
        name, changed = condition[k]
        image = results.image(FT, SCALE, sample.id)
        d = results.distances([(image_digest, sample)
                               for image_digest in [results.digest(FT, SCALE, sample.id)]] * 2,
                              [(sample.gt.digest, sample),
                               (changed.reference.digest, as_sample(changed.reference, name))]) \
            if image is not None else (np.nan, np.nan)
        above.append(Panel(changed.reference.image))
        below.append(Panel(image, f"to ground truth {d[0]:.3f}\nto reference {d[1]:.3f}", "failed"))
        heads.append(f"Reference, {name}")
    return [Row("reference", above, titles=tuple(heads), rule=k > 0), Row("restored", below)]


@figure(6, "Editing style by the reference")
def editing(context: Context) -> Drawing:
    """Own references that differ most in motion, and those of others; what changes inside and
    outside the face."""
    everyone = context.samples.samples
    if len(people_of(everyone)) < 2:
        raise FsrError("figure 6", "needs two people at least", "give more with --people")
    chosen = first_of_each(everyone, len(people_of(everyone)))
    made = [(condition, context.run((FT,), (SCALE,), samples=[s for _, s in condition]))
            for condition in conditions(chosen, first_of_each(everyone, len(chosen)))]
    rows, numbers = [], []
    for k, sample in enumerate(chosen):
        if k < SHOWN:
            rows += _rows(context, made, k, sample)
        images = [r.image(FT, SCALE, sample.id) for _, r in made]
        inside, outside = spread([i for i in images if i is not None], _mask(context, sample))
        numbers.append({"sample": sample.id, "inside_levels": inside, "outside_levels": outside,
                        **{f"ids_{k + 1}": r.value(FT, SCALE, sample.id)
                           for k, (_, r) in enumerate(made)},
                        **{f"reference_{k + 1}": c[len(numbers)][1].reference.id
                           for k, (c, _) in enumerate(made)}})
    canvas = image_grid(rows, size=context.options.profile.size)
    style.foot(canvas, context.footline(len(chosen), len(chosen), (SCALE,))
               + " · IDS, lower is nearer")
    inside, outside = (np.nanmean([row[name] for row in numbers])
                       for name in ("inside_levels", "outside_levels"))
    return Drawing(canvas, (
        "One LR image with one fitted embedding (FT) and one noise, restored with several "
        "references: the two of the "
        "person's reference set that differ most in motion (landmarks behind a similarity of five "
        "points), and those of two other "
        "people; only z_s differs between the columns. Below each restoration its IDS to the "
        "ground truth and to the reference above. "
        f"Between the columns the restorations differ by {inside:.1f} grey levels of 255 inside "
        f"the masked face and by "
        f"{outside:.1f} outside it, in the mean over {len(chosen)} images. "
        + context.protocol(len(chosen), len(chosen), (SCALE,))),
        numbers, images=True)
