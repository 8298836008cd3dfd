"""IR-50 networks that judge identity: TreB1eN's IR-SE-50 and AdaFace.

Chips of 112 px cut by ArcFace's five points, in [-1, 1]; embeddings (N, 512) of length one, in
float32. Source: TreB1eN/InsightFace_Pytorch, mk-minchul/AdaFace (structure and key names); Kim et
al., CVPR 2022.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn as nn

from fsrbench.core import Part
from fsrbench.faces.align import arcface_frame, sample
from fsrbench.imaging import to_float
from fsrbench.methods.common.arcface import IRBackbone
from fsrbench.weights.networks import load_part

SIDE, AT_ONCE = 112, 16


class AdaFace(IRBackbone):
    """IR-50 with a normalisation in front of each unit's PReLU, and a last one that learns
    nothing. Input BGR."""

    def __init__(self):
        super().__init__(se=False)
        for unit in self.body:
            unit.res_layer.insert(2, nn.BatchNorm2d(unit.res_layer[1].out_channels))
        self.output_layer[4] = nn.BatchNorm1d(512, affine=False)


def _input() -> tuple[torch.Tensor]:
    return (torch.zeros(1, 3, SIDE, SIDE),)


# A file of AdaFace is a checkpoint of its training, which holds the classes' centres as well.
PARTS = {"arcface-irse50": Part("arcface-irse50", IRBackbone, _input),
         **{name: Part(name, AdaFace, _input, prefix="model.")
            for name in ("adaface-ir50-ms1mv2", "adaface-ir50-webface4m")}}


@torch.no_grad()
def embedded(weights: str, images: list[np.ndarray], contexts: list[np.ndarray]) -> np.ndarray:
    """Embeddings (N, 512) of the chips that landmarks (68, 2) cut of uint8 RGB images.

    Raises:
        FsrError: the weights are missing or of another network.
    """
    network = load_part(PARTS[weights])
    place = next(network.parameters()).device
    chips = np.stack([sample(image, arcface_frame(points, SIDE), SIDE)
                      for image, points in zip(images, contexts)])
    x = torch.from_numpy(to_float(chips)) * 2 - 1
    x = x.flip(1) if isinstance(network, AdaFace) else x
    return torch.cat([network(some.to(place)).cpu() for some in x.split(AT_ONCE)]).numpy()
