"""PGDiff's official restorer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.rrdb import Rrdb
from fsrbench.methods.common.unet import timestep_embedding


@dataclass(frozen=True)
class RestorerConfig:
    """Shape of the official restorer: blocks of width `mid_channels`, dense growth
    `growth_channels`."""

    in_channels: int = 9
    out_channels: int = 3
    mid_channels: int = 64
    num_blocks: int = 23
    growth_channels: int = 32


class RrdbNet(nn.Module):
    """ESRGAN's generator that keeps the size: pixels folded 4x4 at the entry, two enlargements at
    the end."""

    def __init__(self, config: RestorerConfig):
        super().__init__()
        width = config.mid_channels
        self.conv_first = nn.Conv2d(config.in_channels * 16, width, 3, padding=1)
        self.body = nn.Sequential(*(Rrdb(width, config.growth_channels)
                                    for _ in range(config.num_blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.conv_last = nn.Conv2d(width, config.out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv_first(F.pixel_unshuffle(x, 4))
        h = h + self.conv_body(self.body(h))
        for convolution in (self.conv_up1, self.conv_up2):
            h = F.leaky_relu(convolution(F.interpolate(h, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(h), 0.2))


class Restorer(nn.Module):
    """The official restorer of (x_t, y, t): all (N, 3, S, S) in [-1, 1], t (N,) original timesteps;
    not clipped."""

    EMBEDDING = 100

    def __init__(self, config: RestorerConfig = RestorerConfig()):
        super().__init__()
        self.generator = RrdbNet(config)
        self.time_embed = nn.Sequential(nn.Linear(self.EMBEDDING, 3), nn.SiLU(), nn.Linear(3, 3))

    def forward(self, x_t: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time = self.time_embed(timestep_embedding(t, self.EMBEDDING))[:, :, None,
                                                                      None].expand_as(x_t)
        return self.generator(torch.cat([x_t, y, time], 1))
