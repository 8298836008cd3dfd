"""IDS and verification by two models of DeepFace.

Both images are cut by the ground truth's landmarks to the chip that the network was trained on, so
no detection can fail on a restored face, and DeepFace's own detector is skipped. Model `Dlib` comes
with the installation and runs in torch, eleven times as fast as through DeepFace, to 1e-6 of it;
DeepFace's default, VGG-Face, has its own ids and runs through it where its file is.
"""

from __future__ import annotations

import os
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from fsrbench.faces.align import sample, similarity
from fsrbench.metrics import Feature, Metric, feature, metric
from fsrbench.metrics.dlib_network import embed
from fsrbench.weights.catalogue import Package, Url, WeightFile, cache_folder, register, require

DLIB = register(WeightFile(
    "dlib-recognition", "dlib_face_recognition_resnet_model_v1.dat",
    "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30", "CC0 (Davis King)",
    "IDS and verification",
    (Package("face_recognition_models",
             "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"),)))
register(WeightFile(
    "deepface-vggface", "vgg_face_weights.pth", "", "see the VGG-Face authors; research only",
    "IDS and verification by DeepFace's default model",
    (Url("https://github.com/serengil/deepface_models/releases/download/v1.0/"
         "vgg_face_weights.pth"),)))

# DeepFace's thresholds on the cosine distance for "same person".
_MODELS = {"Dlib": ("dlib-recognition", "dlib", 150, 0.07),
           "VGG-Face": ("deepface-vggface", "vggface", 224, 0.68)}

# dlib's chip: outer and inner eye corners and the nose base in a unit square, before 25 % padding
# on each side (facts of dlib's get_face_chip_details for five points).
_CHIP_5 = np.array([[0.8595674595992, 0.2134981538014], [0.6460604764104, 0.2289674387677],
                    [0.1205750620789, 0.2137274526848], [0.3340850613712, 0.2290642403242],
                    [0.4901123135679, 0.6277975316475]])
_PADDING = 0.25


def chip(image: np.ndarray, points: np.ndarray, size: int = 150,
         padding: float = _PADDING) -> np.ndarray:
    """Face chip (size, size, 3) as dlib cuts it, from 68 landmarks; `padding` is a share of its
    side without it."""
    corners = points[[45, 42, 36, 39, 33]]
    target = (_CHIP_5 + padding) / (1 + 2 * padding) * size - 0.5
    return sample(image, similarity(target, corners), size)


@lru_cache(maxsize=1)
def deepface_home() -> Path:
    """DeepFace's weights folder, made to be ours before the package is first imported."""
    home = Path(os.environ.setdefault("DEEPFACE_HOME", str(cache_folder() / "deepface")))
    os.environ.setdefault("DEEPFACE_BACKEND_ENGINE", "pytorch")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def point_at(path: Path, folder: Path) -> None:
    """A link to a file in a folder, under its own name; one that points elsewhere (an environment
    that is gone) is replaced."""
    link = folder / path.name
    if link.exists() and link.resolve() == path.resolve():
        return
    # Renamed into place, as other processes may do the same.
    fresh = folder / f"{path.name}.{os.getpid()}"
    fresh.symlink_to(path)
    os.replace(fresh, link)


def dlib_embeddings(images: list[np.ndarray], contexts: list[np.ndarray],
                    place: str = "") -> np.ndarray:
    """Embeddings (N, 128) of DeepFace's `Dlib` of chips cut by the landmarks in `contexts`, on a
    device, or where networks run."""
    return embed(np.stack([chip(image, points) for image, points in zip(images, contexts)]), place)


def _deepface(model: str, images: list[np.ndarray], contexts: list[np.ndarray]) -> np.ndarray:
    """DeepFace embeddings (N, F) of chips cut by the landmarks in `contexts`."""
    weights, _, size, _ = _MODELS[model]
    folder = deepface_home()
    from deepface import DeepFace

    point_at(require(weights), folder)
    vectors = []
    for image, points in zip(images, contexts):
        bgr = chip(image, points, size)[..., ::-1]
        found = DeepFace.represent(bgr, model_name=model, detector_backend="skip",
                                   enforce_detection=False)
        vectors.append(found[0]["embedding"])
    return np.array(vectors, dtype=np.float32)


def cosine_distance(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 - cosine of each pair of embeddings (N, F): DeepFace's "distance", lower is more alike."""
    a, b = np.asarray(restored, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    return 1 - (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def verified(threshold: float, restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where the distance of embeddings (N, F) is at most a library's threshold, else 0."""
    return (cosine_distance(restored, truth) <= threshold).astype(np.float64)


_CUT = "8-bit RGB, both cut alike by the ground truth's landmarks"
for _model, (_weights, _short, _size, _threshold) in _MODELS.items():
    _feature = f"{'' if _model == 'Dlib' else 'deepface-'}{_short}-chip@1"
    _network = f"{'dlib' if _short == 'dlib' else _model}'s network"
    _other = "its network is dlib's, which is not the paper's" if _short == "dlib" else ""
    feature(Feature(_feature, dlib_embeddings if _model == "Dlib" else partial(_deepface, _model),
                    (_weights,), aligned=True, single_core=_model != "Dlib"))
    metric(Metric(f"ids.cosine@{_short}", "IDS" if _short == "dlib" else f"IDS ({_model})", -1,
                  "identity", cosine_distance, feature=_feature, paper="ids", other=_other,
                  words=f"1 - cosine of the embeddings by {_network}; {_CUT}"))
    metric(Metric(f"idv.{_threshold}@{_short}", "IDV" if _short == "dlib" else f"IDV ({_model})",
                  +1, "identity",
                  partial(verified, _threshold), feature=_feature, digits=1, percent=True,
                  paper="idv_percent", other=_other,
                  words=f"share at a distance of {_threshold} or less by {_network}; {_CUT}"))
