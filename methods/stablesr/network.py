"""StableSR's noise predictor: SD 2.1's latent U-Net, in which SPADE feeds LR features into every
residual block.

Structure and key names: IceClear/StableSR `UNetModelDualcondV2` (S-Lab 1.0; its SPADE is NVIDIA's,
CC BY-NC-SA), on SD 2.1 (CreativeML Open RAIL++-M).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.unet import Resample, timestep_embedding


@dataclass(frozen=True)
class LatentConfig:
    """Shape of the network.

    Args:
        size: side of the latent; channels of it in and out.
        width, mult: base width and its multiples by level; blocks: residual blocks of a level.
        attention: levels that attend; the middle always does.
        head: channels of a head; context: width of the text's tokens, and how many of them.
        structure: channels of the LR features; hidden: of a SPADE between these and scale and
            shift.
        groups: of each GroupNorm.
    """

    size: int = 64
    channels: int = 4
    width: int = 320
    mult: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (0, 1, 2)
    head: int = 64
    context: int = 1024
    tokens: int = 77
    structure: int = 256
    hidden: int = 128
    groups: int = 32


class Spade(nn.Module):
    """Normalised features, scaled and shifted at each position by what the LR features say."""

    def __init__(self, channels: int, config: LatentConfig):
        super().__init__()
        self.param_free_norm = nn.GroupNorm(config.groups,
                                            channels)  # it has parameters, whatever its name
        self.mlp_shared = nn.Sequential(nn.Conv2d(config.structure, config.hidden, 3, padding=1),
                                        nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(config.hidden, channels, 3, padding=1)
                                         for _ in range(2))

    def forward(self, h: torch.Tensor, structure: torch.Tensor) -> torch.Tensor:
        shared = self.mlp_shared(structure)
        return self.param_free_norm(h) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class TimeResBlock(nn.Module):
    """Residual block to which the time is added."""

    def __init__(self, c_in: int, c_out: int, emb_channels: int, groups: int = 32):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(groups, c_in), nn.SiLU(),
                                       nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, c_out))
        self.out_layers = nn.Sequential(nn.GroupNorm(groups, c_out), nn.SiLU(), nn.Dropout(0.0),
                                        nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def branch(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        """What is added to the skip."""
        return self.out_layers(self.in_layers(x) + self.emb_layers(emb)[:, :, None, None])

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        return self.skip_connection(x) + self.branch(x, emb)


class DualResBlock(TimeResBlock):
    """The same with SPADE before the skip."""

    def __init__(self, c_in: int, c_out: int, config: LatentConfig):
        super().__init__(c_in, c_out, 4 * config.width, config.groups)
        self.spade = Spade(c_out, config)

    def forward(self, x: torch.Tensor, emb: torch.Tensor,
                structures: Mapping[int, torch.Tensor]) -> torch.Tensor:
        h = self.branch(x, emb)
        return self.skip_connection(x) + self.spade(h, structures[h.shape[-1]])


class CrossAttention(nn.Module):
    """Attention of tokens on others; keys and values have `context` channels."""

    def __init__(self, channels: int, context: int, head: int):
        super().__init__()
        self.heads = channels // head
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, channels, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(0.0))

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(s).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for layer, s in ((self.to_q, x), (self.to_k, context), (self.to_v, context)))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Geglu(nn.Module):
    """Linear layer whose second half gates the first."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU and a linear layer."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(Geglu(channels, 4 * channels), nn.Dropout(0.0),
                                 nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, attention on the text, feed-forward."""

    def __init__(self, channels: int, config: LatentConfig):
        super().__init__()
        self.attn1 = CrossAttention(channels, channels, config.head)
        self.ff = FeedForward(channels)
        self.attn2 = CrossAttention(channels, config.context, config.head)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over positions, in a residual."""

    def __init__(self, channels: int, config: LatentConfig):
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in, self.proj_out = (nn.Linear(channels, channels) for _ in range(2))
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, config)])

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens).transpose(1, 2).reshape(x.shape)


class Stage(nn.Sequential):
    """Layers in a row, each given what it takes."""

    def forward(self, x, emb, context, structures):
        for layer in self:
            if isinstance(layer, DualResBlock):
                x = layer(x, emb, structures)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class StableSrUNet(nn.Module):
    """eps (or v) of a latent, given the text's tokens and the LR features."""

    def __init__(self, config: LatentConfig = LatentConfig()):
        super().__init__()
        self.config, width = config, config.width
        widths = [width * m for m in config.mult]
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(),
                                        nn.Linear(4 * width, 4 * width))

        def stage(c_in, level, *more):
            attends = [SpatialTransformer(widths[level],
                                          config)] if level in config.attention else []
            return Stage(DualResBlock(c_in, widths[level], config), *attends, *more)
        entries, skips, channels = [Stage(nn.Conv2d(config.channels, width, 3,
                                                    padding=1))], [width], width
        for level in range(len(widths)):
            for _ in range(config.blocks):
                entries.append(stage(channels, level))
                channels = widths[level]
                skips.append(channels)
            if level < len(widths) - 1:
                entries.append(Stage(Resample(channels, up=False)))
                skips.append(channels)
        self.input_blocks = nn.ModuleList(entries)
        self.middle_block = Stage(DualResBlock(channels, channels, config),
                                  SpatialTransformer(channels, config),
                                  DualResBlock(channels, channels, config))
        exits = []
        for level in reversed(range(len(widths))):
            for block in range(config.blocks + 1):
                up = [Resample(widths[level], up=True)] if level and block == config.blocks else []
                exits.append(stage(channels + skips.pop(), level, *up))
                channels = widths[level]
        self.output_blocks = nn.ModuleList(exits)
        self.out = nn.Sequential(nn.GroupNorm(config.groups, width), nn.SiLU(),
                                 nn.Conv2d(width, config.channels, 3, padding=1))

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor,
                structures: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Predict.

        Args:
            x: (N, channels, S, S) latent; t: (N,) original timesteps.
            context: (N, tokens, context), text.
            structures: side of a feature map -> (N, structure, side, side), LR features; sides S,
                S/2, and so on.
        """
        emb, skips = self.time_embed(timestep_embedding(t, self.config.width)), []
        for stage in self.input_blocks:
            x = stage(x, emb, context, structures)
            skips.append(x)
        x = self.middle_block(x, emb, context, structures)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], 1), emb, context, structures)
        return self.out(x)


def call_inputs(config: LatentConfig = LatentConfig()) -> tuple:
    """One call: a latent, its timestep, the prompt's tokens, LR features of each side."""
    sides = [config.size >> level for level in range(len(config.mult))]
    return (torch.zeros(1, config.channels, config.size, config.size),
            torch.zeros(1, dtype=torch.long),
            torch.zeros(1, config.tokens, config.context),
            {s: torch.zeros(1, config.structure, s, s) for s in sides})
