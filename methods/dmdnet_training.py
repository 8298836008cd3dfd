"""`invoke train --what dmdnet`: the mini DMDNet, on pairs of pictures of one person."""

from __future__ import annotations

import numpy as np
import torch

from fsrbench.core import PROFILES
from fsrbench.faces.template import template
from fsrbench.methods.dmdnet import MINI_DMD, DmdNet, part_boxes
from fsrbench.methods.picture_loss import picture_loss
from fsrbench.methods.reference_training import Pairs, PairTask
from fsrbench.train import trainable


@trainable("dmdnet")
class DmdTask(PairTask):
    """The mini DMDNet: every second step goes by the generic dictionary alone."""

    name = "dmdnet"
    deviations = ("the generic dictionary is learned by gradient; one reference in training",)

    def network(self) -> torch.nn.Module:
        """The network."""
        return DmdNet(MINI_DMD)

    @staticmethod
    def boxes(points: np.ndarray) -> torch.Tensor:
        """Boxes of all faces; those of the mean face where a part leaves the picture."""
        size, found = MINI_DMD.size, []
        for face in points:
            try:
                found.append(part_boxes(face, size))
            except ValueError:
                found.append(part_boxes(template(size, PROFILES["mini"].frame), size))
        return torch.from_numpy(np.stack(found))

    def restored(self, model: torch.nn.Module, pairs: Pairs) -> torch.Tensor:
        """With one reference."""
        dictionaries = model.memorise(pairs.references, self.boxes(pairs.reference_points), [1] * len(pairs.y))
        return model(pairs.y, self.boxes(pairs.points), dictionaries)

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """L1 and LPIPS, the dictionary as the step says."""
        pairs = self.pairs(step, batch, self.bank)
        restored = self.restored(model, pairs) if step % 2 else model(pairs.y, self.boxes(pairs.points))
        return picture_loss(restored, pairs.x0)
