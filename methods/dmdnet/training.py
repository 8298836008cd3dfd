"""`invoke train --what dmdnet`: the mini network, on pairs of images of one person."""

from __future__ import annotations

import torch

from fsrbench.faces.geometry import template
from fsrbench.methods.common.image_loss import image_loss
from fsrbench.methods.common.reference_training import PairTask
from fsrbench.methods.dmdnet.boxes import part_boxes
from fsrbench.methods.dmdnet.network import MINI_DMD, PARTS, SCALES, DmdNet
from fsrbench.profiles import PROFILES
from fsrbench.training.bank import Bank
from fsrbench.training.tasks import Example, Stage, trainable

# --- DMDNet ---------------------------------------------------------------------------------------

def boxes_of(points: torch.Tensor, size: int, fallback: torch.Tensor) -> torch.Tensor:
    """`dmdnet.part_boxes` of a batch: int64 (N, 4, 4); `fallback` (4, 4) where a part leaves the
    image."""
    k = size / 512
    p = points.double().clamp(8 * k, 504 * k)
    rows = []
    for eye, brow in ((slice(36, 42), slice(17, 22)), (slice(42, 48), slice(22, 27))):
        c = p[:, eye].mean(1)
        above = 1.3 * (c[:, 1] - torch.minimum(p[:, brow, 1].amin(1), p[:, eye, 1].amin(1)))
        below = above / 1.9
        half = (above + below) / 2
        rows.append([c[:, 0] - half + k, c[:, 1] - above + k, c[:, 0] + half, c[:, 1] + below])
    c = p[:, 29:36].mean(1)
    half, below = 1.25 * torch.maximum(c[:, 0] - p[:, 31, 0],
                                       p[:, 35, 0] - c[:, 0]), 1.1 * (p[:, 33, 1] - c[:, 1])
    rows.append([c[:, 0] - half + k, c[:, 1] - (2 * half - below) + k, c[:, 0] + half,
                 c[:, 1] + below])
    mouth = p[:, 48:68]
    c, reach = mouth.mean(1), 1.1 * ((mouth.amax(1) - mouth.amin(1)).amax(-1) / 2).clamp(min=16 * k)
    rows.append([*(c - reach[:, None] + k).unbind(1), *(c + reach[:, None]).clamp(max=510 * k)
                 .unbind(1)])
    found = torch.stack([torch.stack(row, -1) for row in rows], 1).trunc().long()
    used = torch.stack([found[:, i] for i in PARTS.values()], 1)
    coarse = used.div(max(SCALES.values()), rounding_mode="floor")
    outside = (used[..., :2] < 0).flatten(1).any(1) | (used[..., 2:] > size).flatten(1).any(1)
    empty = (coarse[..., 2:] <= coarse[..., :2]).flatten(1).any(1)
    return torch.where((outside | empty)[:, None, None], fallback, found)


@trainable("dmdnet")
class DmdTask(PairTask):
    """The mini DMDNet: half of each batch goes by the generic dictionary alone."""

    deviations = ("the generic dictionary is learned by gradient; one reference in training",)
    stages = (Stage("dmdnet-mini", "dmdnet", goes_on="dmdnet-mini"),)

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        usual = part_boxes(template(MINI_DMD.size, PROFILES["mini"].frame), MINI_DMD.size)
        self.usual = torch.from_numpy(usual).to(self.device)

    def network(self) -> torch.nn.Module:
        """The network."""
        return DmdNet(MINI_DMD)

    def boxes(self, points: torch.Tensor) -> torch.Tensor:
        """Boxes of all faces; those of the mean face where a part leaves the image."""
        return boxes_of(points, MINI_DMD.size, self.usual)

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """With one reference."""
        own = model.remember(example["references"], self.boxes(example["reference_points"]))
        return model(example["y"], self.boxes(example["points"]), own)

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """L1 and LPIPS, half of the batch without the personal dictionary."""
        half = len(example["x0"]) // 2
        first, second = ({k: v[part] for k, v in example.items()}
                         for part in (slice(half), slice(half, None)))
        restored = torch.cat([model(first["y"], self.boxes(first["points"])),
                              self.restored(model, second)])
        loss = image_loss(restored, example["x0"])
        return loss, loss
