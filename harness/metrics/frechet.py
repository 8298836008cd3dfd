"""Distances between feature sets, Frechet's and the unbiased kernel's: FID and KID (clean-fid's
Inception), and stand-ins on features that can be had.

FID here is restored images against the ground truths of the same samples, not against FFHQ. Of N
images it is biased by N, in F > N dimensions by most of its value; KID is not, so it stands beside.
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
    (Url("https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
         "inception-2015-12-05.pt"),)))


SUBSETS = 100


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the Gaussians of two feature sets (N, F) and (M, F), in float64.

    |mu_a - mu_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2)). With centred, scaled features A and
    B the last trace is the nuclear norm of A B^T, exactly: singular values of an (N, M) matrix
    instead of the root of an (F, F) one.
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


def _terms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What each two pairs of features (N, F) add to the squared MMD, (N, N), 0 on the diagonal; by
    the kernel (x y / F + 1)^3."""
    a, b = (np.asarray(x, dtype=np.float64) / np.sqrt(x.shape[1]) for x in (a, b))
    cross = (a @ b.T + 1) ** 3
    terms = (a @ a.T + 1) ** 3 + (b @ b.T + 1) ** 3 - cross - cross.T
    np.fill_diagonal(terms, 0)
    return terms


def _mean(terms: np.ndarray) -> float:
    return float(terms.sum() / (len(terms) * (len(terms) - 1)))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy of features (N, F) and their partners, unbiased (Gretton et
    al. 2012, their equation 4).

    KID (Binkowski et al. 2018) but for the pairs (i, i) across the sets, which are no independent
    draws here.
    """
    return _mean(_terms(a, b))


def kernel_deviation(a: np.ndarray, b: np.ndarray) -> float:
    """Standard deviation of `kernel_distance` over `SUBSETS` draws of half of the pairs, at most
    1,000; NaN of under four."""
    from fsrbench.rng import numpy_rng

    n, rng = len(a), numpy_rng("kernel distance", len(a))
    if n < 4:
        return float("nan")
    terms, drawn = _terms(a, b), (rng.choice(n, min(n // 2, 1000), replace=False)
                                  for _ in range(SUBSETS))
    return float(np.std([_mean(terms[np.ix_(part, part)]) for part in drawn], ddof=1))


@lru_cache(maxsize=2)
def _inception(place: str):
    from cleanfid.inception_torchscript import InceptionV3W

    return InceptionV3W(str(require("inception-fid").parent), download=False,
                        resize_inside=False).eval().to(place)


def inception_features(images: list[np.ndarray], _contexts: list) -> np.ndarray:
    """clean-fid's Inception features (N, 2048): PIL bicubic to 299, as its mode "clean"."""
    import torch
    from cleanfid.resize import build_resizer

    from fsrbench.weights.places import exact_device, placed

    resize = build_resizer("clean")
    x = torch.from_numpy(np.stack([resize(image) for image in images])).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        return _inception(exact_device())(*placed(x)).cpu().numpy()


_CLEAN = f"inception-clean@{version('clean-fid')}"
feature(Feature(_CLEAN, inception_features, ("inception-fid",)))


def _register(frechet: str, kernel: str, of: str, features: str, words: str,
              stands_in: bool) -> None:
    """Both distances on one network's features; where it is not Inception, as stand-ins."""
    title = "-AlexNet" if stands_in else ""
    metric(Metric(f"{frechet}.{of}@gt", frechet.upper() + title, -1, "set", frechet_distance,
                  feature=features, digits=2,
                  paper="" if stands_in else "fid", stand_in="FID" if stands_in else "", of_n=True,
                  words=(
                      f"{words} of all images of a row; while these are not many more than the "
                      f"dimensions it falls as they "
                      "grow in number (the same faces: 1,942 at 5, 843 at 30), so only rows of as "
                      "many images compare")))
    metric(Metric(f"{kernel}.{of}@gt", kernel.upper() + title, -1, "set", kernel_distance,
                  feature=features, spread=True,
                  stand_in="KID" if stands_in else "", deviation=kernel_deviation, words=(
                      f"{words} of all images of a row, unbiased, so it does not depend on their "
                      f"number; ± is the deviation "
                      f"over {SUBSETS} draws of half of them")))


_register("fid", "kid", "clean", _CLEAN, "clean-fid's Inception, 2,048 dimensions,", False)
_register("fd", "kd", "alexnet", "alexnet-pooled@1",
          "AlexNet's five pooled layers, 1,152 dimensions,", True)
