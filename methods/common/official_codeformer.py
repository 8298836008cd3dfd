"""The official CodeFormer (by spandrel), which StableSR's face model also starts from."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn as nn

from fsrbench.core import Batch, Part
from fsrbench.imaging import enlarged_by_opencv
from fsrbench.weights.catalogue import Url, WeightFile, register

LICENCE = "S-Lab 1.0, non-commercial (sczhou/CodeFormer)"
# The authors' default for aligned faces: 0 goes by the codes alone, 1 by the input.
FIDELITY = 0.5
# Side of its images.
SIDE = 512

register(WeightFile(
    "codeformer", "codeformer.pth", "", LICENCE,
    "codeformer.official, and the reference image of stablesr.official-face",
    (Url("https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/codeformer.pth"),)))


def official() -> nn.Module:
    """The official network: (N, 3, 512, 512) in [-1, 1] to (N, 3, 512, 512), not clipped."""
    from spandrel_extra_arches.architectures.CodeFormer import CodeFormer

    class Network(CodeFormer):
        def forward(self, x: torch.Tensor, w: float = FIDELITY) -> torch.Tensor:
            # Its argument is `weight`; `w` would be ignored without a word.
            return super().forward(x, weight=w)[0]
    network = Network()
    network.quantize.get_codebook_feat = partial(codes, network.quantize.embedding)
    return network


def codes(book: nn.Embedding, indices: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Vectors (N, C, H, W) of a codebook by index; spandrel multiplies the book by ones and zeros
    that it makes on the processor.

    Args:
        shape: (N, H, W, C).
    """
    return book(indices.flatten()).view(shape).permute(0, 3, 1, 2).contiguous()


NETWORK = Part("codeformer", official, lambda: (torch.zeros(1, 3, SIDE, SIDE),))


def enlarged(batch: Batch) -> torch.Tensor:
    """I_L (N, 3, 512, 512) in [0, 1] as the authors' script makes it: bilinear, by OpenCV."""
    return torch.from_numpy(enlarged_by_opencv(batch.lr, SIDE, "linear"))
