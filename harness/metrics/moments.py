"""PSNR and SSIM as VQFR's script has them: after each channel of the output was given the ground
truth's mean and deviation, neither clipped nor rounded. Never beside plain ones in one column."""

from __future__ import annotations

import numpy as np
import torch

from fsrbench.metrics import Metric, metric
from fsrbench.metrics.pixel import psnr, ssim


def matched(restored: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) whose channels have the mean and the deviation of the truth's; a channel
    of one value gets the mean."""
    a, b = restored.double(), truth.double()
    (deviation, mean), (wanted, centre) = (torch.std_mean(x, (2, 3), correction=0, keepdim=True)
                                           for x in (a, b))
    return (a - mean) / deviation.clamp_min(1e-12) * wanted + centre


def psnr_moments(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """`psnr` of matched colours."""
    return psnr(matched(restored, truth), truth)


def ssim_moments(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """`ssim` of matched colours."""
    return ssim(matched(restored, truth), truth)


_WORDS = "8-bit RGB after each channel got the ground truth's mean and deviation, no border cropped"
metric(Metric("psnr-moments.rgb", "PSNR (matched)", +1, "pair", psnr_moments, digits=2,
              words=f"dB by a peak of 255, {_WORDS}"))
metric(Metric("ssim-moments.rgb-gauss11", "SSIM (matched)", +1, "pair", ssim_moments,
              words=f"11x11 Gaussian window of sigma 1.5, {_WORDS}"))
