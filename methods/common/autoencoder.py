"""The convolutional autoencoder of latent diffusion and of VQGAN: images to a small latent and
back.

Module names and shapes are those of the official state dicts (CompVis/latent-diffusion, MIT;
StableSR's decoder adds fusion layers), so their files load with `strict=True`. `patch` folds pixels
at both ends; only networks trained here use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of an autoencoder.

    Args:
        channels, mult: base width and its multiples by level; level i works at 1/2^i of the first
            one's side.
        blocks: residual blocks of a level of the encoder; the decoder has one more.
        z_channels: of the latent; double_z: the encoder gives mean and log-variance, twice that
            many.
        in_channels: of the image, which comes in and goes out.
        attention: levels whose residual blocks are each followed by attention; the middle always
            has it.
        patch: side of the pixel blocks that are folded into channels at the entry and unfolded at
            the exit.
        groups: of each GroupNorm, or as many as there are channels where these are fewer.
    """

    channels: int = 128
    mult: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    z_channels: int = 4
    in_channels: int = 3
    double_z: bool = True
    attention: tuple[int, ...] = ()
    patch: int = 1
    groups: int = 32

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * m for m in self.mult)

    @property
    def moments(self) -> int:
        """Channels that the encoder gives."""
        return self.z_channels * (2 if self.double_z else 1)

    @property
    def reduction(self) -> int:
        """How often the image's side is the latent's."""
        return self.patch << (len(self.mult) - 1)


def norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """GroupNorm of at most `groups` groups, with the small eps of these networks."""
    return nn.GroupNorm(min(groups, channels), channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two times norm, swish, convolution; `shortcut` is the official name of the 1x1 convolution
    where widths differ."""

    def __init__(self, c_in: int, c_out: int, groups: int = 32, shortcut: str = "nin_shortcut"):
        super().__init__()
        self.shortcut = shortcut if c_in != c_out else None
        self.norm1, self.conv1 = norm(c_in, groups), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = norm(c_out, groups), nn.Conv2d(c_out, c_out, 3, padding=1)
        if self.shortcut:
            setattr(self, shortcut, nn.Conv2d(c_in, c_out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (getattr(self, self.shortcut)(x) if self.shortcut else x)


class AttnBlock(nn.Module):
    """Attention of one head over positions, by 1x1 convolutions, in a residual."""

    def __init__(self, channels: int, groups: int = 32):
        super().__init__()
        self.norm = norm(channels, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(out)


class Downsample(nn.Module):
    """Half the side by a strided 3x3 convolution; zeros are added at the right and at the bottom
    only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the side: nearest, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.block_1, self.block_2 = (ResBlock(channels, channels, groups) for _ in range(2))
        self.attn_1 = AttnBlock(channels, groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Residual blocks of one side, each followed by attention where the level has it; `resample` is
    not called here."""

    def __init__(self, c_in: int, c_out: int, blocks: int, attends: bool, groups: int):
        super().__init__()
        self.block = nn.ModuleList([ResBlock(c_out if i else c_in, c_out, groups)
                                    for i in range(blocks)])
        self.attn = nn.ModuleList([AttnBlock(c_out, groups) for _ in range(blocks)] if attends
                                  else [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return x


class Encoder(nn.Module):
    """Image to latent."""

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__()
        self.config, widths, top = config, config.widths, len(config.mult) - 1
        self.conv_in = nn.Conv2d(config.in_channels * config.patch**2, config.channels, 3,
                                 padding=1)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else config.channels
            self.down.append(Level(before, width, config.blocks, level in config.attention,
                                   config.groups))
            if level < top:
                self.down[level].downsample = Downsample(width)
        self.mid = Middle(widths[-1], config.groups)
        self.norm_out = norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], config.moments, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Encode.

        Args:
            x: (N, in_channels, H, W) in [-1, 1]; sides are multiples of `config.reduction`.

        Returns:
            (N, moments, H/r, W/r): mean and log-variance, or z; and the features of each level
            before downsampling.
        """
        h, taps = self.conv_in(F.pixel_unshuffle(x, self.config.patch)), {}
        for i, level in enumerate(self.down):
            taps[i] = h = level(h)
            if i < len(self.down) - 1:
                h = level.downsample(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h)))), taps


class Decoder(nn.Module):
    """Latent to image, with fusion modules behind the levels that have one.

    Args:
        fuse: level -> module of (the encoder's features of that level, own features, w) to own
            features; its official key is `fusion_layer_<level>`.
    """

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig(),
                 fuse: Mapping[int, nn.Module] | None = None):
        super().__init__()
        self.config, widths, self.fused = config, config.widths, tuple(fuse or ())
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], config.groups)
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            after = widths[min(level + 1, len(widths) - 1)]
            self.up.append(Level(after, width, config.blocks + 1, level in config.attention,
                                 config.groups))
            if level:
                self.up[level].upsample = Upsample(width)
        self.norm_out = norm(widths[0], config.groups)
        self.conv_out = nn.Conv2d(widths[0], config.in_channels * config.patch**2, 3, padding=1)
        for level, module in (fuse or {}).items():
            setattr(self, f"fusion_layer_{level}", module)

    def forward(self, z: torch.Tensor, taps: Mapping[int, torch.Tensor] | None = None,
                w: float | torch.Tensor = 1.0) -> torch.Tensor:
        """Decode.

        Args:
            z: (N, z_channels, h, w).
            taps: the encoder's features by level; None for a decoder that goes by z alone.
            w: what the fusion modules are told, a number or (N, 1, 1, 1).

        Returns:
            (N, in_channels, r h, r w), not clipped.
        """
        h = self.mid(self.conv_in(z))
        for i in reversed(range(len(self.up))):
            h = self.up[i](h)
            if taps is not None and i in self.fused:
                h = getattr(self, f"fusion_layer_{i}")(taps[i], h, w)
            if i:
                h = self.up[i].upsample(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.config.patch)
