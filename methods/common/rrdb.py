"""Residual-in-residual dense blocks (ESRGAN), of PGDiff's restorer and StableSR's decoder."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F


class DenseBlock(nn.Module):
    """Five convolutions, each on all that came before."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        for i in range(5):
            setattr(self, f"conv{i + 1}", nn.Conv2d(width + i * growth, width if i == 4 else growth,
                                                    3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = x
        for i in range(4):
            seen = torch.cat([seen, F.leaky_relu(getattr(self, f"conv{i + 1}")(seen), 0.2)], 1)
        return x + 0.2 * self.conv5(seen)


class Rrdb(nn.Module):
    """Three dense blocks in a residual."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))
