"""What ASFFNet512 and DMDNet are built of: spectrally normed convolutions and residuals.

Source: csxmli2016/ASFFNet512 and csxmli2016/DMDNet (CC BY-NC-SA 4.0): structure and key names.
"""

from __future__ import annotations

import torch
import torch.nn as nn


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, dilation: int = 1,
         bias: bool = True, spectral: bool = True) -> nn.Conv2d:
    """Convolution that keeps the side (but for its stride), with the weight divided by its largest
    singular value.

    The older of torch's two spectral norms, because its keys (`weight_orig`, `weight_u`,
    `weight_v`) are the published ones.
    """
    layer = nn.Conv2d(c_in, c_out, kernel, stride, dilation * (kernel - 1) // 2, dilation,
                      bias=bias)
    return nn.utils.spectral_norm(layer) if spectral else layer


def leaky() -> nn.LeakyReLU:
    """LeakyReLU of slope 0.2."""
    return nn.LeakyReLU(0.2)


def pair(c_in: int, c_out: int, dilations: tuple[int, int] = (1, 1),
         spectral: bool = True) -> nn.Sequential:
    """Convolution to the new width, LeakyReLU, convolution."""
    return nn.Sequential(conv(c_in, c_out, dilation=dilations[0], spectral=spectral), leaky(),
                         conv(c_out, c_out, dilation=dilations[1], spectral=spectral))


class Residual(nn.Module):
    """x plus what a sequence, kept under the given name, makes of it."""

    def __init__(self, name: str, inner: nn.Module):
        super().__init__()
        self.inner = name
        setattr(self, name, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + getattr(self, self.inner)(x)
