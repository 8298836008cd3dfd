"""ASFFNet's geometry: which reference is nearest, the landmark mask, the moving least squares
grid."""

from __future__ import annotations

import numpy as np

from fsrbench.methods.asffnet.network import AsffConfig

# Brows and eyes; mouth; everything but the jaw.
EYES, MOUTH, INNER = np.r_[17:27, 36:48], np.r_[48:68], np.r_[17:68]
EYES_WEIGHT, MOUTH_WEIGHT = 1.01, 1.49


def affine_residual(source: np.ndarray, target: np.ndarray) -> float:
    """Frobenius norm of what the best affine map of source (n, 2) onto target (n, 2) leaves."""
    design = np.c_[source, np.ones(len(source))]
    return float(np.linalg.norm(design @ np.linalg.lstsq(design, target, rcond=None)[0] - target))


def distances(points: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Weighted least squares of reference selection: how far each candidate's landmarks (R, 68, 2)
    are, eyes and mouth each mapped affinely, from the landmarks (68, 2) of I_L. The smallest is
    chosen."""
    return np.array([EYES_WEIGHT * affine_residual(c[EYES], points[EYES])
                     + MOUTH_WEIGHT * affine_residual(c[MOUTH], points[MOUTH]) for c in candidates])


def landmark_mask(points: np.ndarray, size: int) -> np.ndarray:
    """float32 (1, size, size): ones around each inner landmark, by three pixels at 512 and by as
    much of the face at other sizes."""
    mask, reach = np.zeros((1, size, size), np.float32), max(1, round(3 * size / 512))
    for x, y in points[INNER]:
        if 1 < x < size - 2 and 1 < y < size - 2:
            rows, columns = (slice(max(0, int(np.floor(v)) - reach), int(np.ceil(v)) + reach)
                             for v in (y, x))
            mask[0, rows, columns] = 1
    return mask


def mls_grid(reference: np.ndarray, points: np.ndarray, side: int) -> np.ndarray:
    """Where each node of I_L's features looks in the reference's: moving least squares, affine
    (Schaefer et al. 2006).

    Two official quirks are kept: the weights are those of the distances to the reference's points,
    and the grid is normalised by (g - side / 2) / (side / 2), half a node off either convention of
    `grid_sample`.

    Args:
        reference, points: (68, 2) landmarks in nodes, of reference and I_L.

    Returns:
        (side, side, 2) float32 in [-1, 1], x first; nodes that would look outside look at row or
        column 0 instead.
    """
    p, q = reference[INNER][:, ::-1], points[INNER][:, ::-1]
    v = np.stack(np.mgrid[0:side, 0:side], -1).reshape(-1, 1, 2).astype(np.float64)
    w = 1 / ((p - v)**2 + 1e-8).sum(-1, keepdims=True)
    total = w.sum(1, keepdims=True)
    p_mean, q_mean = (w * p).sum(1, keepdims=True) / total, (w * q).sum(1, keepdims=True) / total
    p_hat, q_hat = p - p_mean, q - q_mean
    mixed, own = (np.einsum("vn,vni,vnj->vij", w[..., 0], p_hat, other) for other in (q_hat, p_hat))
    found = ((v - q_mean) @ np.linalg.solve(mixed, own) + p_mean)[:, 0]
    found[(found < 0) | (found > side - 1)] = 0
    return ((found - side / 2) / (side / 2)).reshape(side, side, 2)[..., ::-1].astype(np.float32)


def conditions(reference: np.ndarray, points: np.ndarray, config: AsffConfig,
               size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mask and grid of one image, from landmarks in its pixels. Official coordinates are divided,
    not moved by half a pixel."""
    reduction = config.reduction
    return landmark_mask(points, size), mls_grid(reference / reduction, points / reduction,
                                                 size // reduction)
