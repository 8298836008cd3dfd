"""DR2 (Wang et al., CVPR 2023): diffuse I_L, denoise it under the guidance of its low frequencies,
then enhance.

Source: Kaldwin0106/DR2_Drgradation_Remover (MIT; its SPARNet part under Face-SPARNet's licence).
Differences from the official script: values beyond [-1, 1] are clipped, where its `saveImage` lets
them wrap; samples are batched, each with its own noise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from fsrbench.core import Batch, Part
from fsrbench.imaging import resize_matrix
from fsrbench.methods.common.diffusion import (
    Denoise,
    Draw,
    Schedule,
    posterior,
    predict,
    q_sample,
    spread_timesteps,
    steps_of,
)
from fsrbench.methods.common.prior import ADM_FFHQ256, MINI, PriorMethod, respaced, unet_part
from fsrbench.methods.common.resizing import resized, rule
from fsrbench.methods.common.restorer import RESTORER, blindly
from fsrbench.methods.dr2.network import SparNetHD2D
from fsrbench.registry import method
from fsrbench.weights.catalogue import WeightFile, register

register(WeightFile("sparnethd-dr2", "SPARNetHD_FFHQ_DR2aug.pth", "",
                    "Face-SPARNet's (CC BY-NC-SA 4.0)", "dr2.official"))

# The authors name (4, 22), (8, 35), (16, 35) for mild, medium and heavy degradation; the IDFSR
# paper names none. Factor -> N, the low-pass factor, and tau, the index of 100 at which the
# prediction is taken.
PARAMETERS = {4: (4, 22), 8: (8, 35), 16: (16, 35), 32: (16, 35)}
STEPS = 100


def start_index(N: int, tau: int) -> int:
    """omega, the index at which I_L is diffused, from N and tau by the official rule."""
    ahead = next((d for most, d in ((1, 5), (2, 10), (4, 20), (8, 25)) if N <= most), 30)
    return min(tau + ahead, STEPS - 1)


@lru_cache(maxsize=16)
def lowpass_matrix(size: int, N: int) -> torch.Tensor:
    """(size, size): MATLAB's bicubic down by N and up again, as one matrix along an axis."""
    return torch.from_numpy((resize_matrix(size // N, size) @ resize_matrix(size, size // N))
                            .astype(np.float32))


def lowpass(x: torch.Tensor, N: int) -> torch.Tensor:
    """phi_N(x): the low frequencies of (..., H, W) square images."""
    matrix = lowpass_matrix(x.shape[-1], N).to(x.device)
    return matrix @ x @ matrix.T


def dr2_sample(denoise: Denoise, schedule: Schedule, y: torch.Tensor, N: int, tau: int, omega: int,
               draw: Draw, parameterisation: str = "eps") -> torch.Tensor:
    """x0 (N, 3, S, S) in [-1, 1], predicted at index tau.

    Args:
        y: I_L at full size, in [-1, 1].
        draw: first for q(x_omega | y); then at each step for p and for the guide.
    """
    x = q_sample(schedule, y, steps_of(schedule, y, omega)[0], draw())
    for i in range(omega, tau, -1):
        step = predict(denoise, schedule, x, i, parameterisation)
        mean, log_variance = posterior(schedule, step.x0, x, i, step.spread)
        x = mean + (0.5 * log_variance).exp() * draw()
        guide = q_sample(schedule, y, steps_of(schedule, y, i - 1)[0], draw())
        x = x + lowpass(guide - x, N) if N > 1 else guide
    return predict(denoise, schedule, x, tau, parameterisation).x0


class Dr2(PriorMethod):
    """DR2 without an enhancer.

    Class attributes:
        parameters: N and tau of a factor.
    """

    paper, nfe, parameters = None, 31, PARAMETERS
    origin = "DR2 (CVPR 2023), Kaldwin0106/DR2_Drgradation_Remover"

    def settings(self) -> str:
        """N and tau of each factor."""
        return f"parameters={self.parameters}"

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """DR2's x0."""
        N, tau = self.parameters[batch.scale]
        schedule = respaced(spread_timesteps(1000, STEPS))
        return dr2_sample(self.part("prior"), schedule, y, N, tau, start_index(N, tau),
                          self.draws(batch), self.parameterisation)


@method
class Dr2OfficialRaw(Dr2):
    """The authors' prior, its prediction as it is."""

    name, title, weights = "dr2.official-raw", "DR2, no enhancer", "official"
    parts, native = {"prior": unet_part("dr2-ffhq256", ADM_FFHQ256)}, 256
    licence = "MIT"


@method
class Dr2Official(Dr2OfficialRaw):
    """The authors' prior and SPARNetHD."""

    name, title, paper = "dr2.official", "DR2", "dr2"
    parts = {**Dr2OfficialRaw.parts,
             "enhancer": Part("sparnethd-dr2", SparNetHD2D, lambda: (torch.zeros(1, 3, 512, 512),))}
    licence = "MIT; SPARNetHD CC BY-NC-SA 4.0"

    def resizing(self) -> str:
        """To the prior's side, the enhancer's, and back."""
        return rule(self.profile.size, (self.native, 512))

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """DR2's x0, enhanced at 512."""
        return self.part("enhancer")(resized(super().sample(y, batch), 512))


@method
class Dr2MiniRaw(Dr2):
    """The mini prior, its prediction as it is."""

    name, title, weights, profiles = "dr2.mini-raw", "DR2, no enhancer", "mini", ("mini",)
    parts, native, parameterisation = {"prior": MINI}, 64, "v"
    # LPIPS on held-out people of LFW with the enhancer, x8 and x16: .123 and .175 at tau 8, .134
    # and .170 at 20, .158 and .187 at 35; 22, not measured itself, is the nearest that its authors
    # name.
    parameters = {scale: (N, 22) for scale, (N, _) in PARAMETERS.items()}
    licence = "trained on LFW (research use)"
    remark = "tau 22, the authors' for mild degradation, at all factors: chosen on LFW"


@method
class Dr2Mini(Dr2MiniRaw):
    """The mini prior, and the mini restorer as enhancer."""

    name, title, paper = "dr2.mini", "DR2", "dr2"
    parts = {**Dr2MiniRaw.parts, "enhancer": RESTORER}

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """DR2's x0, enhanced."""
        return blindly(self.part("enhancer"), super().sample(y, batch))
