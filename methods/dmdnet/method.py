"""DMDNet (Li et al., TPAMI 2022): eyes and mouth are restored by what a generic and a personal
dictionary hold of such parts.

Source: csxmli2016/DMDNet (CC BY-NC-SA 4.0), for 512 pixels, trained on CelebRef-HQ. The official
code restores one image at a time; here a batch is restored, each image with its own boxes and its
own person's dictionary.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from fsrbench.core import FaceImage, Part
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.references import ReferenceMethod, register_mini, register_tags
from fsrbench.methods.dmdnet.boxes import part_boxes
from fsrbench.methods.dmdnet.network import MINI_DMD, DmdConfig, DmdNet
from fsrbench.weights.catalogue import Url, WeightFile, register

LICENCE = ("CC BY-NC-SA 4.0 (csxmli2016/DMDNet); trained on CelebRef-HQ, perhaps on the paper's "
           "test people")
register(WeightFile("dmdnet", "DMDNet.pth", "", LICENCE, "dmdnet.official",
                    (Url("https://github.com/csxmli2016/DMDNet/releases/download/v1/DMDNet.pth"),)))


class DmdNetMethod(ReferenceMethod):
    """DMDNet with the person's own dictionary beside the generic one."""

    title, paper, origin = "DMDNet", "dmdnet", "DMDNet (TPAMI 2022), csxmli2016/DMDNet"
    config: DmdConfig

    def prepare(self, points: np.ndarray, references: tuple[FaceImage, ...]) -> tuple:
        """Boxes of I_L's parts, references, and boxes of theirs; references whose parts leave the
        image are not used."""
        boxes, (images, landmarks) = part_boxes(points, self.native), self.tensors(references)
        kept = {}
        for i, reference in enumerate(landmarks):
            try:
                kept[i] = part_boxes(reference, self.native)
            except ValueError:
                continue
        if not kept:
            raise ValueError("no reference shows eyes and mouth")
        return boxes, images[list(kept)], np.stack(list(kept.values()))

    def infer(self, lq: torch.Tensor, prepared: list) -> torch.Tensor:
        """The network on all samples at once, each with its own dictionary."""
        network, (boxes, images, reference_boxes) = self.part("network"), zip(*prepared)
        dictionaries = network.memorise(torch.cat(images).to(lq.device),
                                        torch.from_numpy(np.concatenate(reference_boxes))
                                        .to(lq.device),
                                        [len(i) for i in images])
        return network(lq, torch.from_numpy(np.stack(boxes)).to(lq.device), dictionaries)


def _inputs(size: int):
    box = torch.tensor([0, 0, size // 4, size // 4], device="cpu")
    return lambda: (torch.zeros(1, 3, size, size), box.expand(1, 4, 4))


register_mini("dmdnet")
register_tags(DmdNetMethod, "official", DmdConfig(), 512, LICENCE,
              Part("dmdnet", DmdNet, _inputs(512)))
register_tags(DmdNetMethod, "mini", MINI_DMD, 64, LFW_LICENCE,
              Part("dmdnet-mini", partial(DmdNet, MINI_DMD), _inputs(64)))
