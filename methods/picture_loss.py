"""The picture loss of the `mini` regressions: L1 and LPIPS."""

from __future__ import annotations

import torch

from fsrbench.metrics.perceptual import network

# LPIPS is about three times the L1 of pictures in [-1, 1]; at this weight both pull about alike.
LPIPS_WEIGHT = 0.25


def picture_loss(restored: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """L1 and weighted LPIPS (AlexNet) of pictures (N, 3, S, S) in [-1, 1]."""
    restored = restored.float()
    return (restored - truth).abs().mean() + LPIPS_WEIGHT * network()(restored, truth).float().mean()
