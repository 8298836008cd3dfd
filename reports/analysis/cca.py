"""Canonical correlations of two embeddings: in-sample as is common, held out, and what chance gives
(paper E.5).

In-sample canonical correlations are maxima over as many free directions as there are dimensions.
For independent Gaussians their squares follow Wachter's law ("The limiting empirical measure of
multiple discriminant ratios", 1980), which depends on dimensions / N alone and is far from zero
unless N is much larger than the dimensions.
"""

from __future__ import annotations

import numpy as np

from fsrbench.rng import numpy_rng

# Added to each covariance, as a share of its mean eigenvalue. 0.1 keeps the whitening of a hundred
# images in 512 dimensions finite and leaves well-determined directions as they are.
RIDGE = 0.1


def canonical_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """In-sample canonical correlations of x (N, p) and y (N, q), descending; as many as the smaller
    rank.

    By SVD: the singular values of Q_x^T Q_y for orthonormal bases of the centred columns.
    """
    return np.clip(np.linalg.svd(_basis(x).T @ _basis(y), compute_uv=False), 0, 1)


def _basis(values: np.ndarray) -> np.ndarray:
    centred = np.asarray(values, dtype=np.float64) - values.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u[:, s > s[0] * max(centred.shape) * np.finfo(np.float64).eps] if len(s) else u


def _whitener(centred: np.ndarray, ridge: float) -> np.ndarray:
    """(p, r) map whose output has unit covariance up to the ridge, onto the r directions that
    vary."""
    _, s, directions = np.linalg.svd(centred / np.sqrt(len(centred) - 1), full_matrices=False)
    keep = s > s[0] * 1e-10
    return directions[keep].T / np.sqrt(s[keep]**2 + ridge * np.square(s).sum() / centred.shape[1])


def directions(x: np.ndarray, y: np.ndarray, ridge: float = RIDGE) -> tuple[np.ndarray, np.ndarray]:
    """Regularised canonical directions (p, k) and (q, k), strongest first."""
    a, b = (v - v.mean(0) for v in (np.asarray(x, dtype=np.float64),
                                    np.asarray(y, dtype=np.float64)))
    white_a, white_b = _whitener(a, ridge), _whitener(b, ridge)
    u, _, v = np.linalg.svd(white_a.T @ (a.T @ b / (len(a) - 1)) @ white_b, full_matrices=False)
    return white_a @ u, white_b @ v.T


def held_out_correlations(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None,
                          folds: int = 5, ridge: float = RIDGE, seed: int = 0) -> np.ndarray:
    """Correlations (k,) of the k canonical pairs on data that did not choose them, signed, the mean
    over folds.

    Args:
        groups: (N,) what must not be on both sides of a split (people); None where samples are
            independent.
        folds: at most the number of groups.
    """
    codes = np.arange(len(x)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold = numpy_rng("cca", seed).permutation(codes.max() + 1)[codes] % min(folds, codes.max() + 1)
    found = []
    for f in range(fold.max() + 1):
        train, held = fold != f, fold == f
        a, b = directions(x[train], y[train], ridge)
        found.append(_columnwise_correlation(x[held] @ a, y[held] @ b))
    k = min(map(len, found))
    return np.mean([values[:k] for values in found], axis=0)


def _columnwise_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return np.where(scale > 1e-12, (a * b).sum(0) / np.maximum(scale, 1e-12), 0.0)


def chance(p: int, q: int, n: int) -> float:
    """Mean in-sample canonical correlation of independent Gaussians, min(p, q) of them: the mean of
    Wachter's law.

    Args:
        p, q: dimensions; n: samples. Exact as they grow together, within 0.01 from about twenty
            dimensions on.
    """
    from scipy.integrate import quad

    small, large = sorted((p / (n - 1), q / (n - 1)))
    if large >= 1:
        return 1.0
    certain = max(0.0, small + large - 1) / small  # the two spans share directions
    root = np.sqrt(small * (1 - large)), np.sqrt(large * (1 - small))
    low, high = (root[0] - root[1])**2, (root[0] + root[1])**2
    # x = middle + half sin(t) takes the density's square-root edges away.
    middle, half = (low + high) / 2, (high - low) / 2

    def integrand(t: float) -> float:
        at = middle + half * np.sin(t)
        return np.sqrt(at) * (half * np.cos(t))**2 / (2 * np.pi * small * at * (1 - at))
    return certain + quad(integrand, -np.pi / 2, np.pi / 2, limit=200)[0]


def needed(mean: float, dimensions: int, n: int) -> tuple[int, int]:
    """What an in-sample mean below `mean` takes for independent data: (samples at these dimensions
    on both sides, dimensions at these samples)."""
    samples = next(m for m in range(2 * dimensions, 1000 * dimensions, 50)
                   if chance(dimensions, dimensions, m) < mean)
    few = [d for d in range(1, n // 2) if chance(d, d, n) < mean]
    return samples, max(few, default=0)
