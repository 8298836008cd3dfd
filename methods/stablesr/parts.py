"""What StableSR has beside its noise predictor: time-aware encoder, autoencoder with fusion, text
tower, colour fixes.

Source: IceClear/StableSR (S-Lab 1.0): structure and key names; the text tower is OpenCLIP's
ViT-H/14 as in SD 2.1 (MIT).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.autoencoder import AutoencoderConfig, Decoder, Encoder, ResBlock
from fsrbench.methods.common.rrdb import Rrdb
from fsrbench.methods.common.unet import Attention, Resample, timestep_embedding
from fsrbench.methods.stablesr.network import TimeResBlock


@dataclass(frozen=True)
class StructureConfig:
    """Shape of the time-aware encoder.

    Args:
        channels: of the latent; width, mult: base width and its multiples by level; blocks:
            residual blocks of a level.
        attention: levels that attend, with `heads` heads; the middle always does.
        structure: channels of the features given; groups: of the residual blocks' norms.
    """

    channels: int = 4
    width: int = 256
    mult: tuple[int, ...] = (1, 1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (0, 1, 2)
    heads: int = 4
    structure: int = 256
    groups: int = 32


class _Stage(nn.Sequential):
    """Layers in a row; residual blocks are also given the time."""

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, TimeResBlock) else layer(x)
        return x


class TimeAwareEncoder(nn.Module):
    """Features of the LR latent for the SPADE layers, by their side: half a U-Net that is told the
    timestep."""

    def __init__(self, config: StructureConfig = StructureConfig()):
        super().__init__()
        self.width, emb = config.width, 4 * config.width
        widths = [config.width * m for m in config.mult]

        def block(c_in: int, c_out: int) -> TimeResBlock:
            return TimeResBlock(c_in, c_out, emb, config.groups)
        self.time_embed = nn.Sequential(nn.Linear(config.width, emb), nn.SiLU(),
                                        nn.Linear(emb, emb))
        stages, c = [_Stage(nn.Conv2d(config.channels, config.width, 3, padding=1))], config.width
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                attends = [Attention(width, config.heads)] if level in config.attention else []
                stages.append(_Stage(block(c, width), *attends))
                c = width
            if level < len(widths) - 1:
                stages.append(_Stage(Resample(width, up=False)))
        self.input_blocks = nn.ModuleList(stages)
        self.middle_block = _Stage(block(c, c), Attention(c, config.heads), block(c, c))
        self.fea_tran = nn.ModuleList(block(width, config.structure) for width in widths)

    def forward(self, z: torch.Tensor, t: torch.Tensor) -> dict[int, torch.Tensor]:
        """Side -> (N, structure, side, side), of the LR latent z (N, 4, S, S) at original timesteps
        t (N,)."""
        emb, kept, h = self.time_embed(timestep_embedding(t, self.width)), [], z
        for stage in self.input_blocks:
            if isinstance(stage[0], Resample):
                kept.append(h)
            h = stage(h, emb)
        kept.append(self.middle_block(h, emb))
        return {h.shape[-1]: layer(h, emb) for layer, h in zip(self.fea_tran, kept)}


@dataclass(frozen=True)
class FusionConfig:
    """Which levels of the decoder have fusion, and of how many dense blocks of what growth."""

    levels: tuple[int, ...] = (2, 1)
    blocks: int = 2
    growth: int = 32


class Fusion(nn.Module):
    """Controllable feature wrapping (CFW): the encoder's features are added to the decoder's, w
    times."""

    def __init__(self, c: int, config: FusionConfig = FusionConfig(), groups: int = 32):
        super().__init__()
        self.encode_enc_1 = ResBlock(2 * c, c, groups, "conv_out")
        self.encode_enc_2 = nn.Sequential(*(Rrdb(c, config.growth) for _ in range(config.blocks)))
        self.encode_enc_3 = ResBlock(c, c, groups)

    def forward(self, tap: torch.Tensor, h: torch.Tensor, w: float | torch.Tensor) -> torch.Tensor:
        return h + w * self.encode_enc_3(self.encode_enc_2(self.encode_enc_1(torch.cat([tap, h],
                                                                                       1))))


class VaeEncoder(nn.Module):
    """Image (N, 3, S, S) in [-1, 1] to moments (N, 8, S/8, S/8), mean and log-variance, and
    features by level."""

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__()
        self.encoder, self.quant_conv = Encoder(config), nn.Conv2d(config.moments, config.moments,
                                                                   1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        moments, taps = self.encoder(x)
        return self.quant_conv(moments), taps


class CfwDecoder(nn.Module):
    """Latent (N, 4, s, s) to image, with the encoder's features of some levels fused in where they
    are given."""

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig(),
                 fusion: FusionConfig = FusionConfig()):
        super().__init__()
        self.post_quant_conv = nn.Conv2d(config.z_channels, config.z_channels, 1)
        self.decoder = Decoder(config, {level: Fusion(config.widths[level], fusion, config.groups)
                                        for level in fusion.levels})

    def forward(self, z: torch.Tensor, taps: dict[int, torch.Tensor] | None = None,
                w: float | torch.Tensor = 1.0) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(z), taps, w)


def sampled_latent(moments: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A draw of the autoencoder's posterior, not scaled."""
    mean, log_variance = moments.chunk(2, 1)
    return mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise


@dataclass(frozen=True)
class TextConfig:
    """Shape of OpenCLIP's text tower; as many layers as the file holds, of which the last is not
    run."""

    width: int = 1024
    heads: int = 16
    layers: int = 24
    tokens: int = 77
    vocabulary: int = 49408


class _TextBlock(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(config.width) for _ in range(2))
        self.attn = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(config.width, 4 * config.width),
                                             gelu=nn.GELU(),
                                             c_proj=nn.Linear(4 * config.width, config.width)))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class TextEncoder(nn.Module):
    """Tokens (N, 77) to what the U-Net attends to, (N, 77, 1024): the last layer but one,
    normalised."""

    def __init__(self, config: TextConfig = TextConfig()):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(torch.zeros(config.tokens, config.width))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(_TextBlock(config) for _ in range(config.layers))
        self.ln_final = nn.LayerNorm(config.width)
        # In the file, but not used by SD 2.1.
        self.text_projection = nn.Parameter(torch.zeros(config.width, config.width))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        length = x.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        for block in self.transformer.resblocks[:-1]:
            x = block(x, mask)
        return self.ln_final(x)


# The empty prompt: start, end, padding.
START, END = 49406, 49407


def empty_prompt(tokens: int = 77) -> torch.Tensor:
    """(1, tokens)."""
    return torch.tensor([[START, END, *[0] * (tokens - 2)]])


def _blurred(x: torch.Tensor, reach: int) -> torch.Tensor:
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=x.dtype, device=x.device) / 16
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1], dilation=reach)


def wavelet_fix(content: torch.Tensor, style: torch.Tensor, levels: int = 5) -> torch.Tensor:
    """High frequencies of the content on the low ones of the style, both (N, 3, S, S): an
    undecimated decomposition."""
    high = torch.zeros_like(content)
    for level in range(levels):
        low = _blurred(content, 2**level)
        high, content = high + content - low, low
        style = _blurred(style, 2**level)
    return high + style
