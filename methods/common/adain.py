"""Adaptive instance normalisation (Huang & Belongie 2017), as CodeFormer, StableSR, ASFFNet512 and
DMDNet write it."""

import torch


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel (N, C, 1, 1); the variance is unbiased and 1e-5 larger, as
    in the official code."""
    return x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + 1e-5).sqrt()


def adain(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Content features with the mean and deviation of each channel of the style's."""
    (mean, deviation), (style_mean, style_deviation) = moments(content), moments(style)
    return (content - mean) / deviation * style_deviation + style_mean
