"""The resizing between a benchmark's image and the side at which a network works."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def resized(images: torch.Tensor, size: int, mode: str = "bicubic") -> torch.Tensor:
    """Images (N, 3, H, W) at another side, antialiased; as they are where the side is right."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode=mode, antialias=True)
