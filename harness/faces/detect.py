"""Landmarks behind one interface: `find` returns 68 iBUG points and says which detector served.

Order: RetinaFace (if its weights are here) for the box, then dlib; dlib's HOG detector and 68-point
predictor; and, for pictures known to be aligned, the predictor in the template's box or the template itself.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fsrbench.faces.geometry import TEMPLATE, Frame, Landmarks, template
from fsrbench.weights.catalogue import Package, Url, WeightFile, locate, register, require

SHAPE_68 = register(WeightFile(
    "dlib-landmarks-68", "shape_predictor_68_face_landmarks.dat",
    "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    "trained on iBUG 300-W, which excludes commercial use", "landmarks, alignment, masks and warps",
    (Package("face_recognition_models", "face_recognition_models/models/shape_predictor_68_face_landmarks.dat"),)))

RETINAFACE = register(WeightFile(
    "retinaface-resnet50", "detection_Resnet50_Final.pth", "",
    "MIT (biubug6/Pytorch_Retinaface)", "face detection by RetinaFace instead of dlib's HOG",
    (Url("https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth"),)))

# Long side to which an image is enlarged at most, and by what factor.
LONGEST, MOST = 5120, 5
# Least score of a face of dlib's HOG detector: in the usual search, and in an enlarged image, whose texture resembles faces.
_UNSURE, _SURE = -0.2, 0.2


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


def _box_retinaface(image: np.ndarray, sure: float) -> tuple | None:
    """Box of the largest face, however sure; long sides above 1280 are shrunk first, where RetinaFace does poorly."""
    from fsrbench.faces.retinaface import detect

    boxes = detect(_retinaface(), image[None])[0].boxes
    if not len(boxes):
        return None
    left, top, right, bottom = max(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
    side, x, y = (right - left + bottom - top) / 2, (left + right) / 2, top * 0.4 + bottom * 0.6
    # dlib's predictor expects the square box of its own detector, which leaves the forehead out.
    return x - side * 0.45, y - side * 0.45, x + side * 0.45, y + side * 0.45


def _box_hog(image: np.ndarray, sure: float) -> tuple | None:
    """Box of the largest face of dlib's HOG detector whose score is above `sure`."""
    boxes, _, _ = _dlib()[0].run(np.ascontiguousarray(image), 0, sure)
    if not boxes:
        return None
    box = max(boxes, key=lambda b: b.area())
    return box.left(), box.top(), box.right(), box.bottom()


def _resized(image: np.ndarray, long_side: int) -> tuple[np.ndarray, float]:
    """The image at that long side, and the factor from its pixels back to the original's."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = max(height, width) / long_side
    shape = (max(1, round(width / scale)), max(1, round(height / scale)))
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC)), scale


def find(image: np.ndarray) -> Landmarks | None:
    """Landmarks of the largest face of an uint8 RGB image of any size; None if there is no face.

    Detectors look for faces of about 80 to 400 pixels, so the image is brought to a long side of 320, then 640
    and so on up to `LONGEST`, but to no more than `MOST` times its own: a face in a photograph of up to 1,600
    pixels may be 12 to 20 of them wide, in a larger one up to twice that.
    """
    longest = max(image.shape[:2])
    sides = [s for s in (320, 640, 1280, 2560, LONGEST) if s == 320 or s <= MOST * longest]
    enlarged = max(320, min(1280, 2 * longest))
    boxes = {"retinaface+dlib68": _box_retinaface} if locate("retinaface-resnet50") else {}
    boxes["dlib-hog+dlib68"] = _box_hog
    for source, find_box in boxes.items():
        for side in sides:
            resized, scale = _resized(image, side)
            box = find_box(resized, _SURE if side > enlarged else _UNSURE)
            if box is not None:
                points = (_predict(resized, box) + 0.5) * scale - 0.5
                return Landmarks(points, source)
    return None


def find_aligned(image: np.ndarray, frame: Frame) -> Landmarks:
    """Landmarks of a square image known to be aligned to `frame`: never None.

    What the detectors miss (a restored or degraded picture) gets the template's points, and says so.
    """
    found = find(image)
    return found or Landmarks(template(image.shape[0], frame), TEMPLATE)
