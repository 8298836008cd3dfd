"""`invoke train --what asffnet` and `--what dmdnet`: the mini reference-based networks, on pairs of images of one person."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from fsrbench.core import PROFILES
from fsrbench.faces.template import template
from fsrbench.methods.asffnet import MINI_ASFF, AsffNet
from fsrbench.methods.dmdnet import MINI_DMD, PARTS, SCALES, DmdNet, part_boxes
from fsrbench.methods.picture_loss import LPIPS_WEIGHT, picture_loss
from fsrbench.methods.prior_training import FaceTask
from fsrbench.training.bank import Bank, Faces
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTOR_ODDS, FACTORS, downsampled, upsampled
from fsrbench.training.loop import held_out, sheet
from fsrbench.training.tasks import Example, trainable


class PairTask(FaceTask):
    """Ground truth and reference are two images of one person, of those people who have two."""

    batch, lr, ema = 32, 5e-4, 0.999
    deviations: tuple[str, ...] = ()

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0, init: str | None = None):
        super().__init__(bank, device, seed, init)
        # A third faster on a processor for these networks; those with group norm are slower so.
        self.model.to(memory_format=torch.channels_last)

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """x0, I_L `y` and references (n, 3, S, S) in [-1, 1]; landmarks of both, those of I_L with a detector's errors: half
        of the faces moved as a whole, points a little each."""
        index = faces.draw(draws, n, 1.0)
        partner, grey = faces.partner(draws, index), draws.coins(n, self.jitter.grey)
        images, points = faces.crops(draws, index, self.jitter, draws.coins(n, self.jitter.flip), grey)
        references, marks = faces.crops(draws, partner, self.jitter, draws.coins(n, self.jitter.flip), grey)
        factor = draws.choose(n, FACTOR_ODDS)
        moved = draws.normal(n, 1, 2) * 0.5 * draws.coins(n, 0.5)[:, None, None] + draws.normal(n, 68, 2) * 0.3
        return {"x0": images * 2 - 1, "y": upsampled(downsampled(images, factor), factor) * 2 - 1,
                "references": references * 2 - 1, "points": points + moved, "reference_points": marks}

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """The network's x0."""
        raise TypeError(f"{self.name} has no network")

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """L1 and LPIPS."""
        loss = picture_loss(self.restored(model, example), example["x0"])
        return loss, loss

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Held-out loss; loss of 128 held-out images with the right references and with those of others (`wrong`), and of
        their bicubic upsampling (`base`)."""
        example = self.held(128)
        wrong = {**example, **{name: example[name].roll(1, 0) for name in ("references", "reference_points")}}
        return {"held_out": held_out(self, model),
                **{name: float(picture_loss(self.restored(model, given), given["x0"]))
                   for name, given in (("loss", example), ("wrong", wrong))},
                "base": float(picture_loss(example["y"], example["x0"]))}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: I_L, restored, ground truth, reference of 16 held-out images."""
        example = self.held(16)
        return sheet([example["y"], self.restored(model, example), example["x0"], example["references"]])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(self.model.config), "factors": FACTORS, "factor_odds": FACTOR_ODDS, "deviations": [
            f"64-pixel faces of LFW; L1 and {LPIPS_WEIGHT} LPIPS (AlexNet) instead of perceptual, style and adversarial "
            "losses; bicubic factors instead of blind degradation; no spectral norm", *self.deviations]}


# --- ASFFNet ------------------------------------------------------------------------------------------------------

# `asffnet.INNER` as a slice, which needs no tensor of positions.
_INNER = slice(17, 68)


def landmark_masks(points: torch.Tensor, size: int) -> torch.Tensor:
    """`asffnet.landmark_mask` of a batch: (N, 1, size, size)."""
    points, reach = points[:, _INNER], max(1, round(3 * size / 512))
    axis = torch.arange(size, device=points.device)
    used = ((points > 1) & (points < size - 2)).all(-1, keepdim=True)
    low, high = points.floor() - reach, points.ceil() + reach
    columns, rows = (((axis >= low[..., k:k + 1]) & (axis < high[..., k:k + 1]) & used).float() for k in (0, 1))
    return torch.einsum("nky,nkx->nyx", rows, columns).clamp(max=1)[:, None]


def mls_grids(reference: torch.Tensor, points: torch.Tensor, side: int) -> torch.Tensor:
    """`asffnet.mls_grid` of a batch: (N, side, side, 2); where its equations have no solution, one of a matrix next to
    theirs."""
    p, q = (a[:, None, _INNER].flip(-1).double() for a in (reference, points))
    axis = torch.arange(side, device=points.device, dtype=torch.float64)
    v = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, -1, 1, 2)
    w = 1 / ((p - v).square() + 1e-8).sum(-1, keepdim=True)
    total = w.sum(2, keepdim=True)
    p_mean, q_mean = (w * p).sum(2, keepdim=True) / total, (w * q).sum(2, keepdim=True) / total
    p_hat, q_hat = p - p_mean, q - q_mean
    mixed, own = (torch.einsum("avn,avni,avnj->avij", w[..., 0], p_hat, other) for other in (q_hat, p_hat))
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
        grid = mls_grids(example["reference_points"] / reduction, example["points"] / reduction, size // reduction)
        return {**example, "mask": landmark_masks(example["points"], size), "grid": grid}

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """With one reference."""
        example = self.prepared(example) if not model.training else example
        return model(example["y"], example["references"], example["mask"], example["grid"])


# --- DMDNet -------------------------------------------------------------------------------------------------------

def boxes_of(points: torch.Tensor, size: int, fallback: torch.Tensor) -> torch.Tensor:
    """`dmdnet.part_boxes` of a batch: int64 (N, 4, 4); `fallback` (4, 4) where a part leaves the image."""
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
    half, below = 1.25 * torch.maximum(c[:, 0] - p[:, 31, 0], p[:, 35, 0] - c[:, 0]), 1.1 * (p[:, 33, 1] - c[:, 1])
    rows.append([c[:, 0] - half + k, c[:, 1] - (2 * half - below) + k, c[:, 0] + half, c[:, 1] + below])
    mouth = p[:, 48:68]
    c, reach = mouth.mean(1), 1.1 * ((mouth.amax(1) - mouth.amin(1)).amax(-1) / 2).clamp(min=16 * k)
    rows.append([*(c - reach[:, None] + k).unbind(1), *(c + reach[:, None]).clamp(max=510 * k).unbind(1)])
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

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0, init: str | None = None):
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
        first, second = ({k: v[part] for k, v in example.items()} for part in (slice(half), slice(half, None)))
        restored = torch.cat([model(first["y"], self.boxes(first["points"])), self.restored(model, second)])
        loss = picture_loss(restored, example["x0"])
        return loss, loss
