"""PSNR and SSIM on 8-bit RGB and on luma, one value an image (a table's PSNR is the mean of these,
never pooled)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.metrics import Metric, metric
from fsrbench.weights.places import placed


def psnr(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, over all pixels and channels of each image; 100 dB for
    identical images."""
    restored, truth = placed(restored, truth)
    mse = (restored.double() - truth.double()).square().mean((1, 2, 3))
    return (-10 * mse.clamp_min(1e-10).log10()).cpu().numpy()


def ssim(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window, sigma 1.5, valid positions,
    mean over channels.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)`.
    """
    restored, truth = placed(restored, truth)
    channels, offsets = restored.shape[1], torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-offsets**2 / (2 * 1.5**2))
    window = (window / window.sum()).repeat(channels, 1, 1).to(restored.device)

    def blur(x):
        return F.conv2d(F.conv2d(x, window[:, :, :, None], groups=channels), window[:, :, None],
                        groups=channels)
    a, b, c1, c2 = restored.double(), truth.double(), 0.01**2, 0.03**2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    index = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) \
        / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return index.mean((1, 2, 3)).cpu().numpy()


def luma(images: torch.Tensor) -> torch.Tensor:
    """Y (N, 1, H, W) of ITU-R BT.601 in 16 to 235, as shares of 255, of RGB (N, 3, H, W) in [0, 1];
    not rounded."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64)
    return ((images.double() * weights[:, None, None]).sum(1, keepdim=True) + 16) / 255


def psnr_y(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """`psnr` of luma; the peak is 255, as is usual, though luma ends at 235."""
    return psnr(luma(restored), luma(truth))


def ssim_y(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """`ssim` of luma, by a range of 255."""
    return ssim(luma(restored), luma(truth))


_RGB = "8-bit RGB in 0 to 255, mean over channels, no border cropped"
_LUMA = "luma Y of BT.601 in 16 to 235, not rounded, no border cropped"
_WINDOW = "11x11 Gaussian window of sigma 1.5"
metric(Metric("psnr.rgb", "PSNR", +1, "pair", psnr, digits=2, paper="psnr",
              words=f"dB by a peak of 255, {_RGB}"))
metric(Metric("ssim.rgb-gauss11", "SSIM", +1, "pair", ssim, paper="ssim",
              words=f"{_WINDOW}, {_RGB}"))
metric(Metric("psnr-y.bt601", "PSNR-Y", +1, "pair", psnr_y, digits=2,
              words=f"dB by a peak of 255, {_LUMA}"))
metric(Metric("ssim-y.bt601-gauss11", "SSIM-Y", +1, "pair", ssim_y, words=f"{_WINDOW}, {_LUMA}"))
