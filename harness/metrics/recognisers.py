"""The panel: recognisers that say who a face is, behind one interface.

Each embeds chips that are cut by landmarks: of restored images by those of the ground truth, so
that no detection can fail (detected.py has the other way). Networks of ONNX files run on one
thread in float32.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from fsrbench.faces.align import arcface_frame, sample
from fsrbench.metrics import Feature, feature
from fsrbench.weights.catalogue import Npm, Url, WeightFile, get_entry, register, require
from fsrbench.weights.shared import SFACE

FR_FEATURE = register(WeightFile(
    "fr-feature", "fr_feature.onnx",
    "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
    "MIT (faceplugin-face-recognition-js 0.0.1); what it was trained on is not stated",
    "identity gap and rank-1 by a judge that no method here has seen",
    (Npm("faceplugin-face-recognition-js@0.0.1", "model/fr_feature.onnx"),)))
_DEEPFACE = "https://github.com/serengil/deepface_models/releases/download/v1.0"
_ZOO = "https://huggingface.co/public-data/insightface/resolve/main/models"
for _name, _file, _licence, _address in (
        ("deepface-facenet512", "facenet512_weights.onnx", "MIT (davidsandberg/facenet)",
         f"{_DEEPFACE}/facenet512_weights.onnx"),
        ("deepface-arcface", "arcface_weights.onnx", "see DeepFace; research only",
         f"{_DEEPFACE}/arcface_weights.onnx"),
        ("insightface-r50", "w600k_r50.onnx", "insightface model zoo, non-commercial research only",
         f"{_ZOO}/buffalo_l/w600k_r50.onnx"),
        ("insightface-r100", "glintr100.onnx", "insightface model zoo, non-commercial research "
         "only", f"{_ZOO}/antelopev2/glintr100.onnx")):
    register(WeightFile(_name, _file, "", _licence, "one more judge of identity",
                        (Url(_address),)))


# A weight of less is none.
_NOTHING = 1e-30


@dataclass(frozen=True)
class Recogniser:
    """A network that says who a face is.

    Args:
        name: short, as in the ids of metrics; title: in words.
        weights: its file in the catalogue.
        trained_on: data sets, by their names here where they have one, as its authors say; empty
            where nobody says.
        alignment: of its chips, in words.
        feature: id of the feature that cuts chips and embeds them.
        same: greatest cosine distance of one person, where its library has a fixed one.
        detected: id of the feature that cuts by landmarks found on the image; empty without.
        also: other files of the same network in the catalogue.
    """

    name: str
    title: str
    weights: str
    trained_on: tuple[str, ...]
    alignment: str
    feature: str
    same: float | None = None
    detected: str = ""
    also: tuple[str, ...] = ()

    @property
    def licence(self) -> str:
        """Of its weights."""
        return get_entry(self.weights).licence


@dataclass(frozen=True)
class Onnx:
    """How a network of an ONNX file is fed: side, mean and scale of bytes, and order of colours."""

    weights: str
    side: int = 112
    mean: float = 127.5
    scale: float = 127.5
    bgr: bool = False


def _cleared(model) -> None:
    """Set weights next to zero to zero: the slow arithmetic of denormal numbers costs fr_feature
    seven times the time and changes nothing. onnxruntime's own switch for it would stay on in the
    thread, for whatever else computes there."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            values = np.where(np.abs(values) < _NOTHING, np.float32(0), values)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@cache
def _session(weights: str):
    import onnx
    import onnxruntime

    model = onnx.load(require(weights))
    # SFace's file names its weights as inputs too, which onnxruntime would ask for.
    del model.graph.input[1:]
    _cleared(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # SFace's weights are 8 bits in the file alone.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options,
                                        providers=["CPUExecutionProvider"])


def embed(how: Onnx, chips: np.ndarray) -> np.ndarray:
    """Embeddings (N, F) of uint8 RGB chips (N, S, S, 3), each by itself, as most files have a batch
    of one; as many at a time as torch has threads."""
    session = _session(how.weights)
    entry = session.get_inputs()[0]
    x = (chips[..., ::-1] if how.bgr else chips).astype(np.float32)
    x = (x - np.float32(how.mean)) / np.float32(how.scale)
    if entry.shape[-1] != 3:
        x = x.transpose(0, 3, 1, 2)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.stack(list(pool.map(
            lambda one: session.run(None, {entry.name: np.ascontiguousarray(one[None])})[0][0],
            x)))


def aligned(how: Onnx, images: list[np.ndarray], contexts: list[np.ndarray]) -> np.ndarray:
    """Embeddings of the chips that landmarks (68, 2) cut."""
    return embed(how, np.stack([sample(image, arcface_frame(points, how.side), how.side)
                                for image, points in zip(images, contexts)]))


ARCFACE = "ArcFace's five points in 112 px"
# Those that come with the installation or the package registries first; dlib's and VGG-Face's
# features stand in identity.py.
RECOGNISERS = {entry.name: entry for entry in (
    Recogniser("dlib", "dlib", "dlib-recognition", ("FaceScrub", "VGG-Face", "faces of the web"),
               "dlib's chip of five points, 150 px", "dlib-chip@1", 0.07),
    Recogniser("frfeature", "fr_feature", "fr-feature", (), ARCFACE, "frfeature-arcface112@1",
               detected="frfeature-detected@1"),
    # OpenCV's own threshold, a cosine of 0.363.
    Recogniser("sface", "SFace", SFACE.name, ("casia-webface", "VGGFace2", "MS-Celeb-1M"), ARCFACE,
               "sface-arcface112@1", 0.637, detected="sface-detected@1"),
    Recogniser("vggface", "VGG-Face", "deepface-vggface", ("VGG-Face",),
               "dlib's chip of five points, 224 px", "deepface-vggface-chip@1", 0.68),
    Recogniser("facenet512", "FaceNet-512", "deepface-facenet512", ("VGGFace2",),
               "ArcFace's five points in 160 px", "facenet512-arcface160@1", 0.30),
    Recogniser("deepface-arcface", "ArcFace (DeepFace)", "deepface-arcface", ("MS-Celeb-1M",),
               ARCFACE, "deepface-arcface-arcface112@1", 0.68),
    Recogniser("r50", "ArcFace r50", "insightface-r50", ("WebFace600K",), ARCFACE,
               "r50-arcface112@1", also=("arcface-r50",)),
    Recogniser("r100", "ArcFace r100", "insightface-r100", ("Glint360K",), ARCFACE,
               "r100-arcface112@1", also=("arcface-r100",)))}
FED = {"frfeature": Onnx("fr-feature", mean=127, scale=128),
       "sface": Onnx("sface", mean=0, scale=1),
       "facenet512": Onnx("deepface-facenet512", 160, 0, 255, bgr=True),
       "deepface-arcface": Onnx("deepface-arcface", 112, 0, 255, bgr=True),
       "r50": Onnx("insightface-r50"), "r100": Onnx("insightface-r100")}
for _name, _how in FED.items():
    feature(Feature(RECOGNISERS[_name].feature, partial(aligned, _how), (_how.weights,),
                    aligned=True))
