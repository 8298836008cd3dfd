"""`invoke train --what restorer` and `--what corrector`: the regressions that the `mini` baselines
need beside the prior."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from fsrbench.methods.common.diffusion import Tables, linear_schedule
from fsrbench.methods.common.prior_training import FaceTask, psnr
from fsrbench.methods.common.restorer import BLIND, MINI_RESTORER, blindly
from fsrbench.methods.common.unet import UNet
from fsrbench.training.bank import Bank, Faces
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTOR_ODDS, FACTORS
from fsrbench.training.tasks import Example, Stage, held_out, sheet, trainable


@trainable("restorer")
class RestorerTask(FaceTask):
    """The mini restorer: half of the examples with x_t, half without. Mean squared error, as its
    authors train."""

    batch, lr, ema = 32, 6e-4, 0.9995
    stages = (Stage("restorer-mini", "restorer", budget=0.5, goes_on="restorer-mini"),)

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        self.tables = Tables(linear_schedule(), self.device)

    def network(self) -> torch.nn.Module:
        """The U-Net of six channels."""
        return UNet(MINI_RESTORER)

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """Faces, I_L, and x_t at timesteps, or zeros at the last."""
        made = self.degraded(draws, faces, n)
        t, blind = draws.stratified(n, 1000), draws.coins(n, 0.5)
        x_t = self.tables.q_sample(made["x0"], t, draws.normal(*made["x0"].shape))
        return {**made, "x_t": torch.where(blind[:, None, None, None], 0.0, x_t),
                "t": torch.where(blind, BLIND, t)}

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error of x0."""
        output = model(torch.cat([example["x_t"], example["y"]], 1), example["t"])
        error = (output.float() - example["x0"]).square().mean()
        return error, error

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Held-out loss; PSNR of 256 held-out images without x_t, and of their bicubic upsampling
        (`base`)."""
        example = self.held(256)
        return {"held_out": held_out(self, model), "psnr": psnr(blindly(model, example["y"]),
                                                                example["x0"]),
                "base": psnr(example["y"], example["x0"])}

    @torch.no_grad()
    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, restored, ground truth of 16 held-out images."""
        example = self.held(16)
        return sheet([example["y"], blindly(model, example["y"]), example["x0"]])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_RESTORER), "factors": FACTORS, "factor_odds": FACTOR_ODDS,
                "deviations": [
            "one U-Net instead of SwinIR (DifFace), RRDBNet (PGDiff) and SPARNetHD (DR2); 64-pixel "
            "faces of LFW",
            "trained on bicubic factors instead of blind degradation; as an enhancer not on "
            "outputs of DR2"]}
