"""Figure 3: the landmark warp of the reference onto the low-resolution face, exact and imprecise
(paper 3.2, E.1).

The paper says that imprecise warping does not hurt. Here the reference's landmarks are moved, so
that what is pasted is bent, and FT is measured with and without: its embedding does not come from
the reference, so nothing but the warp changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import Delaunay

from fsrbench.core import Sample
from fsrbench.engine.stats import summarise
from fsrbench.faces.geometry import Landmarks
from fsrbench.faces.lr import lr_landmarks
from fsrbench.faces.warp import warp_face, with_forehead
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.reports.figures import style
from fsrbench.reports.figures.comparison import FT, restored
from fsrbench.reports.figures.context import Context, Results, first_of_each, truth
from fsrbench.reports.figures.grid import Panel, Row, image_grid
from fsrbench.reports.figures.registry import Drawing, figure
from fsrbench.rng import numpy_rng

SCALE = 8
PEOPLE = 3
# Deviation of each coordinate of a moved landmark, as a share of the side: 1.7 times a detector's
# error at x8.
JITTER = 0.03
TITLES = ("Reference", "Its landmarks", "LR, landmarks", "Warped", "Mask", "Masked LR", "FT",
          "Jittered warp", "FT, jittered", "Ground truth")


def jittered(sample: Sample, size: int) -> Sample:
    """The sample with every landmark of its reference moved, by a draw of its own."""
    points = sample.reference.landmarks.points
    moved = points + numpy_rng("jittered landmarks", sample.id).normal(0, JITTER * size,
                                                                       points.shape)
    landmarks = Landmarks(moved, f"{sample.reference.landmarks.source}, jittered")
    return replace(sample, reference=replace(sample.reference, landmarks=landmarks))


def measure(context: Context) -> tuple[Results, Results]:
    """FT's restorations by the exact and by the jittered warp; the change of IDS is kept for the
    claims."""
    exact = context.run((FT,), (SCALE,))
    moved = context.run((FT,), (SCALE,), samples=[jittered(s, context.options.profile.size)
                                                  for s in exact.samples])
    before, after = exact.values(FT, SCALE), moved.values(FT, SCALE)
    usual = before[np.isfinite(before + after)].mean()
    context.keep("warp/jittered/ids", (after - before) / usual, [s.person for s in exact.samples])
    return exact, moved


def _enlarged(lr: np.ndarray, size: int) -> np.ndarray:
    """I_L at HQ size as methods see it, uint8."""
    return to_uint8(np.clip(imresize(to_float(lr[None]), size, size), 0, 1))[0]


def _panels(context: Context, exact: Results, moved: Results, sample: Sample) -> tuple[list[Panel],
                                                                                       str, float]:
    """The row of a sample, which detector served, and how far the LR landmarks are from the
    truth's, in pixels."""
    size = context.options.profile.size
    enlarged, source = _enlarged(context.lr(sample, SCALE), size), sample.reference.landmarks.points
    found = lr_landmarks(enlarged, context.options.profile.frame)

    def warped(points: np.ndarray) -> tuple[Panel, np.ndarray]:
        face, mask = warp_face(to_float(sample.reference.image[None])[0], points, found.points,
                               size)
        return Panel(to_uint8(face[None])[0]), mask
    (face, mask), (bent, _) = warped(source), warped(jittered(sample,
                                                              size).reference.landmarks.points)
    # Both meshes are the triangulation of the LR landmarks: that is the one which the warp uses.
    simplices = Delaunay(with_forehead(found.points)).simplices
    masked = np.where(mask[..., None], 128, enlarged).astype(np.uint8)
    far = float(np.linalg.norm(found.points - sample.gt.landmarks.points, axis=1).mean())
    return [Panel(sample.reference.image), Panel(sample.reference.image,
                                                 triangles=(with_forehead(source), simplices)),
            Panel(enlarged, f"{found.source}\n{far:.1f} px off",
                  triangles=(with_forehead(found.points), simplices)),
            face, Panel(np.repeat(mask[..., None] * np.uint8(255), 3, -1)), Panel(masked),
            restored(exact, FT, SCALE, sample),
            bent, restored(moved, FT, SCALE, sample), Panel(truth(exact, sample),
                                                            sample.id)], found.source, far


@figure(3, "Warping the reference onto the low-resolution face")
def warping(context: Context) -> Drawing:
    """Reference, landmarks with their triangulation, warped reference, mask, masked LR image,
    restoration, the same under jittered landmarks, ground truth."""
    exact, moved = measure(context)
    people = [s.person for s in exact.samples]
    before, after = (summarise(r.values(FT, SCALE), people) for r in (exact, moved))
    chosen = first_of_each(exact.samples, PEOPLE)
    made = [_panels(context, exact, moved, sample) for sample in chosen]
    canvas = image_grid([Row("", panels, titles=TITLES if i == 0 else ())
                         for i, (panels, _, _) in enumerate(made)],
                        size=context.options.profile.size)
    style.foot(canvas, context.footline(len(people), len(set(people)), (SCALE,)))
    rows = [{"sample": s.id, "reference": s.reference.id, "landmarks": name,
             "mean_error_px": round(far, 4),
             "ids": exact.value(FT, SCALE, s.id), "ids_jittered": moved.value(FT, SCALE, s.id)}
            for s, (_, name, far) in zip(chosen, made)]
    return Drawing(canvas, (
        "Each triangle of the reference's landmarks (68, and ten forehead points above the brows) "
        "is mapped onto that of the "
        "landmarks in the LR image; what lies inside their hull is masked there. Below the LR "
        "image: which detector gave "
        "its landmarks, or that none found the face and the mean face of an aligned image stands "
        "in (template), and their "
        "mean distance from those of the ground truth. Jittered: every coordinate of the "
        "reference's landmarks is moved by normal "
        f"noise of {100 * JITTER:g} % of the side; FT's embedding stays, so only the warp changes. "
        f"Shown is the first test "
        f"image of each of the first people drawn; over all images the mean IDS is "
        f"{before.said('.3f')}, "
        f"jittered {after.said('.3f')}. "
        + context.protocol(len(people), len(set(people)), (SCALE,))), rows, images=True)
