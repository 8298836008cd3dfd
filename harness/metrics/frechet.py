"""Frechet distances between feature sets: FID (clean-fid's Inception), and a stand-in on features that can be had.

FID here is restored pictures against the ground truths of the same samples, not against FFHQ.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version

import numpy as np

from fsrbench.metrics import Feature, Metric, feature, metric
from fsrbench.weights.catalogue import Url, WeightFile, register, require

INCEPTION = register(WeightFile(
    "inception-fid", "inception-2015-12-05.pt", "",
    "NVIDIA (StyleGAN3 metrics), redistributed by clean-fid's authors", "FID",
    (Url("https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"),)))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the Gaussians of two feature sets (N, F) and (M, F), in float64.

    |mu_a - mu_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2)). With centred, scaled features A and B the last trace is
    the nuclear norm of A B^T, exactly: singular values of an (N, M) matrix instead of the root of an (F, F) one.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    A, B = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    if min(len(a), len(b)) <= a.shape[1]:
        cross = np.linalg.svd(A @ B.T, compute_uv=False).sum()
    else:
        # tr((C_a C_b)^(1/2)) = nuclear norm of R_a R_b^T with the triangular factors A = Q R.
        cross = np.linalg.svd(np.linalg.qr(A, "r") @ np.linalg.qr(B, "r").T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (A**2).sum() + (B**2).sum() - 2 * cross)


@lru_cache(maxsize=1)
def _inception():
    from cleanfid.inception_torchscript import InceptionV3W

    return InceptionV3W(str(require("inception-fid").parent), download=False, resize_inside=False).eval()


def inception_features(images: list[np.ndarray], _contexts: list) -> np.ndarray:
    """clean-fid's Inception features (N, 2048): PIL bicubic to 299, as its mode "clean"."""
    import torch
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    x = torch.from_numpy(np.stack([resize(image) for image in images])).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        return _inception()(x).numpy()


_CLEAN = f"inception-clean@{version('clean-fid')}"
feature(Feature(_CLEAN, inception_features, ("inception-fid",)))
metric(Metric("fid.clean@gt", "FID", -1, "set", frechet_distance, feature=_CLEAN, digits=2,
              paper="fid"))
metric(Metric("fd.alexnet@gt", "FD-AlexNet", -1, "set", frechet_distance, feature="alexnet-pooled@1", digits=2,
              stand_in="FID"))
