"""SFace (Zhong et al., TIP 2021): the recogniser of OpenCV's model zoo, in torch, differentiable.

A MobileFaceNet-like row of depthwise and pointwise convolutions. Keys and shapes are those of the
published ONNX file, which keeps its weights in blocks of 8 bits. Source: opencv/opencv_zoo
`face_recognition_sface_2021dec` (Apache-2.0), trained on CASIA-WebFace, VGGFace2 and MS-Celeb by
its authors' account.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

# Channels behind each pair of convolutions, and which pairs halve the side.
_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_STRIDED = (3, 5, 7, 13)
FEATURES, SIDE = 128, 112


class SFace(nn.Module):
    """(N, 3, 112, 112) RGB in [-1, 1], aligned by `faces.align.arcface_frame`, to (N, 128), not
    normalised."""

    def __init__(self):
        super().__init__()
        c = _WIDTHS[0]
        self._layer("conv_1", (c, 3, 3, 3))
        for i, width in enumerate(_WIDTHS[1:], 2):
            self._layer(f"conv_{i}_dw", (c, 1, 3, 3))
            self._layer(f"conv_{i}", (width, c, 1, 1))
            c = width
        self._norm("bn1", c)
        self._constant("pre_fc1_weight", FEATURES, c * (SIDE >> len(_STRIDED))**2)
        self._constant("pre_fc1_bias", FEATURES)
        self._norm("fc1", FEATURES)
        self.register_buffer("scalar_op1", torch.zeros(1))
        self.register_buffer("scalar_op2", torch.ones(1))

    def _constant(self, name: str, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def _norm(self, name: str, c: int) -> None:
        for part in ("gamma", "beta"):
            self._constant(f"{name}_{part}", c)
        self.register_buffer(f"{name}_moving_mean", torch.zeros(c))
        self.register_buffer(f"{name}_moving_var", torch.ones(c))

    def _layer(self, name: str, shape: tuple[int, ...]) -> None:
        self._constant(f"{name}_conv2d_weight", *shape)
        self._norm(f"{name}_batchnorm", shape[0])
        self._constant(f"{name}_relu_gamma", shape[0], 1, 1)

    def _normed(self, x: torch.Tensor, name: str, eps: float) -> torch.Tensor:
        mean, var, gamma, beta = (getattr(self, f"{name}_{part}")
                                  for part in ("moving_mean", "moving_var", "gamma", "beta"))
        return F.batch_norm(x, mean, var, gamma, beta, eps=eps)

    def _convolved(self, x: torch.Tensor, name: str, stride: int = 1,
                   groups: int = 1) -> torch.Tensor:
        weight = getattr(self, f"{name}_conv2d_weight")
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        return F.prelu(self._normed(x, f"{name}_batchnorm", 1e-3),
                       getattr(self, f"{name}_relu_gamma").flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The file counts in bytes: (255 (x + 1) / 2 - 127.5) / 128.
        x = ((x + 1) * 127.5 - self.scalar_op1) * self.scalar_op2
        x = self._convolved(x, "conv_1")
        for i in range(2, len(_WIDTHS) + 1):
            x = self._convolved(x, f"conv_{i}_dw", 2 if i in _STRIDED else 1, x.shape[1])
            x = self._convolved(x, f"conv_{i}")
        x = F.linear(self._normed(x, "bn1", 2e-5).flatten(1), self.pre_fc1_weight,
                     self.pre_fc1_bias)
        return self._normed(x, "fc1", 2e-5)
