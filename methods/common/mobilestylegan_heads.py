"""Small images of the face generator: linear heads on its features, where 1024 px are not needed.

The generator has one head, behind 512 px. A head of ours reads an image of 64 or 256 px off the
features of 32 or 128 px, by least squares on the generator's own images, downsampled by areas. What
later layers decide (colours in part) it cannot know: on held-out styles it is at 21.9 and 25.1 dB
of the downsampled image, for a fortieth and a fifth of its time (the card has the spread).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.mobilestylegan import LICENCE, WIDTHS, Synthesis
from fsrbench.weights.catalogue import Bundled, WeightFile, register, require
from fsrbench.weights.networks import load_strict, read_state

HEADS = register(WeightFile(
    "mobilestylegan-heads", "mobilestylegan-heads.safetensors", "", LICENCE,
    "small images of the face generator", (Bundled(),)))
# Layers behind which a head of that side reads.
LAYERS = {64: 3, 256: 5}
# Keeps what few images do not decide near nothing, as a share of the features' mean square.
_RIDGE = 1e-6


class LinearHead(nn.Module):
    """An image (N, 3, 2h, 2h), about -1 to 1, of features (N, C, h, h)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(12, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(F.conv2d(x, self.weight, self.bias), 2)


@lru_cache(maxsize=4)
def load_head(size: int, place: str = "cpu") -> LinearHead:
    """The head of that side."""
    state = read_state(require(HEADS.name))
    own = {key.removeprefix(f"{size}."): value for key, value in state.items()
           if key.startswith(f"{size}.")}
    with torch.inference_mode(False):
        return load_strict(LinearHead(WIDTHS[LAYERS[size] - 1]), own, HEADS.name).to(place)


def small_image(synthesis: Synthesis, style: torch.Tensor, size: int) -> torch.Tensor:
    """Images (N, 3, size, size) of styles (N, 512) or (N, 8, 512), not clipped.

    Args:
        size: 64 or 256.
    """
    return load_head(size, str(style.device))(synthesis.features(style, LAYERS[size]))


def downsampled(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images (N, 3, S, S) at that side, by means of areas."""
    return F.avg_pool2d(images, images.shape[-1] // size)


@torch.no_grad()
def fit_head(synthesis: Synthesis, styles: torch.Tensor, size: int, batch: int = 4,
             image: Callable[[int, int], torch.Tensor] | None = None) -> LinearHead:
    """A head by least squares on the images of styles (N, 8, 512).

    Args:
        image: images of the styles from one position to another, where they are at hand.
    """
    products, wanted = 0, 0
    for start in range(0, len(styles), batch):
        part = styles[start:start + batch]
        x = synthesis.features(part, LAYERS[size])
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1).transpose(0, 1).flatten(1)
        whole = image(start, start + batch) if image else synthesis(part)
        y = F.pixel_unshuffle(downsampled(whole, size), 2).transpose(0, 1).flatten(1)
        products, wanted = products + (x @ x.T).double(), wanted + (x @ y.T).double()
    ridge = _RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=torch.float64)
    solved = torch.linalg.solve(products + ridge, wanted).T.float()
    head = LinearHead(solved.shape[1] - 1)
    head.load_state_dict({"weight": solved[:, :-1, None, None], "bias": solved[:, -1]})
    return head
