"""`invoke landmarks`: how far the landmarks that each detector finds on I_L are from those found on
the ground truth (paper 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fsrbench.core import Profile
from fsrbench.degrade.named import check_scale
from fsrbench.engine.lr_images import lr_images
from fsrbench.engine.samples import check_leaks, load_samples
from fsrbench.engine.store import Store
from fsrbench.faces import lr
from fsrbench.faces.align import five_points
from fsrbench.faces.detect import find
from fsrbench.faces.geometry import template
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.progress import progress
from fsrbench.text import columns

SCALES = (4, 8, 16)
HEADINGS = ["SCALE", "LANDMARKS BY", "FOUND", "ERROR IN PX", "OF FIVE POINTS",
            "TEMPLATE ON THE FIVE"]


def _finders(profile: Profile) -> dict[str, Callable[[np.ndarray], np.ndarray | None]]:
    """What finds 68 landmarks in an aligned image, by name; None where it finds no face."""
    def hq(image):
        found = find(image)
        return found.points if found else None

    def of(detector):
        def look(image):
            (score,), (points,) = lr.look(detector, lr.network(detector), image[None],
                                          profile.frame)
            return points if score > lr.SURE else None
        return look
    return {"template": lambda image: template(profile.size, profile.frame),
            "the detectors of HQ images": hq, **{d.source: of(d) for d in lr.present()},
            "what methods are given": lambda image: lr.lr_landmarks(image, profile.frame).points}


def errors(found: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Mean distances in pixels between landmarks (68, 2): of all; of the five that RetinaFace
    finds; and of all, had only those five been found and the template been laid on them."""
    fitted = lr.dense(five_points(found))
    pairs = ((found, truth), (five_points(found), five_points(truth)), (fitted, truth))
    return tuple(float(np.linalg.norm(a - b, axis=1).mean()) for a, b in pairs)


def _line(scale: str, name: str, found: Sequence[np.ndarray | None],
          truths: Sequence[np.ndarray]) -> list[str]:
    """A row of the table; errors are of those images in which a face was found."""
    each = [errors(points, truth) for points, truth in zip(found, truths) if points is not None]
    means = [f"{value:.2f}" for value in np.mean(each, 0)] if each else ["", "", ""]
    return [scale, name, f"{100 * len(each) / len(truths):.0f} %", *means]


def report(profile: Profile, data: str, scales: Sequence[int], degradation: str, store: Store,
           people: int | None, seed: int) -> str:
    """Table of detectors by scale, on the test images that the protocol draws.

    Raises:
        FsrError: a detector was trained on them.
    """
    drawn, small = load_samples(data, profile, store, people, seed), lr_images(degradation, store)
    for detector in lr.present():
        check_leaks(drawn, detector.weights)
    truths = [s.gt.landmarks.points for s in drawn.samples]
    lines, finders = [HEADINGS, _line("", "the ground truth", truths, truths)], _finders(profile)
    with progress(total=len(scales) * len(finders), desc="detecting") as bar:
        for scale in scales:
            small.make(drawn.samples, check_scale(scale, profile.size))
            large = [imresize(to_float(small(s, scale)[None]), profile.size, profile.size)
                     for s in drawn.samples]
            images = to_uint8(np.clip(np.concatenate(large), 0, 1))
            for name, finder in finders.items():
                lines.append(_line(f"x{scale}", name, [finder(image) for image in images],
                                   truths))
                bar.update()
    return f"{len(truths)} images of {profile.size} px, {small.degradation.id}\n" + columns(lines)
