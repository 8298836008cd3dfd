"""Blur kernels of blind restoration, as BasicSR (Apache-2.0) defines them: six bell shapes and the
2-D sinc.

A kernel is float64 (k, k), k odd, of sum 1, over integer offsets d = (x, y) from its centre, x
along columns. With the covariance S = U diag(sigma_x^2, sigma_y^2) U^T, U the rotation by theta,
and m = d^T S^-1 d:

    iso, aniso                           exp(-m / 2)
    generalized_iso, generalized_aniso   exp(-m^beta / 2)
    plateau_iso, plateau_aniso           1 / (1 + m^beta)
"""

from __future__ import annotations

import numpy as np

KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")


def _offsets(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x of columns (1, k) and y of rows (k, 1)."""
    steps = np.arange(size, dtype=np.float64) - size // 2
    return steps[None, :], steps[:, None]


def blur_kernel(kind: str, size: int, sigma_x: float, sigma_y: float | None = None,
                theta: float = 0.0, beta: float = 1.0) -> np.ndarray:
    """A bell-shaped kernel.

    Args:
        kind: one of KINDS; an isotropic one takes sigma_x only.
        size: k, odd.
        sigma_x, sigma_y: deviations in pixels along the rotated axes.
        theta: rotation in radians.
        beta: shape of the generalized and plateau kernels.
    """
    x, y = _offsets(size)
    if kind.endswith("aniso"):
        u, v = np.cos(theta) * x + np.sin(theta) * y, np.cos(theta) * y - np.sin(theta) * x
        m = (u / sigma_x) ** 2 + (v / sigma_y) ** 2
    else:
        m = (x**2 + y**2) / sigma_x**2
    if kind.startswith("plateau"):
        kernel = 1 / (1 + m**beta)
    else:
        kernel = np.exp(-0.5 * (m**beta if kind.startswith("generalized") else m))
    return kernel / kernel.sum()


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """The ideal circular low-pass, cut to (k, k): it rings, as sharpened and recompressed images
    do.

    Args:
        cutoff: omega_c in radians per pixel; pi lets everything pass.
    """
    from scipy.special import j1

    x, y = _offsets(size)
    distance = np.sqrt(x**2 + y**2)
    distance[size // 2, size // 2] = 1  # of the centre, whose limit is set below
    kernel = cutoff * j1(cutoff * distance) / (2 * np.pi * distance)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    return kernel / kernel.sum()


def padded(kernel: np.ndarray, size: int) -> np.ndarray:
    """A kernel with zeros around it, to (size, size)."""
    return np.pad(kernel, (size - len(kernel)) // 2)
