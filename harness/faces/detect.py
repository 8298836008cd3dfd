"""Landmarks behind one interface: `find` returns 68 iBUG points and says which detector served.

Order: RetinaFace (if its weights are here) for the box, then dlib; dlib's HOG detector and 68-point
predictor; and, for images known to be aligned, the predictor in the template's box or the template
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from fsrbench.faces.geometry import TEMPLATE, Frame, Landmarks, template
from fsrbench.weights.catalogue import Package, Url, WeightFile, locate, register, require

SHAPE_68 = register(WeightFile(
    "dlib-landmarks-68", "shape_predictor_68_face_landmarks.dat",
    "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    "trained on iBUG 300-W, which excludes commercial use", "landmarks, alignment, masks and warps",
    (Package("face_recognition_models",
             "face_recognition_models/models/shape_predictor_68_face_landmarks.dat"),)))

RETINAFACE = register(WeightFile(
    "retinaface-resnet50", "detection_Resnet50_Final.pth", "",
    "MIT (biubug6/Pytorch_Retinaface)", "face detection by RetinaFace instead of dlib's HOG",
    (Url("https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
         "detection_Resnet50_Final.pth"),)))

# Long side to which an image is brought usually and, where no face was seen in that, at most; and
# by what factor it is upsampled at most.
USUAL, LONGEST, MOST = 1280, 5120, 5
# Least score of a face of dlib's HOG detector: in the usual search, and in an upsampled image,
# whose texture resembles faces.
_UNSURE, _SURE = -0.2, 0.2


# dlib's hits up to this score count for nothing beside a better one: in scikit-image's images all
# false hits but two are below it, and of faces of 16 pixels (ORL, LFW) one in ten.
WEAK = -0.1
# By so much a small image is upsampled at most, where nothing was seen in less.
FURTHER = 8


@lru_cache(maxsize=1)
def _dlib():
    import dlib

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(require("dlib-landmarks-68")))


@lru_cache(maxsize=1)
def _retinaface():
    from fsrbench.faces.retinaface import RESNET50, load_retinaface

    return load_retinaface(require("retinaface-resnet50"), RESNET50)


def _predict(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """dlib's 68 points for the face in a box (left, top, right, bottom)."""
    import dlib

    rectangle = dlib.rectangle(*(int(round(v)) for v in box))
    shape = _dlib()[1](np.ascontiguousarray(image), rectangle)
    return np.array([[p.x, p.y] for p in shape.parts()], dtype=np.float64)


def _boxes_retinaface(image: np.ndarray) -> list[tuple]:
    """Boxes of RetinaFace as dlib's predictor expects them (square, the forehead left out), and
    scores: left, top, right, bottom, score."""
    from fsrbench.faces.retinaface import detect

    boxes, faces = [], detect(_retinaface(), image[None])[0]
    for (left, top, right, bottom), score in zip(faces.boxes, faces.scores):
        half = (right - left + bottom - top) * 0.225
        x, y = (left + right) / 2, top * 0.4 + bottom * 0.6
        boxes.append((x - half, y - half, x + half, y + half, score))
    return boxes


def _boxes_hog(image: np.ndarray) -> list[tuple]:
    """Boxes of dlib's HOG detector and scores, likewise."""
    boxes, scores, _ = _dlib()[0].run(np.ascontiguousarray(image), 0, _UNSURE)
    return [(box.left(), box.top(), box.right(), box.bottom(), score)
            for box, score in zip(boxes, scores)]


def _area(box: tuple) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _resized(image: np.ndarray, long_side: int) -> tuple[np.ndarray, float]:
    """The image at that long side, and the factor from its pixels back to the original's."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = max(height, width) / long_side
    shape = (max(1, round(width / scale)), max(1, round(height / scale)))
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC)), scale


def _looks(image: np.ndarray, most: float = 2, longest: int = USUAL, alone: bool = False
           ) -> Iterator[tuple[str, np.ndarray, float, list[tuple]]]:
    """What each detector sees, one after the other, from coarse to fine: its name, the image that
    it looked at, the factor back to the pixels of the original, and boxes.

    Detectors look for faces of about 80 to 400 pixels, so the image is brought to a long side of
    320, then 640 and so on.

    Args:
        most: by what factor the image is upsampled at most; longest: the longest side;
        alone: whether dlib's detector serves alone, whatever else is here.
    """
    own = max(image.shape[:2])
    sides = [320 * 2**k for k in range(5) if k == 0 or 320 * 2**k <= min(most * own, longest)]
    retinaface = not alone and locate("retinaface-resnet50")
    detectors = {"retinaface+dlib68": _boxes_retinaface} if retinaface else {}
    for source, boxes_of in {**detectors, "dlib-hog+dlib68": _boxes_hog}.items():
        for side in sides:
            resized, scale = _resized(image, side)
            yield source, resized, scale, boxes_of(resized)


def _landmarks(source: str, resized: np.ndarray, scale: float, box: tuple) -> Landmarks:
    return Landmarks((_predict(resized, box[:4]) + 0.5) * scale - 0.5, source)


def find(image: np.ndarray, alone: bool = False) -> Landmarks | None:
    """Landmarks of the largest face of an uint8 RGB image of any size; None if there is no face.
    With `alone` by dlib's detector, as ids of metrics say, whatever else is on this machine.

    A face in a photograph of up to 1,600 pixels may be 12 to 20 of them wide, in a larger one up to
    twice that. Where the image is upsampled so far that its texture resembles faces, dlib must be
    surer.
    """
    usual = max(320, min(USUAL, 2 * max(image.shape[:2])))
    for source, resized, scale, boxes in _looks(image, MOST, LONGEST, alone):
        if source.startswith("dlib") and max(resized.shape[:2]) > usual:
            boxes = [box for box in boxes if box[4] > _SURE]
        if boxes:
            return _landmarks(source, resized, scale, max(boxes, key=_area))
    return None


def find_all(image: np.ndarray) -> list[Landmarks]:
    """Landmarks of every face, each as the first look that sees it has it; false ones may be among
    them.

    The first detector that sees any face serves. Two hits are one face where the centre of either
    lies in the other. Weak hits count only where there are no others. Where `find` sees none, the
    image is upsampled further, for a small face in a small image.
    """
    return _all_of(_looks(image)) or _all_of(_looks(image, FURTHER))


def _all_of(looks: Iterable[tuple[str, np.ndarray, float, list[tuple]]]) -> list[Landmarks]:
    found: list[tuple[np.ndarray, Landmarks, list[float]]] = []
    for source, resized, scale, boxes in looks:
        if found and source != found[0][1].source:
            break
        for box in sorted(boxes, key=_area, reverse=True):
            place = np.array(box[:4]) * scale
            same = [scores for other, _, scores in found
                    if _holds(place, other) or _holds(other, place)]
            if same:
                same[0].append(box[4])
            else:
                found.append((place, _landmarks(source, resized, scale, box), [box[4]]))
    strong = [marks for _, marks, scores in found if max(scores) > WEAK]
    return strong or [marks for _, marks, _ in found]


def _holds(box: np.ndarray, other: np.ndarray) -> bool:
    """Whether the centre of another box lies in a box."""
    centre = (other[:2] + other[2:]) / 2
    return bool((box[:2] < centre).all() and (centre < box[2:]).all())


def find_aligned(image: np.ndarray, frame: Frame) -> Landmarks:
    """Landmarks of a square image known to be aligned to `frame`: never None.

    What the detectors miss (a restored or degraded image) gets the template's points, and says so.
    """
    found = find(image)
    return found or Landmarks(template(image.shape[0], frame), TEMPLATE)
