"""Landmarks of a low-resolution face, found without looking at the ground truth (paper 3.2 and
E.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fsrbench.faces.align import five_points, similarity, transform
from fsrbench.faces.geometry import FFHQ, TEMPLATE, Frame, Landmarks, template
from fsrbench.faces.retinaface import (
    MINI_RETINA,
    RESNET50,
    RetinaConfig,
    RetinaFace,
    load_retinaface,
    strongest,
)
from fsrbench.weights.catalogue import Bundled, WeightFile, file_digest, locate, register, require
from fsrbench.weights.networks import exact_device

# A face less likely than this is none; points farther from the template than this share of the
# side, on average, are false.
SURE, PLAUSIBLE = 0.8, 0.1

register(WeightFile("landmarks-paper", "landmarks-paper.safetensors", "", "as its training data",
                    "landmarks of I_L by a RetinaFace fine-tuned on LR images (`invoke train "
                    "--what landmarks --profile "
                    "paper --init detection_Resnet50_Final.pth`)", (Bundled(),)))
register(WeightFile("landmarks-mini", "landmarks-mini.safetensors", "",
                    "research use only (trained on LFW, labelled by dlib's landmarks)",
                    "landmarks of I_L without RetinaFace's files (`invoke train --what landmarks`)",
                    (Bundled(),)))


@dataclass(frozen=True)
class Detector:
    """A network that finds landmarks in I_L.

    Args:
        source: what a record calls its landmarks; "+fit" says that five points were found and the
            template laid on them.
        weights: name in the catalogue; config: of the network.
        side: of the square that it looks at.
        frame: what that square shows; None for the whole image.
    """

    source: str
    weights: str
    config: RetinaConfig
    side: int
    frame: Frame | None = None


# In the order in which they are asked.
MINI = Detector("landmarks-mini", "landmarks-mini", MINI_RETINA, 96, Frame(0.75, 0.03))
FINE_TUNED = Detector("retinaface-lr+fit", "landmarks-paper", RESNET50, 512)
DETECTORS = (FINE_TUNED, Detector("retinaface+fit", "retinaface-resnet50", RESNET50, 512), MINI)


def present() -> tuple[Detector, ...]:
    """Those detectors whose weights are here."""
    return tuple(d for d in DETECTORS if locate(d.weights))


def network(detector: Detector) -> RetinaFace:
    """The loaded network of a detector."""
    return _loaded(detector, file_digest(require(detector.weights)))


@lru_cache(maxsize=3)
def _loaded(detector: Detector, digest: str) -> RetinaFace:
    return load_retinaface(require(detector.weights), detector.config).to(exact_device())


def window(frame: Frame, shown: Frame) -> np.ndarray:
    """Left, top, right, bottom of frame `shown` in an image of `frame`, as shares of its side, cut
    off at its border."""
    centre = np.array([0.5, 0.5 + (shown.drop - frame.drop) / frame.scale])
    half = shown.scale / frame.scale / 2
    return np.clip(np.concatenate([centre - half, centre + half]), 0, 1)


def enlarged(image: np.ndarray, side: int, shown: np.ndarray | None = None) -> np.ndarray:
    """uint8 (side, side, 3) of a window of an uint8 image, bicubic."""
    from PIL import Image

    box = None if shown is None else tuple(shown * image.shape[0])
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box))


def dense(points: np.ndarray) -> np.ndarray:
    """68 landmarks of five: the template under the similarity that lays its five on them; 68 stay
    as they are."""
    if len(points) == 68:
        return points
    mean_face = template(256, FFHQ)
    return transform(similarity(five_points(mean_face), points), mean_face)


def look(detector: Detector, model: RetinaFace, images: np.ndarray,
         frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) and 68 landmarks (N, 68, 2) in pixel-centre coordinates of aligned images uint8
    (N, S, S, 3)."""
    size = images.shape[1]
    shown = window(frame, detector.frame or frame)
    scores, found = strongest(model,
                              np.stack([enlarged(image, detector.side, shown) for image in images]))
    corner, extent = shown[:2] * size, (shown[2:] - shown[:2]) * size
    points = np.stack([dense(p) for p in found / detector.side * extent + corner - 0.5])
    return scores, points


def lr_landmarks(upsampled: np.ndarray, frame: Frame) -> Landmarks:
    """Landmarks of the face in I_L.

    The detectors are asked in the order of DETECTORS, as far as their weights are here. Where none
    is sure, or what it finds cannot be a face aligned so, the aligned template stands in for it,
    and the record says so.

    Mean error in pixels against the landmarks found on the ground truth, 392 test images of LFW at
    64 px (`invoke landmarks`):

        detector                    x4            x8            x16
        template                    2.20          2.20          2.20
        dlib, as on HQ images     1.38 of 85 %  2.45 of 8 %   15.8 of < 1 %
        landmarks-mini              1.22          1.39          1.71 of 99 %

    On ORL (59 images of 12 people), which no choice here was made on: template 2.25; landmarks-mini
    1.18, 1.48, and 2.18 at x16, where it is thus hardly better than the template (of the first 6
    people alone 2.13 against 2.10).

    Five points with the template laid on them cannot do as well: of the truth's own five its error
    is 2.13, as the jaw and the mouth vary on their own. So the small network finds 68 points, and
    what RetinaFace's five are worth here is bounded by that figure; dlib's predictor in the true
    box is worse on I_L (2.1 at x4, 3.3 at x8, 7.2 at x16; once, on 148).

    Args:
        upsampled: uint8 (S, S, 3), I_L at HQ size.
        frame: what the image shows.
    """
    size, mean_face = upsampled.shape[0], template(upsampled.shape[0], frame)
    for detector in present():
        (score,), (points,) = look(detector, network(detector), upsampled[None], frame)
        if score > SURE and np.linalg.norm(points - mean_face, axis=1).mean() < PLAUSIBLE * size:
            return Landmarks(points, detector.source)
    return Landmarks(mean_face, TEMPLATE)
