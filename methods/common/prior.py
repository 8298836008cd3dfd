"""The diffusion priors of DR2, DifFace, PGDiff and DPI: unconditional networks of faces, official
and `mini`.

One U-Net class serves all. The two official networks are ADM at FFHQ-256 (DR2, DPI; trained by
ILVR/P2 weighting) and iDDPM at FFHQ-512 (DifFace, PGDiff), both with learned variance; the `mini`
one is trained here, at 64 px, on v, with fixed variance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from fsrbench.core import Batch, Method, Part
from fsrbench.methods.common.diffusion import Draw, Schedule, linear_schedule, respace
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.resizing import resized, rule
from fsrbench.methods.common.unet import UNet, UNetConfig
from fsrbench.rng import ahead
from fsrbench.weights.catalogue import Bundled, Url, WeightFile, register
from fsrbench.weights.networks import device

ADM_FFHQ256 = UNetConfig(256, out_channels=6, num_res_blocks=1, num_head_channels=64)
IDDPM_FFHQ512 = UNetConfig(512, out_channels=6, model_channels=32,
                           channel_mult=(1, 2, 4, 8, 8, 16, 16),
                           num_res_blocks=(1, 2, 2, 2, 2, 3, 4), attention_sizes=(32, 16, 8),
                           num_head_channels=64, resblock_updown=False)
MINI_PRIOR = UNetConfig(64, model_channels=16, channel_mult=(1, 2, 4, 6), num_res_blocks=1,
                        attention_sizes=(16, 8),
                        num_head_channels=16, resblock_updown=False, group_channels=4)
_DIFFACE = "https://github.com/zsyOAOA/DifFace/releases/download/V1.0"

register(WeightFile("prior-mini", "prior-mini.safetensors", "", LFW_LICENCE,
                    "the mini versions of DR2, DifFace, PGDiff and DPI (`invoke train --what "
                    "prior`)", (Bundled(),)))
register(WeightFile("dr2-ffhq256", "DR2_FFHQ.pkl", "", "MIT (Kaldwin0106/DR2_Drgradation_Remover)",
                    "dr2.official"))
register(WeightFile("ffhq-10m", "ffhq_10m.pt", "",
                    "MIT (jychoi118/ilvr_adm, P2-weighting); DPI names no licence", "dpi.official"))
register(WeightFile("iddpm-ffhq512", "iddpm_ffhq512_ema500000.pth", "",
                    "S-Lab 1.0, non-commercial (zsyOAOA/DifFace)",
                    "difface.official, pgdiff.official",
                    (Url(f"{_DIFFACE}/iddpm_ffhq512_ema500000.pth"),)))


def unet_part(weights: str, config: UNetConfig, build: Callable[[UNetConfig],
                                                                torch.nn.Module] = UNet) -> Part:
    """A U-Net as a part of a method."""
    size = config.image_size
    return Part(weights, partial(build, config),
                lambda: (torch.zeros(1, config.in_channels, size, size),
                                                          torch.zeros(1, dtype=torch.long)))


MINI = unet_part("prior-mini", MINI_PRIOR)
IDDPM = unet_part("iddpm-ffhq512", IDDPM_FFHQ512)


def respaced(timesteps) -> Schedule:
    """The linear schedule of 1000 steps at some of its timesteps."""
    return respace(linear_schedule(), timesteps)


class PriorMethod(Method):
    """What the four share: I_L upsampled to the network's own size, a sampler there, and the way
    back.

    Class attributes:
        parts: "prior" and whatever the method has beside it.
        native: side at which the sampler runs.
        parameterisation: what the prior predicts.
        enlarged_by: interpolation from I_L at HQ size to the native size.
    """

    native: int
    parameterisation = "eps"
    enlarged_by = "bicubic"

    def resizing(self) -> str:
        """To the sampler's side and back."""
        return rule(self.profile.size, (self.native,), f"antialiased {self.enlarged_by}")

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """x0 (N, 3, native, native) in [-1, 1] of I_L `y`, likewise."""
        raise TypeError(f"{self.name} has no sampler")

    @torch.no_grad()
    def restore(self, batch: Batch) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1]."""
        y = resized(torch.from_numpy(batch.upsampled), self.native,
                    self.enlarged_by).clamp(0, 1) * 2 - 1
        x0 = self.sample(y.to(device()), batch)
        return resized(((x0.float() + 1) / 2).clamp(0, 1), batch.size).clamp(0, 1).cpu()

    def draws(self, batch: Batch) -> Draw:
        """The sampler's normal draws, in order of use; both tags of a method get the same ones."""
        family = self.name.split(".")[0]
        return ahead(lambda i: batch.noise(family, i, size=self.native), device())
