"""SPARNetHD2D, the enhancer behind DR2: hourglass attention in every residual block, spectral norm
on every convolution.

Structure and key names: chaofengc/Face-SPARNet as shipped in Kaldwin0106/DR2_Drgradation_Remover.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

# Halvings of the first hourglass: log2(64 / bottleneck_size), whatever the size of the image (an
# official constant).
HOURGLASS = 4


@dataclass(frozen=True)
class SparNetConfig:
    """Shape of the network.

    Args:
        size: side of input and output in pixels.
        min_ch, max_ch: bounds of the width; min_feat_size: side of the narrowest features;
            res_depth: blocks there, of which those that resample count as one each.
    """

    size: int = 512
    min_ch: int = 32
    max_ch: int = 512
    min_feat_size: int = 32
    res_depth: int = 10

    def width(self, channels: int) -> int:
        """A width within its bounds."""
        return max(self.min_ch, min(channels, self.max_ch))


class Norm(nn.Module):
    """Instance norm under the official key."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class ConvLayer(nn.Module):
    """[nearest x2], reflection padding, convolution with spectral norm, [instance norm],
    [LeakyReLU]."""

    def __init__(self, c_in: int, c_out: int, scale: str = "none", norm: bool = True,
                 act: bool = True):
        super().__init__()
        self.scale, self.act = scale, act
        convolution = nn.Conv2d(c_in, c_out, 3, stride=2 if scale == "down" else 1, bias=not norm)
        with warnings.catch_warnings():
            # The official state dict has the keys of the old spectral norm (weight_orig, weight_u,
            # weight_v).
            warnings.simplefilter("ignore", FutureWarning)
            self.conv2d = nn.utils.spectral_norm(convolution)
        if norm:
            self.norm = Norm(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        x = self.norm(x) if hasattr(self, "norm") else x
        return F.leaky_relu(x, 0.2) if self.act else x


class HourGlass(nn.Module):
    """Attention map (N, 1, H, W) in (0, 1) from features, over `depth` halvings."""

    def __init__(self, depth: int, channels: int, middle: int = 64):
        super().__init__()
        self.depth = depth
        for level in range(depth, 0, -1):
            entry = channels if level == depth else middle
            setattr(self, f"b1_{level}", ConvLayer(entry, middle))
            setattr(self, f"b2_{level}", ConvLayer(entry, middle, "down"))
            if level == 1:
                self.b2_plus_1 = ConvLayer(middle, middle)
            setattr(self, f"b3_{level}", ConvLayer(middle, middle, "up"))
        self.out_block = nn.Sequential(ConvLayer(middle, 1, norm=False, act=False))

    def _level(self, level: int, x: torch.Tensor) -> torch.Tensor:
        beside, low = getattr(self, f"b1_{level}")(x), getattr(self, f"b2_{level}")(x)
        low = self._level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        low = getattr(self, f"b3_{level}")(low)
        if low.shape[2:] != beside.shape[2:]:
            low = F.interpolate(low, beside.shape[2:], mode="nearest")
        return beside + low

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.out_block(self._level(self.depth, x)))


class Block(nn.Module):
    """Pre-activated residual block, weighed by its attention map."""

    def __init__(self, c_in: int, c_out: int, scale: str, depth: int):
        super().__init__()
        if scale != "none" or c_in != c_out:
            self.shortcut_func = ConvLayer(c_in, c_out, scale, norm=False, act=False)
        self.preact_func = nn.Sequential(Norm(c_in), nn.LeakyReLU(0.2))
        first, second = {"down": ("none", "down"), "up": ("up", "none"),
                         "none": ("none", "none")}[scale]
        self.conv1 = ConvLayer(c_in, c_out, first)
        self.conv2 = ConvLayer(c_out, c_out, second, act=False)
        self.att_func = HourGlass(depth, c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = self.shortcut_func(x) if hasattr(self, "shortcut_func") else x
        h = self.conv2(self.conv1(self.preact_func(x)))
        return short + h * self.att_func(h)


class SparNetHD2D(nn.Module):
    """(N, 3, size, size) in [-1, 1] to the same, not clipped."""

    def __init__(self, config: SparNetConfig = SparNetConfig()):
        super().__init__()
        halvings = int(math.log2(config.size // config.min_feat_size))
        width = config.width
        first = config.max_ch // (halvings + 1)
        self.encoder = nn.ModuleList([ConvLayer(3, width(first), norm=False, act=False)])
        for level in range(halvings):
            self.encoder.append(Block(width(first << level), width(first << level + 1), "down",
                                      HOURGLASS - level))
        deepest, depth = width(first << halvings), HOURGLASS - halvings + 1
        self.res_layers = nn.ModuleList(
            Block(deepest, deepest, "none", depth) for _ in range(config.res_depth + 3 - halvings))
        self.decoder = nn.ModuleList(
            Block(width(first << level + 1), width(first << level), "up", depth + halvings - level)
            for level in reversed(range(halvings)))
        self.out_conv = ConvLayer(width(first), 3, norm=False, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (*self.encoder, *self.res_layers, *self.decoder, self.out_conv):
            x = layer(x)
        return x
