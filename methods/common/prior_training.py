"""`invoke train --what prior`: the mini diffusion prior; and what the trainings of the mini
baselines share."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from fsrbench.methods.common.diffusion import (
    Tables,
    ddim_sample,
    ddim_timesteps,
    linear_schedule,
    respace,
)
from fsrbench.methods.common.image_loss import lpips
from fsrbench.methods.common.prior import MINI_PRIOR
from fsrbench.methods.common.unet import UNet
from fsrbench.rng import normal
from fsrbench.training.bank import Bank, Faces, Jitter
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTOR_ODDS, downsampled, upsampled
from fsrbench.training.tasks import Example, Stage, Task, sheet, trainable


class FaceTask(Task):
    """Faces, some of them grey, and I_L by a random bicubic factor."""

    jitter = Jitter(grey=0.35)

    def degraded(self, draws: Draws, faces: Faces, n: int) -> dict[str, torch.Tensor]:
        """x0 and I_L at HQ size `y` (n, 3, S, S) in [-1, 1]; `small`, see `downsampled`, and its
        `factor`."""
        images = faces.drawn(draws, n, self.jitter)
        factor = draws.choose(n, FACTOR_ODDS)
        small = downsampled(images, factor)
        return {"x0": images * 2 - 1, "y": upsampled(small, factor) * 2 - 1, "small": small,
                "factor": factor}

    def held(self, n: int) -> Example:
        """Held-out examples, always the same."""
        return self.examples(Draws(self.device).seed("shown", self.name), self.bank.held, n)


def psnr(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean PSNR of images (N, 3, S, S) in [-1, 1], clipped."""
    error = ((images.float().clamp(-1, 1) - truth) / 2).square().mean((1, 2, 3))
    return float((-10 * (error + 1e-6).log10()).mean())


@trainable("prior")
class PriorTask(FaceTask):
    """The mini prior, on v; its authors train on the noise alone, and LPIPS on the predicted x0 is
    this project's."""

    batch, lr, ema = 32, 8e-4, 0.9995
    stages = (Stage("prior-mini", "prior", budget=0.5, goes_on="prior-mini"),)
    # Weight of LPIPS on the predicted x0.
    perceptual = 0.0

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        self.tables = Tables(linear_schedule(), self.device)

    def network(self) -> torch.nn.Module:
        """The U-Net."""
        return UNet(MINI_PRIOR)

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """Faces, timesteps and noise."""
        x0 = faces.drawn(draws, n, self.jitter) * 2 - 1
        return {"x0": x0, "t": draws.stratified(n, 1000), "noise": draws.normal(*x0.shape)}

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error of v."""
        x0, t, noise = example["x0"], example["t"], example["noise"]
        x_t = self.tables.q_sample(x0, t, noise)
        v = model(x_t, t).float()
        error = (v - self.tables.v_target(x0, t, noise)).square().mean()
        if not self.perceptual:
            return error, error
        return error + self.perceptual * lpips(self.tables.x0_of_v(v, x_t, t), x0), error

    @torch.no_grad()
    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """32 samples in 20 DDIM steps."""
        kept = respace(linear_schedule(), ddim_timesteps(1000, 20))
        faces = ddim_sample(model, normal((32, 3, 64, 64), "picture").to(self.device), kept, "v")
        return sheet(list(faces.chunk(4)))

    def card(self) -> dict:
        """Configuration."""
        return {"config": asdict(MINI_PRIOR), "parameterisation": "v, linear betas, T = 1000",
                "perceptual": self.perceptual,
                "deviations": ["64-pixel faces of LFW instead of FFHQ at 256 or 512; v instead of "
                               "eps with learned variance",
                               "35 % of the training images turned grey"]}
