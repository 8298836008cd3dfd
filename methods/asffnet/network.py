"""ASFFNet's network (Li et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.reference_blocks import Residual, conv, leaky, pair


@dataclass(frozen=True)
class AsffConfig:
    """Shape of the network.

    Args:
        width: channels of the first level; features have twice as many.
        fold: side of the pixel blocks folded into channels at the entry and unfolded at the exit.
        strides: of the feature extractors' first three convolutions.
        spectral: whether convolutions are spectrally normed.
    """

    width: int = 64
    fold: int = 1
    strides: tuple[int, int, int] = (1, 2, 2)
    spectral: bool = True

    @property
    def reduction(self) -> int:
        """Side of the image by side of the features."""
        return self.fold * int(np.prod(self.strides))


MINI_ASFF = AsffConfig(24, fold=2, strides=(1, 2, 1), spectral=False)


class Features(nn.Module):
    """Feature extractor of an image: (N, 3, S, S) to (N, 2 width, S / reduction, S /
    reduction)."""

    def __init__(self, config: AsffConfig):
        super().__init__()
        self.fold, w, s = config.fold, config.width, config.spectral
        levels, c_in = (w, 2 * w, 4 * w), 3 * config.fold**2
        for i, (c, stride, dilations) in enumerate(zip(levels, config.strides,
                                                       ((7, 5), (5, 3), (3, 1))), 1):
            setattr(self, f"conv{i}", nn.Sequential(conv(c_in, c, stride=stride, spectral=s),
                                                    leaky()))
            for block in (1, 2):
                setattr(self, f"stem{i}_{block}", Residual("stem", pair(c, c, dilations, s)))
            c_in = c
        self.conv4 = nn.Sequential(conv(c_in, 2 * w, spectral=s), leaky())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pixel_unshuffle(x, self.fold)
        for i in (1, 2, 3):
            x = getattr(self, f"stem{i}_2")(getattr(self,
                                                    f"stem{i}_1")(getattr(self, f"conv{i}")(x)))
        return self.conv4(x)


class MaskFeatures(nn.Module):
    """What the landmark mask (N, 1, S, S) says at each position of the features, in (0, 1)."""

    def __init__(self, config: AsffConfig):
        super().__init__()
        w, self.fold, strides = config.width, config.fold, (config.strides[1], 1, config.strides[2])
        layers: list[nn.Module] = []
        shapes = ((config.fold**2, w // 4, 9, strides[0]), (w // 4, w // 2, 7, 1),
                  (w // 2, w, 5, strides[2]), (w, 2 * w, 3, 1), (2 * w, 2 * w, 3, 1))
        for c_in, c_out, kernel, stride in shapes:
            layers += [conv(c_in, c_out, kernel, stride, bias=False, spectral=False), leaky()]
        self.model = nn.Sequential(*layers[:-1], nn.Sigmoid())

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        return self.model(F.pixel_unshuffle(mask, self.fold))


class ComponentFeatures(nn.Module):
    """The warped reference's features, adapted."""

    def __init__(self, channels: int, spectral: bool):
        super().__init__()

        def point():
            return conv(channels, channels, 1, spectral=spectral)

        def block():
            return Residual("Model", pair(channels, channels, spectral=spectral).append(leaky()))
        self.model = nn.Sequential(point(), leaky(), block(), point(), leaky(), block(), point(),
                                   leaky())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class FusionLayer(nn.Module):
    """D + (R - D) M: what I_L and the reference say, mixed by a mask (without a sigmoid) that both
    and the landmarks decide."""

    def __init__(self, c: int, last: bool, spectral: bool):
        super().__init__()
        self.DegradedModel, self.RefModel = (pair(c, c, spectral=spectral) for _ in range(2))
        self.MaskConcat, self.DegradedConcat, self.RefConcat = (
            nn.Sequential(conv(c, c // 2, 1, spectral=spectral)) for _ in range(3))
        self.MaskModel = nn.Sequential(conv(c // 2 * 3, c, bias=False, spectral=spectral), leaky(),
                                       conv(c, c, bias=False, spectral=spectral and last))

    def forward(self, x: torch.Tensor, component: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        degraded, reference = self.DegradedModel(x), self.RefModel(component)
        seen = [self.MaskConcat(mask), self.DegradedConcat(degraded), self.RefConcat(reference)]
        return degraded + (reference - degraded) * self.MaskModel(torch.cat(seen, 1))


class FusionBlock(nn.Module):
    """Two fusion layers, each followed by two convolutions, in a residual."""

    def __init__(self, c: int, spectral: bool):
        super().__init__()
        for i in range(2):
            setattr(self, f"sff{i}", FusionLayer(c, False, spectral))
            setattr(self, f"conv{i}", nn.Sequential(conv(c, c, 5, spectral=spectral), leaky(),
                                                    conv(c, c, spectral=spectral), leaky()))

    def forward(self, x: torch.Tensor, component: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.conv0(self.sff0(x, component, mask))
        return x + self.conv1(self.sff1(h, component, mask))


class MultiScale(nn.Module):
    """Four dilations side by side, merged, in a residual."""

    def __init__(self, c: int, spectral: bool):
        super().__init__()
        for i, dilation in enumerate((4, 3, 2, 1), 1):
            setattr(self, f"conv{i}",
                    nn.Sequential(conv(c, c // 2, dilation=dilation, spectral=spectral), leaky()))
        self.convi = pair(2 * c, c, spectral=spectral)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.convi(torch.cat([getattr(self, f"conv{i}")(x) for i in range(1, 5)], 1))


class UpBlock(nn.Module):
    """Two residuals of two convolutions, each pair at its own dilation."""

    def __init__(self, c: int, dilations: tuple[int, int], spectral: bool):
        super().__init__()
        for i, d in enumerate(dilations):
            setattr(self, f"Model{i}", pair(c, c, (d, d), spectral).append(leaky()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.Model0(x)
        return x + self.Model1(x)


def _upsample(factor: int) -> nn.Module:
    return nn.Upsample(scale_factor=factor, mode="bilinear",
                       align_corners=True) if factor > 1 else nn.Identity()


class AsffNet(nn.Module):
    """The network, with everything that is computed from landmarks given."""

    def __init__(self, config: AsffConfig = AsffConfig()):
        super().__init__()
        self.config, c, s = config, 2 * config.width, config.spectral
        self.sff_branch = nn.ModuleList([*(FusionBlock(c, s) for _ in range(4)),
                                         FusionLayer(c, True, s)])
        self.MSDilate = MultiScale(c, s)
        self.UpModel = nn.Sequential(
            _upsample(config.strides[1]), conv(c, c, spectral=s), leaky(), UpBlock(c, (1, 2), s),
            conv(c, c // 2, spectral=s),
            leaky(), UpBlock(c // 2, (1, 2), s), _upsample(config.strides[2]),
            UpBlock(c // 2, (1, 1), s), conv(c // 2, 3 * config.fold**2, spectral=s), nn.Tanh())
        self.LQ_Model, self.Ref_Model = Features(config), Features(config)
        self.Mask_CModel, self.Component_CModel = MaskFeatures(config), ComponentFeatures(c, s)

    def forward(self, lq: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor,
                grid: torch.Tensor) -> torch.Tensor:
        """Restore.

        Args:
            lq, reference: (N, 3, S, S) in [-1, 1].
            mask: (N, 1, S, S), see `landmark_mask`.
            grid: (N, side, side, 2), see `mls_grid`; side = S / reduction.

        Returns:
            (N, 3, S, S) in (-1, 1).
        """
        f_lq = self.LQ_Model(lq)
        # The statistics are of the reference before its warp, as in the official code.
        warped = F.grid_sample(adain(self.Ref_Model(reference), f_lq), grid, align_corners=False)
        component, mask = self.Component_CModel(warped), self.Mask_CModel(mask)
        h = f_lq
        for block in self.sff_branch:
            h = block(h, component, mask)
        return F.pixel_shuffle(self.UpModel(self.MSDilate(h) + f_lq), self.config.fold)
