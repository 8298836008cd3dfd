"""`invoke train --what corrector`: DPI's corrector."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.methods.common.diffusion import Tables, linear_schedule
from fsrbench.methods.common.prior_training import FaceTask
from fsrbench.methods.dpi.corrector import MINI_CORRECTOR, NOTHING, STEP, Corrector, grid_of
from fsrbench.training.bank import Bank, Faces
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTOR_ODDS, FACTORS
from fsrbench.training.tasks import Example, Stage, held_out, sheet, trainable


@lru_cache(maxsize=4)
def _grid_matrices(size: int, device: str) -> torch.Tensor:
    """Bicubic matrices (factors, grid, size), as PIL's, from I_L in the upper left corner to the
    grid."""
    side, found = size // STEP, []
    for factor in FACTORS:
        k, matrix = size // factor, torch.zeros(size // STEP, size)
        resized = F.interpolate(torch.eye(k)[None, None], size=(side, k), mode="bicubic",
                                antialias=True)[0, 0]
        matrix[:, :k] = resized
        found.append(matrix)
    return torch.stack(found).to(device)


def on_grid(small: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """`corrector.spread_on_grid` of what `downsampled` gave: (N, 3, S, S) in [-1, 1], `NOTHING` off
    the grid."""
    matrices = _grid_matrices(small.shape[-1], str(small.device))[factor][:, None]
    values = ((matrices @ small @ matrices.transpose(-1, -2)).clamp(0, 1) * 255
              + 0.5).floor() / 127.5 - 1
    spread = torch.full_like(small, NOTHING)
    spread[..., ::STEP, ::STEP] = values
    return spread


@trainable("corrector")
class CorrectorTask(FaceTask):
    """The mini corrector of DPI, by the loss of its authors."""

    batch, lr, ema = 32, 6e-4, 0.9995
    stages = (Stage("corrector-mini", "corrector", budget=0.5, goes_on="corrector-mini"),)

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init)
        schedule = linear_schedule()
        before, betas, variance = (schedule.alpha_bar_prev, schedule.betas,
                                   schedule.posterior_variance)
        self.tables, self.mask = Tables(schedule,
                                        self.device), grid_of(self.bank.train.size).to(self.device)
        # Of the posterior of x_{t-1} given x0 and x_t, see `diffusion.posterior_at`.
        self.posterior = [torch.from_numpy(table).float().to(self.device) for table in (
            betas * np.sqrt(before) / (1 - schedule.alpha_bar), (1 - before) * np.sqrt(1 - betas)
            / (1 - schedule.alpha_bar), np.sqrt(np.append(variance[1:2], variance[1:])))]

    def network(self) -> torch.nn.Module:
        """The corrector."""
        return Corrector(MINI_CORRECTOR)

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """True and given grids, and the state at a timestep, all zero off the grid."""
        made = self.degraded(draws, faces, n)
        given, t = on_grid(made["small"], made["factor"]), draws.stratified(n, 1000)
        first, second, deviation = (table[t].reshape(-1, 1, 1, 1) for table in self.posterior)
        noisy = self.tables.q_sample(given, t, draws.normal(*given.shape))
        state = first * given + second * noisy + deviation * draws.normal(*given.shape)
        return {"true": made["x0"] * self.mask, "given": given * self.mask, "state": state
                * self.mask, "t": t}

    def corrected(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """What the network makes of the given grid, zero off it."""
        return model(example["state"], example["t"], example["given"]).float() * self.mask

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error on the grid; positions off it count as zeros, as in the official
        loss."""
        error = (self.corrected(model, example) - example["true"]).square().mean()
        return error, error

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Held-out loss; mean squared error on the grid of 256 held-out images, of the corrected
        and of the given values."""
        example = self.held(256)
        made, true, given = self.corrected(model, example), example["true"], example["given"]
        return {"held_out": held_out(self, model), "mse": float((made - true).square().mean()
                                                                * STEP**2),
                "base": float((given - true).square().mean() * STEP**2)}

    @torch.no_grad()
    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: given, corrected, true grids of 16 held-out images."""
        example = self.held(16)
        rows = (example["given"], self.corrected(model, example), example["true"])
        return sheet([row[..., ::STEP, ::STEP] for row in rows])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_CORRECTOR), "factors": FACTORS, "factor_odds": FACTOR_ODDS,
                "deviations": [
            "64-pixel faces of LFW; one corrector for all factors, where the authors train one for "
            "each"]}
