"""LPIPS as a training loss: of the `mini` regressions beside L1, and of IDFSR's on the predicted
x0."""

from __future__ import annotations

import copy
from functools import lru_cache

import torch

from fsrbench.training.footprint import really

# LPIPS is about three times the L1 of images in [-1, 1]; at this weight both pull about alike.
LPIPS_WEIGHT = 0.25


@really
@lru_cache(maxsize=2)
def _network(device: str) -> torch.nn.Module:
    from fsrbench.metrics.perceptual import network

    return copy.deepcopy(network()).to(device)


def lpips(restored: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """LPIPS (AlexNet) of images (N, 3, S, S) in [-1, 1], its mean."""
    return _network(str(truth.device))(restored.float(), truth).float().mean()


def image_loss(restored: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """L1 and weighted LPIPS (AlexNet) of images (N, 3, S, S) in [-1, 1]."""
    restored = restored.float()
    return (restored - truth).abs().mean() + LPIPS_WEIGHT * lpips(restored, truth)
