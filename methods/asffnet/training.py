"""`invoke train --what asffnet`: the mini network, on pairs of images of one person."""

from __future__ import annotations

import torch

from fsrbench.methods.asffnet.network import MINI_ASFF, AsffNet
from fsrbench.methods.common.reference_training import PairTask
from fsrbench.training.bank import Faces
from fsrbench.training.draws import Draws
from fsrbench.training.tasks import Example, Stage, trainable

# --- ASFFNet --------------------------------------------------------------------------------------

# `asffnet.INNER` as a slice, which needs no tensor of positions.
_INNER = slice(17, 68)


def landmark_masks(points: torch.Tensor, size: int) -> torch.Tensor:
    """`asffnet.landmark_mask` of a batch: (N, 1, size, size)."""
    points, reach = points[:, _INNER], max(1, round(3 * size / 512))
    axis = torch.arange(size, device=points.device)
    used = ((points > 1) & (points < size - 2)).all(-1, keepdim=True)
    low, high = points.floor() - reach, points.ceil() + reach
    columns, rows = (((axis >= low[..., k:k + 1]) & (axis < high[..., k:k + 1]) & used).float()
                     for k in (0, 1))
    return torch.einsum("nky,nkx->nyx", rows, columns).clamp(max=1)[:, None]


def mls_grids(reference: torch.Tensor, points: torch.Tensor, side: int) -> torch.Tensor:
    """`asffnet.mls_grid` of a batch: (N, side, side, 2); where its equations have no solution, one
    of a matrix next to theirs."""
    p, q = (a[:, None, _INNER].flip(-1).double() for a in (reference, points))
    axis = torch.arange(side, device=points.device, dtype=torch.float64)
    v = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, -1, 1, 2)
    w = 1 / ((p - v).square() + 1e-8).sum(-1, keepdim=True)
    total = w.sum(2, keepdim=True)
    p_mean, q_mean = (w * p).sum(2, keepdim=True) / total, (w * q).sum(2, keepdim=True) / total
    p_hat, q_hat = p - p_mean, q - q_mean
    mixed, own = (torch.einsum("avn,avni,avnj->avij", w[..., 0], p_hat, other)
                  for other in (q_hat, p_hat))
    a, b, c, d = mixed[..., 0, 0], mixed[..., 0, 1], mixed[..., 1, 0], mixed[..., 1, 1]
    det = a * d - b * c
    det = torch.where(det.abs() < 1e-9, torch.full_like(det, 1e-9), det)[..., None, None]
    inverse = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) / det
    found = ((v - q_mean) @ (inverse @ own) + p_mean)[:, :, 0]
    found = torch.where((found < 0) | (found > side - 1), torch.zeros_like(found), found)
    return ((found - side / 2) / (side / 2)).reshape(-1, side, side, 2).flip(-1).float()


@trainable("asffnet")
class AsffTask(PairTask):
    """The mini ASFFNet."""

    deviations = ("pixels folded 2x2 at the entry",)
    stages = (Stage("asffnet-mini", "asffnet", goes_on="asffnet-mini"),)

    def network(self) -> torch.nn.Module:
        """The network."""
        return AsffNet(MINI_ASFF)

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """Also mask and grid."""
        return self.prepared(super().examples(draws, faces, n))

    @staticmethod
    def prepared(example: Example) -> Example:
        """With what the network needs of the landmarks."""
        size, reduction = example["x0"].shape[-1], MINI_ASFF.reduction
        grid = mls_grids(example["reference_points"] / reduction, example["points"] / reduction,
                         size // reduction)
        return {**example, "mask": landmark_masks(example["points"], size), "grid": grid}

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """With one reference."""
        example = self.prepared(example) if not model.training else example
        return model(example["y"], example["references"], example["mask"], example["grid"])
