"""RetinaFace: networks with their official keys, anchors, decoding and detection (paper 3.2; Deng
et al. 2020).

Source: biubug6/Pytorch_Retinaface (MIT; structure, key names, constants); facexlib carries the same
networks. A small network with 68 landmarks for each anchor instead of 5 serves the `mini` profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.weights.networks import load_strict, read_state, unwrap

# Strides of the three levels and the two anchor sides of each, in pixels; variances of offsets and
# of log sizes.
STRIDES, SIDES, VARIANCES = (8, 16, 32), ((16, 32), (64, 128), (256, 512)), (0.1, 0.2)
# What is taken from each of blue, green and red, in grey levels; there is no other scaling.
BGR_MEAN = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class RetinaConfig:
    """A RetinaFace.

    Args:
        backbone: "resnet50" or "mobile".
        width: channels of the feature pyramid.
        base: channels of the first convolution of "mobile" (8 is the official MobileNet-0.25).
        points: landmarks of each anchor.
    """

    backbone: str
    width: int
    base: int = 8
    points: int = 5


RESNET50 = RetinaConfig("resnet50", 256)
MOBILE025 = RetinaConfig("mobile", 64)
MINI_RETINA = RetinaConfig("mobile", 48, base=8, points=68)


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1, slope: float | None = None,
          groups: int = 1) -> list[nn.Module]:
    """Convolution, BN and, where a slope is given, LeakyReLU."""
    layers = [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
              nn.BatchNorm2d(c_out)]
    return layers if slope is None else [*layers, nn.LeakyReLU(slope)]


def _separable(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then 1x1."""
    return nn.Sequential(*_conv(c_in, c_in, 3, stride, 0.1, groups=c_in),
                         *_conv(c_in, c_out, 1, slope=0.1))


class MobileBody(nn.Module):
    """MobileNet: features at strides 8, 16, 32 with 8, 16 and 32 times `base` channels."""

    def __init__(self, base: int):
        super().__init__()
        b = base
        self.stage1 = nn.Sequential(nn.Sequential(*_conv(3, b, 3, 2, 0.1)), _separable(b, 2 * b),
                                    _separable(2 * b, 4 * b, 2),
                                    _separable(4 * b, 4 * b), _separable(4 * b, 8 * b, 2),
                                    _separable(8 * b, 8 * b))
        self.stage2 = nn.Sequential(_separable(8 * b, 16 * b, 2),
                                    *(_separable(16 * b, 16 * b) for _ in range(5)))
        self.stage3 = nn.Sequential(_separable(16 * b, 32 * b, 2), _separable(32 * b, 32 * b))
        self.channels = (8 * b, 16 * b, 32 * b)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        first = self.stage1(x)
        second = self.stage2(first)
        return [first, second, self.stage3(second)]


class ResNet50Body(nn.Module):
    """torchvision's ResNet-50 without its classifier: features at strides 8, 16, 32."""

    channels = (512, 1024, 2048)

    def __init__(self):
        super().__init__()
        from torchvision.models import resnet50

        for name, child in resnet50(weights=None).named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        first = self.layer2(x)
        second = self.layer3(first)
        return [first, second, self.layer4(second)]


class FPN(nn.Module):
    """Feature pyramid: each level's 1x1, plus the next coarser one upsampled by repetition, then
    3x3."""

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        slope = _slope(width)
        for level, c_in in enumerate(channels, 1):
            self.add_module(f"output{level}", nn.Sequential(*_conv(c_in, width, 1, slope=slope)))
        self.merge1 = nn.Sequential(*_conv(width, width, 3, slope=slope))
        self.merge2 = nn.Sequential(*_conv(width, width, 3, slope=slope))

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        fine, middle, coarse = (self.get_submodule(f"output{i}")(x)
                                for i, x in enumerate(features, 1))
        middle = self.merge2(middle + F.interpolate(coarse, middle.shape[-2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, fine.shape[-2:], mode="nearest"))
        return [fine, middle, coarse]


def _slope(width: int) -> float:
    """Narrow networks leak, wide ones do not."""
    return 0.1 if width <= 64 else 0.0


class SSH(nn.Module):
    """Context of three extents (3x3; 5x5 and 7x7 as chains of 3x3), side by side."""

    def __init__(self, width: int):
        super().__init__()
        half, quarter, slope = width // 2, width // 4, _slope(width)
        self.conv3X3 = nn.Sequential(*_conv(width, half, 3))
        self.conv5X5_1 = nn.Sequential(*_conv(width, quarter, 3, slope=slope))
        self.conv5X5_2 = nn.Sequential(*_conv(quarter, quarter, 3))
        self.conv7X7_2 = nn.Sequential(*_conv(quarter, quarter, 3, slope=slope))
        self.conv7x7_3 = nn.Sequential(*_conv(quarter, quarter, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = self.conv5X5_1(x)
        return F.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(shared),
                                 self.conv7x7_3(self.conv7X7_2(shared))], 1))


class Head(nn.Module):
    """1x1 convolution to `values` numbers for each of a cell's two anchors: (N, anchors,
    values)."""

    def __init__(self, width: int, values: int):
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, 2 * values, 1)
        self.values = values

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(len(x), -1, self.values)


class RetinaFace(nn.Module):
    """Input (N, 3, H, W): BGR, grey levels minus BGR_MEAN. Output for the A anchors of `priors(H,
    W)`: box offsets (N, A, 4), logits of background and face (N, A, 2), landmark offsets (N, A, 2
    points)."""

    def __init__(self, config: RetinaConfig):
        super().__init__()
        self.config, width = config, config.width
        self.body = ResNet50Body() if config.backbone == "resnet50" else MobileBody(config.base)
        self.fpn = FPN(self.body.channels, width)
        self.ssh1, self.ssh2, self.ssh3 = SSH(width), SSH(width), SSH(width)
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Head(width, values) for _ in STRIDES)
            for values in (2, 4, 2 * config.points))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        levels = self.fpn(self.body(x))
        levels = [ssh(level) for ssh, level in zip((self.ssh1, self.ssh2, self.ssh3), levels)]
        loc, conf, landm = (torch.cat([head(level) for head, level in zip(heads, levels)], 1)
                            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead))
        return loc, conf, landm


def priors(height: int, width: int) -> torch.Tensor:
    """Anchors (A, 4) of an image: centre x, y, width, height as shares of the image's; by level,
    row, column, side."""
    found = []
    for stride, sides in zip(STRIDES, SIDES):
        rows, columns = -(-height // stride), -(-width // stride)
        y, x, side = torch.meshgrid((torch.arange(rows, dtype=torch.float64) + 0.5) * stride,
                                    (torch.arange(columns, dtype=torch.float64) + 0.5) * stride,
                                    torch.tensor(sides, dtype=torch.float64), indexing="ij")
        found.append(torch.stack([x / width, y / height, side / width, side / height], -1)
                     .reshape(-1, 4))
    return torch.cat(found).float()


def decode_boxes(loc: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Boxes (..., A, 4) as left, top, right, bottom of offsets (..., A, 4), in the anchors'
    units."""
    centre = anchors[:, :2] + loc[..., :2] * VARIANCES[0] * anchors[:, 2:]
    half = anchors[:, 2:] * torch.exp(loc[..., 2:] * VARIANCES[1]) / 2
    return torch.cat([centre - half, centre + half], -1)


def decode_points(landm: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Landmarks (..., A, points, 2) of offsets (..., A, 2 points), in the anchors' units."""
    offsets = landm.unflatten(-1, (-1, 2))
    return anchors[:, None, :2] + offsets * VARIANCES[0] * anchors[:, None, 2:]


@dataclass(frozen=True)
class Faces:
    """Detections in one image, best first: boxes (n, 4) as left, top, right, bottom; scores (n,) in
    [0, 1]; points (n, points, 2). In pixels, the image's left upper corner being 0 (the first
    pixel's centre is 0.5)."""

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray


def network_input(images: np.ndarray) -> torch.Tensor:
    """(N, 3, H, W) as the network takes it, of uint8 RGB (N, H, W, 3)."""
    bgr = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).float() - torch.tensor(BGR_MEAN)
    return bgr.permute(0, 3, 1, 2)


@torch.no_grad()
def _decoded(network: RetinaFace, images: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Boxes (N, A, 4), scores (N, A) and points (N, A, points, 2) of all anchors, in pixels, on the
    CPU."""
    height, width = images.shape[1:3]
    device = next(network.parameters()).device
    loc, conf, landm = (out.float().cpu() for out in network(network_input(images).to(device)))
    anchors, size = priors(height, width), torch.tensor([width, height])
    boxes, points = decode_boxes(loc, anchors), decode_points(landm, anchors)
    return boxes * size.repeat(2), conf.softmax(-1)[..., 1], points * size


def detect(network: RetinaFace, images: np.ndarray, threshold: float = 0.8,
           overlap: float = 0.4) -> list[Faces]:
    """Faces in each of N images of one size, whatever else is in the batch.

    Args:
        images: uint8 RGB (N, H, W, 3).
        threshold: scores up to it are no faces.
        overlap: of two boxes that overlap by more than this (intersection over union) the better
            one stays.
    """
    return [_suppressed(*one, threshold, overlap) for one in zip(*_decoded(network, images))]


def _suppressed(boxes: torch.Tensor, scores: torch.Tensor, points: torch.Tensor, threshold: float,
                overlap: float) -> Faces:
    from torchvision.ops import nms

    sure = scores > threshold
    boxes, scores, points = boxes[sure], scores[sure], points[sure]
    kept = nms(boxes, scores, overlap)
    return Faces(*(t[kept].numpy() for t in (boxes, scores, points)))


def strongest(network: RetinaFace, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score (N,) and landmarks (N, points, 2) of the most likely face of each image, however
    unlikely that is."""
    _, scores, points = _decoded(network, images)
    best = scores.max(1)
    return best.values.numpy(), points[torch.arange(len(points)), best.indices].double().numpy()


def load_retinaface(path: Path, config: RetinaConfig) -> RetinaFace:
    """The network of a file of its authors, of facexlib or of ours, strictly.

    Raises:
        FsrError: the file is of another network.
    """
    return load_strict(RetinaFace(config), unwrap(read_state(path)), path.name)
