"""The resizing between a benchmark's image and the side at which a network works."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def rule(size: int, sides: Sequence[int], way: str = "antialiased bicubic",
         back: str = "antialiased bicubic") -> str:
    """`Method.resizing` in words.

    Args:
        size: side of the benchmark's images; sides: at which the networks work, in their order.
        way: how I_L comes to the first of them; back: how their result comes back.
    """
    path = [side for side, before in zip((*sides, size), (size, *sides)) if side != before]
    if not path:
        return ""
    ways = way if way == back else f"{way}, back by {back}"
    return f"{' -> '.join(map(str, (size, *path)))} px by {ways}"


def resized(images: torch.Tensor, size: int, mode: str = "bicubic") -> torch.Tensor:
    """Images (N, 3, H, W) at another side, antialiased; as they are where the side is right."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode=mode, antialias=True)
