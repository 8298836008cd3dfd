"""Figure 3: the landmark warp of the reference onto the low-resolution face (paper 3.2, E.1)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay

from fsrbench.core import Sample
from fsrbench.faces.lr import lr_landmarks
from fsrbench.faces.warp import warp_face, with_forehead
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.reports.figures import style
from fsrbench.reports.figures.comparison import PT, restored
from fsrbench.reports.figures.context import Context, Results, first_of_each, people_of, truth
from fsrbench.reports.figures.grid import Panel, Row, picture_grid
from fsrbench.reports.figures.registry import Drawing, figure

SCALE = 8
PEOPLE = 3
TITLES = ("Reference", "Its landmarks", "LR, landmarks", "Warped", "Mask", "Masked LR", "PT", "Ground truth")


def _enlarged(lr: np.ndarray, size: int) -> np.ndarray:
    """I_L at HQ size as methods see it, uint8."""
    return to_uint8(np.clip(imresize(to_float(lr[None]), size, size), 0, 1))[0]


def _panels(context: Context, results: Results, sample: Sample) -> tuple[list[Panel], str, float]:
    """The row of a sample, which detector served, and how far the LR landmarks are from the truth's, in pixels."""
    size = context.options.profile.size
    enlarged, source = _enlarged(context.lr(sample, SCALE), size), sample.reference.landmarks.points
    found = lr_landmarks(enlarged, context.options.profile.frame)
    face, mask = warp_face(to_float(sample.reference.image[None])[0], source, found.points, size)
    # Both meshes are the triangulation of the LR landmarks: that is the one which the warp uses.
    simplices = Delaunay(with_forehead(found.points)).simplices
    masked = np.where(mask[..., None], 128, enlarged).astype(np.uint8)
    far = float(np.linalg.norm(found.points - sample.gt.landmarks.points, axis=1).mean())
    return [Panel(sample.reference.image), Panel(sample.reference.image, triangles=(with_forehead(source), simplices)),
            Panel(enlarged, f"{found.source}\n{far:.1f} px off", triangles=(with_forehead(found.points), simplices)),
            Panel(to_uint8(face[None])[0]), Panel(np.repeat(mask[..., None] * np.uint8(255), 3, -1)),
            Panel(masked), restored(results, PT, SCALE, sample),
            Panel(truth(results, sample), sample.id)], found.source, far


@figure(3, "Warping the reference onto the low-resolution face")
def warping(context: Context) -> Drawing:
    """Reference, landmarks with their triangulation, warped reference, mask, masked LR picture, restoration, truth."""
    results = context.run((PT,), (SCALE,))
    chosen = first_of_each(results.samples, PEOPLE)
    made = [_panels(context, results, sample) for sample in chosen]
    canvas = picture_grid([Row("", panels, titles=TITLES if i == 0 else ()) for i, (panels, _, _) in enumerate(made)],
                          size=context.options.profile.size)
    style.foot(canvas, context.footline(len(chosen), len(people_of(chosen)), (SCALE,)))
    rows = [{"sample": s.id, "reference": s.reference.id, "landmarks": name, "mean_error_px": round(far, 4)}
            for s, (_, name, far) in zip(chosen, made)]
    return Drawing(canvas, (
        "Each triangle of the reference's landmarks (68, and ten forehead points above the brows) is mapped onto that of the "
        "landmarks in the LR picture; what lies inside their hull is masked there. Below the LR picture: which detector gave "
        "its landmarks, or that none found the face and the mean face of an aligned picture stands in (template), and their "
        "mean distance from those of the truth. Shown is the first test picture of each of the first people drawn. "
        + context.protocol(len(chosen), len(people_of(chosen)), (SCALE,))), rows, pictures=True)
