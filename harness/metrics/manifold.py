"""Precision and recall of a set of images (Kynkaanniemi et al., NeurIPS 2019), and FID against a
file of statistics.

Precision is the share of restored images that lie within the k-nearest-neighbour balls of the
ground truths, recall the share of ground truths within the balls of the restored; generated and
real cannot be swapped, as they can between releases of torch-fidelity. On the features that
FSRBench has, which the ids name: the paper's VGG-16 classifier is not among them.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

import numpy as np
import torch

from fsrbench.errors import FsrError
from fsrbench.metrics import Metric, metric
from fsrbench.weights.catalogue import Url, WeightFile, register, require

NEIGHBOURS = 3
_ROWS = 1024

FFHQ_512 = register(WeightFile(
    "ffhq-512-clean", "ffhq_clean_trainval70k_512.npz", "", "not stated (pyiqa's file)",
    "FID against FFHQ at 512 px, with the weights inception-fid",
    (Url("https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
         "ffhq_clean_trainval70k_512.npz"),)))


def _radii(features: torch.Tensor) -> torch.Tensor:
    """Distance of each vector to its k-th nearest other, (N,)."""
    k = min(NEIGHBOURS, len(features) - 1) + 1  # the nearest is itself
    return torch.cat([torch.cdist(part, features).kthvalue(k, dim=1).values
                      for part in features.split(_ROWS)])


def covered(features: np.ndarray, by: np.ndarray) -> float:
    """Share of vectors (N, F) that lie within a ball of others (M, F), each as wide as its k-th
    neighbour is far."""
    a, b = (torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)) for x in (features, by))
    radii = _radii(b)
    inside = [(torch.cdist(part, b) <= radii).any(1) for part in a.split(_ROWS)]
    return float(torch.cat(inside).double().mean())


def precision(restored: np.ndarray, truth: np.ndarray) -> float:
    """Share of restored images that could be ground truths."""
    return covered(restored, truth)


def recall(restored: np.ndarray, truth: np.ndarray) -> float:
    """Share of ground truths that could be restored images."""
    return covered(truth, restored)


def read_statistics(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and covariance (F, F) in a catalogued file.

    Raises:
        FsrError: it holds something else.
    """
    try:
        with np.load(require(name), allow_pickle=False) as known:
            mean, covariance = known["mu"].astype(np.float64), known["sigma"].astype(np.float64)
    except (KeyError, ValueError) as error:
        raise FsrError(f"weights {name}", f"hold no mu and sigma ({error})",
                       "fetch the file again") from None
    if covariance.shape != (len(mean), len(mean)):
        raise FsrError(f"weights {name}", "hold a mu and a sigma that do not fit", "")
    return mean, covariance


def frechet_to(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """Frechet distance of features (N, F) from a Gaussian, in float64: with centred, scaled
    features A the trace of the root is that of (A C A^T)^(1/2), exactly."""
    x = np.asarray(features, dtype=np.float64)
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    own = (centred**2).sum()
    if len(x) > x.shape[1]:
        centred = np.linalg.qr(centred, "r")
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(centred @ covariance @ centred.T), 0, None)).sum()
    return float(((x.mean(0) - mean) ** 2).sum() + own + np.trace(covariance) - 2 * roots)


def _to_file(statistics: str, restored: np.ndarray, _same: np.ndarray) -> float:
    return frechet_to(restored, *read_statistics(statistics))


_HOW = f"balls of {NEIGHBOURS} neighbours, restored images against ground truths"
for _short, _feature, _stands in (("clean", f"inception-clean@{version('clean-fid')}", ""),
                                  ("alexnet", "alexnet-pooled@1", "VGG-16's")):
    for _name, _function in (("precision", precision), ("recall", recall)):
        metric(Metric(f"{_name}.{_short}-k{NEIGHBOURS}@gt",
                      _name.capitalize() + "-AlexNet" * bool(_stands), +1, "set", _function,
                      feature=_feature, of_n=True,
                      stand_in=_stands and f"{_name} on {_stands} features",
                      words=f"{'AlexNet' if _stands else 'Inception'}'s features, {_HOW}"))
metric(Metric("fid-ffhq512.clean@70k", "FID-FFHQ", -1, "set",
              partial(_to_file, FFHQ_512.name), feature=f"inception-clean@{version('clean-fid')}",
              weight_files=(FFHQ_512.name,), digits=2, of_n=True, alone=True,
              words="clean-fid's Inception against the statistics of FFHQ's 70,000 images at 512 "
                    "px; biased by the number of images"))
