"""`invoke train --what asffnet` and `--what dmdnet`: the mini reference-based networks, on pairs of
images of one person."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from fsrbench.methods.common.image_loss import LPIPS_WEIGHT, image_loss
from fsrbench.methods.common.prior_training import FaceTask
from fsrbench.training.bank import Bank, Faces
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTOR_ODDS, FACTORS, downsampled, upsampled
from fsrbench.training.tasks import Example, held_out, sheet


class PairTask(FaceTask):
    """Ground truth and reference are two images of one person, of those people who have two."""

    batch, lr, ema = 32, 5e-4, 0.999
    deviations: tuple[str, ...] = ()

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        # A third faster on a processor for these networks; those with group norm are slower so.
        self.model.to(memory_format=torch.channels_last)

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """x0, I_L `y` and references (n, 3, S, S) in [-1, 1]; landmarks of both, those of I_L with
        a detector's errors: half of the faces moved as a whole, points a little each."""
        index = faces.draw(draws, n, 1.0)
        partner, grey = faces.partner(draws, index), draws.coins(n, self.jitter.grey)
        images, points = faces.crops(draws, index, self.jitter, draws.coins(n, self.jitter.flip),
                                     grey)
        references, marks = faces.crops(draws, partner, self.jitter,
                                        draws.coins(n, self.jitter.flip), grey)
        factor = draws.choose(n, FACTOR_ODDS)
        moved = (draws.normal(n, 1, 2) * 0.5 * draws.coins(n, 0.5)[:, None, None]
                 + draws.normal(n, 68, 2) * 0.3)
        return {"x0": images * 2 - 1, "y": upsampled(downsampled(images, factor), factor) * 2 - 1,
                "references": references * 2 - 1, "points": points + moved,
                "reference_points": marks}

    def restored(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """The network's x0."""
        raise TypeError(f"{self.name} has no network")

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """L1 and LPIPS."""
        loss = image_loss(self.restored(model, example), example["x0"])
        return loss, loss

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Held-out loss; loss of 128 held-out images with the right references and with those of
        others (`wrong`), and of their bicubic upsampling (`base`)."""
        example = self.held(128)
        wrong = {**example, **{name: example[name].roll(1, 0)
                               for name in ("references", "reference_points")}}
        return {"held_out": held_out(self, model),
                **{name: float(image_loss(self.restored(model, given), given["x0"]))
                   for name, given in (("loss", example), ("wrong", wrong))},
                "base": float(image_loss(example["y"], example["x0"]))}

    @torch.no_grad()
    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: I_L, restored, ground truth, reference of 16 held-out images."""
        example = self.held(16)
        return sheet([example["y"], self.restored(model, example), example["x0"],
                      example["references"]])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(self.model.config), "factors": FACTORS, "factor_odds": FACTOR_ODDS,
                "deviations": [
            f"64-pixel faces of LFW; L1 and {LPIPS_WEIGHT} LPIPS (AlexNet) instead of perceptual, "
            f"style and adversarial "
            "losses; bicubic factors instead of blind degradation; no spectral norm",
            *self.deviations]}
