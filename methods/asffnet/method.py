"""ASFFNet512: of a person's images the one whose landmarks fit best is warped onto I_L's and fused
with it where it helps.

Source: csxmli2016/ASFFNet512 (CC BY-NC-SA 4.0), the author's own network for 512 pixels, trained on
CelebRef-HQ; the code of the CVPR 2020 paper was never published.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from fsrbench.core import FaceImage, Part
from fsrbench.methods.asffnet.alignment import conditions, distances
from fsrbench.methods.asffnet.network import MINI_ASFF, AsffConfig, AsffNet
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.references import ReferenceMethod, register_mini, register_tags
from fsrbench.weights.catalogue import WeightFile, register

LICENCE = ("CC BY-NC-SA 4.0 (csxmli2016/ASFFNet512); trained on CelebRef-HQ, perhaps on the "
           "paper's test people")
register(WeightFile("asffnet512", "ASFFNet512.pth", "", LICENCE,
                    "asffnet.official (its authors share it by a cloud drive)"))


class AsffNetMethod(ReferenceMethod):
    """ASFFNet."""

    title, paper, origin = "ASFFNet", "asffnet", "ASFFNet (CVPR 2020), csxmli2016/ASFFNet512"
    config: AsffConfig

    def prepare(self, points: np.ndarray,
                references: tuple[FaceImage, ...]) -> tuple[torch.Tensor, ...]:
        """Reference, mask and grid; the reference is the one whose landmarks fit best."""
        images, landmarks = self.tensors(references)
        best = int(distances(points, np.stack(landmarks)).argmin())
        try:
            mask, grid = conditions(landmarks[best], points, self.config, self.native)
        except np.linalg.LinAlgError:
            raise ValueError("the landmarks do not span a face") from None
        return images[best], torch.from_numpy(mask), torch.from_numpy(grid)

    def infer(self, lq: torch.Tensor, prepared: list) -> torch.Tensor:
        """The network on all samples at once."""
        return self.part("network")(lq, *(torch.stack(column).to(lq.device)
                                          for column in zip(*prepared)))


def _inputs(config: AsffConfig, size: int):
    side = size // config.reduction
    return lambda: (torch.zeros(1, 3, size, size), torch.zeros(1, 3, size, size),
                    torch.zeros(1, 1, size, size), torch.zeros(1, side, side, 2))


register_mini("asffnet")
register_tags(AsffNetMethod, "official", AsffConfig(), 512, LICENCE,
              Part("asffnet512", AsffNet, _inputs(AsffConfig(), 512)))
register_tags(AsffNetMethod, "mini", MINI_ASFF, 64, LFW_LICENCE,
              Part("asffnet-mini", partial(AsffNet, MINI_ASFF), _inputs(MINI_ASFF, 64)))
