"""DifFace (Yue & Loy, TPAMI 2024): a regression's estimate is diffused part of the way, and
denoised again.

Source: zsyOAOA/DifFace (S-Lab License 1.0, non-commercial). The IDFSR paper writes "DiffFace".
"""

from __future__ import annotations

from functools import partial

import torch

from fsrbench.core import Batch, Part
from fsrbench.methods.common.diffusion import (
    Denoise,
    Draw,
    Schedule,
    ddim_step,
    ddim_timesteps,
    predict,
    q_sample,
    steps_of,
)
from fsrbench.methods.common.prior import IDDPM, MINI, PriorMethod, respaced
from fsrbench.methods.common.restorer import RESTORER, blindly
from fsrbench.methods.difface.network import SWINIR, swinir
from fsrbench.registry import method
from fsrbench.weights.catalogue import Url, WeightFile, register

LICENCE = "S-Lab 1.0, non-commercial (zsyOAOA/DifFace)"
register(WeightFile(
    "swinir-difface", "swinir_restoration512_L1.pth", "", LICENCE, "difface.official",
    (Url("https://github.com/zsyOAOA/DifFace/releases/download/V1.0/"
         "swinir_restoration512_L1.pth"),)))

# The authors' defaults: of 250 kept steps the last 100, half of DDPM's noise.
KEPT, START, ETA = 250, 100, 0.5


def difface_sample(denoise: Denoise, schedule: Schedule, estimated: torch.Tensor, start: int,
                   eta: float, draw: Draw, parameterisation: str = "eps") -> torch.Tensor:
    """x0 (N, 3, S, S), not clipped, from an estimate in [-1, 1].

    The estimate is diffused to index `start`, but the first call is at `start` - 1, and eps is the
    network's own and not that of the clipped x0: both as in the official loop.
    """
    x = q_sample(schedule, estimated, steps_of(schedule, estimated, start)[0], draw())
    for i in reversed(range(start)):
        step = predict(denoise, schedule, x, i, parameterisation)
        x = ddim_step(schedule, step.x0, step.eps, i, eta, draw() if i else None)
    return x


class DifFace(PriorMethod):
    """The sampler with an estimate of `y`.

    Class attributes:
        start: index of the kept steps at which the estimate is diffused.
    """

    title, paper, start, nfe = "DifFace", "difface", START, START
    origin = "DifFace (TPAMI 2024), zsyOAOA/DifFace"

    def estimate(self, y: torch.Tensor) -> torch.Tensor:
        """The regression's x0 (N, 3, S, S) in [-1, 1]."""
        raise TypeError(f"{self.name} has no estimator")

    def settings(self) -> str:
        """Where it starts."""
        return f"start={self.start}"

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """DifFace's x0."""
        return difface_sample(self.part("prior"), respaced(ddim_timesteps(1000, KEPT)),
                              self.estimate(y), self.start, ETA,
                              self.draws(batch), self.parameterisation)


@method
class DifFaceOfficial(DifFace):
    """The authors' prior and SwinIR."""

    name, weights, licence = "difface.official", "official", LICENCE
    native = 512
    parts = {"prior": IDDPM,
             "estimator": Part("swinir-difface", partial(swinir, SWINIR),
                               lambda: (torch.zeros(1, 3, 512, 512),))}

    def estimate(self, y: torch.Tensor) -> torch.Tensor:
        """SwinIR's estimate."""
        return self.part("estimator")((y + 1) / 2).clamp(0, 1) * 2 - 1


@method
class DifFaceMini(DifFace):
    """The mini prior and the mini restorer."""

    name, weights, profiles = "difface.mini", "mini", ("mini",)
    parts, native, parameterisation = {"prior": MINI, "estimator": RESTORER}, 64, "v"
    # LPIPS on held-out people of LFW, x8 and x16: .123 and .201 from 15, .110 and .164 from 30,
    # .107 and .145 from 50, .109 and .143 from 70, .122 and .145 from the authors' 100.
    start = nfe = 50
    licence = "trained on LFW (research use)"
    remark = "the last 50 of 250 steps instead of the authors' 100: chosen on LFW"

    def estimate(self, y: torch.Tensor) -> torch.Tensor:
        """The restorer's estimate."""
        return blindly(self.part("estimator"), y).clamp(-1, 1)
