"""ArcFace networks (E_id): insightface's IResNet and TreB1eN's IR / IR-SE backbones, with their
official keys.

Input (N, 3, S, S) RGB in [-1, 1], aligned by `faces.align.arcface_frame`; output (N, 512).
Source: insightface arcface_torch, TreB1eN/InsightFace_Pytorch (structure and key names); Deng et
al. 2019.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F


class IBasicBlock(nn.Module):
    """BN, conv, BN, PReLU, conv (stride), BN, plus the shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int, project: bool):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.prelu = nn.PReLU(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False),
                                        nn.BatchNorm2d(c_out)) \
            if project else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return h + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """IResNet: four stages, each starting with stride 2, then BN, one linear layer and BN.

    Args:
        layers: blocks of each stage ((3, 4, 14, 3) is r50, (3, 13, 30, 3) is r100).
        widths: channels of each stage.
        size: side of the input.
        features: length of the embedding.
    """

    def __init__(self, layers: tuple[int, ...], widths: tuple[int, ...] = (64, 128, 256, 512),
                 size: int = 112, features: int = 512):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        channels = widths[0]
        for stage, (count, width) in enumerate(zip(layers, widths), 1):
            blocks = [IBasicBlock(channels, width, 2, True)]
            blocks += [IBasicBlock(width, width, 1, False) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            channels = width
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels * (size // 16) ** 2, features)
        self.features = nn.BatchNorm1d(features)
        nn.init.ones_(self.features.weight)
        self.features.weight.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


class SE(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class IRUnit(nn.Module):
    """TreB1eN's bottleneck: subsampled (or projected) shortcut plus BN, conv, PReLU, conv (stride),
    BN [, SE]."""

    def __init__(self, c_in: int, c_out: int, stride: int, se: bool):
        super().__init__()
        self.shortcut_layer = nn.MaxPool2d(1, stride) if c_in == c_out else nn.Sequential(
            nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        layers = [nn.BatchNorm2d(c_in), nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False),
                  nn.PReLU(c_out),
                  nn.Conv2d(c_out, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.res_layer = nn.Sequential(*layers, *([SE(c_out)] if se else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class IRBackbone(nn.Module):
    """TreB1eN's Backbone(50): IR-50, or IR-SE-50 with `se`. The embedding is L2-normalised."""

    def __init__(self, units: tuple[int, ...] = (3, 4, 14, 3), se: bool = True):
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64),
                                         nn.PReLU(64))
        body, channels = [], 64
        for count, width in zip(units, (64, 128, 256, 512)):
            body += [IRUnit(channels if i == 0 else width, width, 2 if i == 0 else 1, se)
                     for i in range(count)]
            channels = width
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(nn.BatchNorm2d(512), nn.Dropout(0.6), nn.Flatten(),
                                          nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.output_layer(self.body(self.input_layer(x))))
