"""`stablesr.mini`: StableSR of small networks trained by this project, on 64-pixel faces with
latents of 16 by 16.

It has no text: its U-Net attends to one token of zeros. The v-prediction, and the start at a noised
LR latent, are those of StableSR's face model; decoder and colours are treated as by the general
one.
"""

from __future__ import annotations

import torch
import torch.nn as nn

from fsrbench.methods.common.autoencoder import AutoencoderConfig
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.unet import zeroed
from fsrbench.methods.stablesr.network import (
    DualResBlock,
    LatentConfig,
    SpatialTransformer,
    StableSrUNet,
)
from fsrbench.methods.stablesr.parts import (
    CfwDecoder,
    FusionConfig,
    StructureConfig,
    TimeAwareEncoder,
    VaeEncoder,
)
from fsrbench.weights.catalogue import Bundled, WeightFile, register

MINI_VAE = AutoencoderConfig(48, (1, 2), blocks=1, patch=2, groups=8)
MINI_FUSION = FusionConfig((0,), blocks=1, growth=8)
MINI_UNET = LatentConfig(16, width=32, mult=(1, 2, 3), blocks=1, attention=(1, 2), head=16,
                         context=32, tokens=1, structure=32, hidden=24, groups=8)
MINI_STRUCTURE = StructureConfig(width=32, mult=(1, 1, 2), blocks=1, attention=(1,), heads=2,
                                 structure=32)

register(WeightFile("vae-mini", "vae-mini.safetensors", "", LFW_LICENCE,
                    "stablesr.mini (`invoke train --what vae`)", (Bundled(),)))
register(WeightFile("stablesr-mini", "stablesr-mini.safetensors", "", LFW_LICENCE,
                    "stablesr.mini (`invoke train --what stablesr`)", (Bundled(),)))


class ScaledEncoder(VaeEncoder):
    """An encoder whose latents have a deviation of about 1: it keeps the scale that makes them
    so."""

    # Weight of a batch in the running scale.
    PACE = 0.02

    def __init__(self, config: AutoencoderConfig = MINI_VAE):
        super().__init__(config)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        moments, taps = super().forward(x)
        # A copy, as `adjust` comes between this and the gradient.
        (mean, log_variance), scale = moments.float().chunk(2, 1), self.scale.clone()
        return torch.cat([mean * scale, log_variance + 2 * scale.log()], 1), taps

    @torch.no_grad()
    def adjust(self, moments: torch.Tensor) -> None:
        """Move the scale to where it would give these moments, the encoder's own, a deviation of
        1."""
        wanted = self.scale / moments.chunk(2, 1)[0].float().std().clamp_min(1e-3)
        self.scale.lerp_(wanted, self.PACE)


def mini_vae() -> nn.ModuleDict:
    """The networks of vae-mini, untrained."""
    return nn.ModuleDict({"encoder": ScaledEncoder(MINI_VAE),
                          "decoder": CfwDecoder(MINI_VAE, MINI_FUSION)})


def mini_denoiser() -> nn.ModuleDict:
    """The networks of stablesr-mini, untrained; every residual of the U-Net starts at zero, as
    training from scratch needs."""
    unet = StableSrUNet(MINI_UNET)
    for module in unet.modules():
        if isinstance(module, DualResBlock):
            nn.init.zeros_(module.spade.param_free_norm.weight)
            zeroed(module.spade.mlp_beta)
        elif isinstance(module, SpatialTransformer):
            zeroed(module.proj_out)
    zeroed(unet.out[-1])
    return nn.ModuleDict({"unet": unet, "structure": TimeAwareEncoder(MINI_STRUCTURE)})


def empty_context(n: int, device: torch.device | str) -> torch.Tensor:
    """(n, 1, 32), what stands for a prompt."""
    return torch.zeros(n, MINI_UNET.tokens, MINI_UNET.context, device=device)


def decoder_inputs() -> tuple:
    side = MINI_UNET.size * MINI_VAE.reduction // MINI_VAE.patch
    taps = {level: torch.zeros(1, width, side >> level, side >> level)
            for level, width in enumerate(MINI_VAE.widths)}
    return torch.zeros(1, MINI_UNET.channels, MINI_UNET.size, MINI_UNET.size), taps, 0.5
