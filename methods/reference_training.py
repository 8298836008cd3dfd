"""Pairs of pictures of one person, for the trainings of the mini reference-based networks; `invoke train --what asffnet`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from fsrbench.bank import FaceBank
from fsrbench.methods.asffnet import MINI_ASFF, AsffNet, conditions
from fsrbench.methods.picture_loss import LPIPS_WEIGHT, picture_loss
from fsrbench.methods.prior_training import FaceTask
from fsrbench.methods.restorer_training import SCALE_ODDS, SCALES, enlarged, shrunk, strip
from fsrbench.rng import numpy_rng
from fsrbench.store import Store
from fsrbench.train import trainable


@dataclass
class Pairs:
    """N examples.

    Args:
        y, x0, references: (N, 3, S, S) in [-1, 1].
        points, reference_points: (N, 68, 2) landmarks, those of I_L as a detector might give them.
    """

    y: torch.Tensor
    x0: torch.Tensor
    references: torch.Tensor
    points: np.ndarray
    reference_points: np.ndarray


class PairTask(FaceTask):
    """Truth and reference are two pictures of one person, of those people who have two."""

    name: str
    deviations: tuple[str, ...] = ()

    def __init__(self, data: str, store: Store, seed: int = 0, init: str | None = None):
        super().__init__(data, store, seed, init)
        # A third faster on a processor for these networks; those with group norm are slower so.
        self.model.to(memory_format=torch.channels_last)

    def pairs(self, step: int, n: int, bank: FaceBank) -> Pairs:
        """The step's own examples."""
        rng = numpy_rng(self.seed, self.name, step)
        several = np.flatnonzero(np.bincount(bank.person)[bank.person] > 1)
        truth = rng.choice(several, n)
        chosen = np.concatenate([truth, [bank.partner(i, rng) for i in truth]])
        flip = rng.random(2 * n) < self.jitter.flip
        grey = np.tile(rng.random(n) < self.jitter.grey, 2)
        faces, points = bank.crops(chosen, bank.matrices(2 * n, self.jitter, rng), flip, grey)
        x0 = faces[:n] * 2 - 1
        y = enlarged(shrunk(faces[:n], rng), faces.shape[-1])
        return Pairs(y, x0, faces[n:] * 2 - 1, self.detected(points[:n], rng), points[n:])

    @staticmethod
    def detected(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """True landmarks with a detector's errors: half of the faces moved as a whole, points a little each."""
        moved = rng.normal(0, 0.5, (len(points), 1, 2)) * (rng.random((len(points), 1, 1)) < 0.5)
        return points + moved + rng.normal(0, 0.3, points.shape)

    def restored(self, model: torch.nn.Module, pairs: Pairs) -> torch.Tensor:
        """The network's x0."""
        raise TypeError(f"{self.name} has no network")

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """L1 and LPIPS."""
        pairs = self.pairs(step, batch, self.bank)
        return picture_loss(self.restored(model, pairs), pairs.x0)

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Loss on 128 held-out pictures, with the right references and with those of others (`wrong`)."""
        pairs = self.pairs(-1, 128, self.held_out)
        right = float(picture_loss(self.restored(model, pairs), pairs.x0))
        pairs.references, pairs.reference_points = pairs.references.roll(1, 0), np.roll(pairs.reference_points, 1, 0)
        return {"loss": right, "wrong": float(picture_loss(self.restored(model, pairs), pairs.x0)),
                "base": float(picture_loss(pairs.y, pairs.x0))}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: I_L, restored, truth, reference of 16 held-out pictures."""
        pairs = self.pairs(-1, 16, self.held_out)
        return strip([pairs.y, self.restored(model, pairs), pairs.x0, pairs.references])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(self.model.config), "scales": SCALES, "scale_odds": SCALE_ODDS, "deviations": [
            f"64-pixel faces of LFW; L1 and {LPIPS_WEIGHT} LPIPS (AlexNet) instead of perceptual, style and adversarial "
            "losses; bicubic factors instead of blind degradation; no spectral norm", *self.deviations]}


@trainable("asffnet")
class AsffTask(PairTask):
    """The mini ASFFNet."""

    name = "asffnet"
    deviations = ("pixels folded 2x2 at the entry",)

    def network(self) -> torch.nn.Module:
        """The network."""
        return AsffNet(MINI_ASFF)

    def restored(self, model: torch.nn.Module, pairs: Pairs) -> torch.Tensor:
        """With one reference."""
        made = [conditions(r, p, MINI_ASFF, pairs.y.shape[-1]) for r, p in zip(pairs.reference_points, pairs.points)]
        mask, grid = (torch.from_numpy(np.stack(column)) for column in zip(*made))
        return model(pairs.y, pairs.references, mask, grid)
