"""PSNR and SSIM on 8-bit RGB, one value an image (a table's PSNR is the mean of these, never pooled)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.metrics import Metric, metric


def psnr(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, over all pixels and channels of each image; 100 dB for identical images."""
    mse = (restored.double() - truth.double()).square().mean((1, 2, 3))
    return (-10 * mse.clamp_min(1e-10).log10()).numpy()


def ssim(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window, sigma 1.5, valid positions, mean over RGB.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.
    """
    offsets = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-offsets**2 / (2 * 1.5**2))
    window = (window / window.sum()).repeat(3, 1, 1)

    def blur(x):
        return F.conv2d(F.conv2d(x, window[:, :, :, None], groups=3), window[:, :, None], groups=3)
    a, b, c1, c2 = restored.double(), truth.double(), 0.01**2, 0.03**2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    index = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) \
        / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return index.mean((1, 2, 3)).numpy()


metric(Metric("psnr.rgb", "PSNR", +1, "pair", psnr, digits=2, paper="psnr"))
metric(Metric("ssim.rgb-gauss11", "SSIM", +1, "pair", ssim, paper="ssim"))
