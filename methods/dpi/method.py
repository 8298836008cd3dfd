"""DPI (Diffusion Prior Interpolation, AAAI 2025): every second pixel of x_t is put there from I_L,
and mended as it goes.

Source: JerryYann/DPI, which states no licence. Its released effective eta is 0 and its thresholds
belong to 20 steps. Differences: the edge map is scaled per image, where the official code takes the
extremes over the batch (equal for its batch of one); images stay lossless, where it writes JPEG.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from fsrbench.core import Batch, Part
from fsrbench.imaging import to_uint8
from fsrbench.methods.common.diffusion import (
    Denoise,
    Draw,
    Schedule,
    ddim_step,
    ddim_timesteps,
    eps_of,
    predict,
    steps_of,
)
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.prior import ADM_FFHQ256, MINI, PriorMethod, respaced, unet_part
from fsrbench.methods.common.unet import UNetConfig
from fsrbench.methods.dpi.corrector import (
    MINI_CORRECTOR,
    NOTHING,
    OFFICIAL_CORRECTOR,
    STEP,
    Corrector,
    spread_on_grid,
)
from fsrbench.registry import method
from fsrbench.weights.catalogue import Bundled, WeightFile, register
from fsrbench.weights.networks import device

register(WeightFile("dpi-corrector", "Corrector8.pt", "",
                    "none stated (JerryYann/DPI): all rights reserved", "dpi.official"))
register(WeightFile("corrector-mini", "corrector-mini.safetensors", "", LFW_LICENCE,
                    "dpi.mini (`invoke train --what corrector`)", (Bundled(),)))

STEPS, ETA = 20, 0.0
# From this index on the known pixels are blended in where edges are, with weight index / FADE; the
# corrector is told index * STRIDE, its timestep of 20.
BLEND_FROM, FADE, STRIDE, EDGE_POWER = 7, 30, 50, 1.4
LUMA = (0.2989, 0.587, 0.114)


def edge_probability(C: torch.Tensor) -> torch.Tensor:
    """(N, 1, S/2, S/2) in [0, 1]: how much of an edge each known pixel is."""
    known = C[..., ::STEP, ::STEP]
    grey = sum(weight * known[:, i:i + 1] for i, weight in enumerate(LUMA))
    kernel = torch.tensor([[0., 1, 0], [1, -4, 1], [0, 1, 0]], device=C.device)[None, None]
    edges = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="reflect"), kernel).abs()
    low, high = edges.amin((1, 2, 3), keepdim=True), edges.amax((1, 2, 3), keepdim=True)
    # An image without any edge gives 0/0 in the official code; no pixel is an edge then.
    return ((edges - low) / (high - low).clamp_min(1e-12)) ** EDGE_POWER


def dpi_sample(denoise: Denoise, corrector: Callable, schedule: Schedule, C_0: torch.Tensor,
               x_T: torch.Tensor, draw: Draw,
               uniform: Draw, eta: float = ETA, parameterisation: str = "eps",
               seen: Callable[[int, torch.Tensor, torch.Tensor], None] = lambda i, x,
               C: None) -> torch.Tensor:
    """x0 (N, 3, S, S).

    Args:
        corrector: of (grid, timesteps (N,), given grid).
        C_0: the known pixels on their grid in [-1, 1], NOTHING elsewhere.
        draw: normal noise of a step, asked for only if eta is not 0.
        uniform: (N, 1, S/2, S/2) in [0, 1), for the blended steps.
        seen: called with index, x and C after each step but the last.
    """
    x, C = x_T, C_0
    for i in reversed(range(len(schedule))):
        index, _ = steps_of(schedule, x, i)
        x0 = predict(denoise, schedule, x, i, parameterisation).x0
        eps = eps_of(schedule, x0, x, index)
        noise = draw() if eta else None
        sampled = ddim_step(schedule, x0, eps, i, eta, noise)
        if i == 0:
            return sampled
        # Elementwise as in the official code: a corrected value of exactly NOTHING would drop that
        # pixel.
        on_grid = (C != NOTHING).float()
        known = ddim_step(schedule, C, eps, i, eta, noise)
        if i > BLEND_FROM:
            x = sampled * (1 - on_grid) + known * on_grid
        else:
            edges = torch.zeros_like(x[:, :1])
            edges[..., ::STEP, ::STEP] = (uniform() < edge_probability(C)).float()
            weight = i / FADE
            kept = weight * known * edges + (1 - weight) * sampled * edges
            x = known = sampled * (1 - edges) + kept
        t = torch.full((len(x),), i * STRIDE, dtype=torch.long, device=x.device)
        C = corrector(known * on_grid, t, C_0 * on_grid) * on_grid + NOTHING
        seen(i, x, C)
    raise ValueError("the schedule is empty")


def corrector_part(weights: str, config: UNetConfig) -> Part:
    """A corrector as a part; it takes the given grid beside the state."""
    plain = unet_part(weights, config, Corrector)
    return replace(plain, inputs=lambda: (*plain.inputs(), plain.inputs()[0]))


class Dpi(PriorMethod):
    """The sampler."""

    title, paper, nfe = "DPI", "dpi", STEPS
    origin = "DPI (AAAI 2025), JerryYann/DPI"

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """DPI's x0; the known pixels are upsampled from the LR image itself, not from `y`."""
        C_0 = spread_on_grid(list(to_uint8(batch.lr)), self.native).to(device())
        draw, family, blended = self.draws(batch), self.name.split(".")[0], iter(range(STEPS))
        side = self.native // STEP
        return dpi_sample(self.part("prior"), self.part("corrector"),
                          respaced(ddim_timesteps(1000, STEPS)), C_0, draw(),
                          draw, lambda: batch.uniform(family, "edges", next(blended), size=side)
                          .to(device()), parameterisation=self.parameterisation)


@method
class DpiOfficial(Dpi):
    """The FFHQ prior and the authors' corrector; the one of factor 8 serves all factors."""

    name, weights, licence = ("dpi.official", "official",
                              "none stated: all rights reserved; prior MIT")
    native = 256
    parts = {"prior": unet_part("ffhq-10m", ADM_FFHQ256),
             "corrector": corrector_part("dpi-corrector", OFFICIAL_CORRECTOR)}


@method
class DpiMini(Dpi):
    """The mini prior and corrector."""

    name, weights, profiles = "dpi.mini", "mini", ("mini",)
    native, parameterisation = 64, "v"
    parts = {"prior": MINI, "corrector": corrector_part("corrector-mini", MINI_CORRECTOR)}
    licence = "trained on LFW (research use)"
