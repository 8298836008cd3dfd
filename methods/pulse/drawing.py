"""MobileStyleGAN's small images, drawn for a search: the same function of the styles as
`mobilestylegan_heads.small_image`, in fewer operations, of that part alone that is looked at.

Of each layer only the window is computed that the wanted part of the image depends on. What does
not depend on the features is multiplied beforehand: the first convolution reads a constant, so it
is one matrix on a style; the factors of a layer's two first modulations meet at the wavelet; the
three modulations of a layer, which share a style, are one matrix.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.mobilestylegan import STYLE, Kernel, Layer, Modulation, Synthesis
from fsrbench.methods.common.mobilestylegan_heads import LinearHead

_SLOPE = 0.2
# Positions from one to another, the latter left out.
Span = tuple[int, int]


@dataclass(frozen=True)
class Steps:
    """What a layer does along one axis.

    Args:
        before: positions of its input that it reads.
        padded: whether its two convolutions see the border, so that they run on the whole axis.
        after: positions of its output.
    """

    before: Span
    padded: tuple[bool, bool]
    after: Span


def layer_steps(wanted: Span, side: int) -> Steps:
    """What a layer must do along an axis of `side` positions behind it for the wanted ones."""
    spans, padded = [wanted], []
    for _ in range(2):
        low, high = spans[-1][0] - 1, spans[-1][1] + 1
        padded.append(low < 0 or high > side)
        spans.append((0, side) if padded[-1] else (low, high))
    before = spans[-1][0] // 2, (spans[-1][1] + 1) // 2
    low, high = 2 * before[0], 2 * before[1]
    for border in reversed(padded):
        low, high = (low, high) if border else (low + 1, high - 1)
    return Steps(before, (padded[1], padded[0]), (low, high))


def plan(wanted: Span, layers: int) -> list[Steps]:
    """What each of so many layers must do along an axis for wanted positions behind the last."""
    steps: list[Steps] = []
    for number in range(layers, 0, -1):
        steps.insert(0, layer_steps(wanted, 4 << number))
        wanted = steps[0].before
    return steps


def _linear(modulations: list[Modulation]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of what a style says of the channels of several modulations."""
    scales = [getattr(m, "scale", torch.ones(1, 1, 1, 1)).flatten() for m in modulations]
    return (torch.cat([m.weight * s for m, s in zip(modulations, scales)]),
            torch.cat([m.bias[0] * s for m, s in zip(modulations, scales)]))


class _First(nn.Module):
    """A style (N, 512) to features (N, C, 4, 4), a window of them."""

    def __init__(self, synthesis: Synthesis, rows: Span, columns: Span):
        super().__init__()
        constant, layer = synthesis.input["input"], synthesis.conv1
        channels, side = constant.shape[1], constant.shape[-1]
        apart = F.conv2d(constant, layer.conv.weight.transpose(0, 1).reshape(-1, 1, 3, 3),
                         padding=1, groups=channels).view(channels, -1, side, side)
        seen = apart[..., slice(*rows), slice(*columns)].permute(2, 3, 1, 0)
        weight, bias = _linear([layer.conv.modulation])
        offset = (layer.noise + layer.bias)[0, :, slice(*rows), slice(*columns)].permute(1, 2, 0)
        self.shape = offset.shape
        self.register_buffer("weight", (seen @ weight).reshape(-1, STYLE))
        self.register_buffer("bias", (seen @ bias + offset).flatten())

    def forward(self, style: torch.Tensor) -> torch.Tensor:
        found = F.leaky_relu_(F.linear(style, self.weight, self.bias), _SLOPE)
        return found.view(len(style), *self.shape).permute(0, 3, 1, 2)


class _Convolution(nn.Module):
    """A convolution behind its modulation, with noise, bias and leaky ReLU, on a window."""

    def __init__(self, layer: nn.Module, padded: tuple[bool, bool], after: tuple[Span, Span]):
        super().__init__()
        kernel: Kernel = layer.conv
        rows, columns = after
        self.padding = tuple(int(border) for border in padded)
        self.register_buffer("deep", kernel.weight_dw.detach())
        self.register_buffer("point", kernel.weight.detach())
        self.register_buffer("bias", layer.bias.detach().flatten())
        self.register_buffer("noise", layer.noise.detach()[..., slice(*rows), slice(*columns)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.deep, padding=self.padding, groups=x.shape[1])
        return F.leaky_relu_(F.conv2d(x, self.point, self.bias).add_(self.noise), _SLOPE)


def _inner(span: Span, padded: bool) -> Span:
    return span if padded else (span[0] + 1, span[1] - 1)


class _Layer(nn.Module):
    """Twice the side, and two convolutions, on a window."""

    def __init__(self, layer: Layer, rows: Steps, columns: Steps, before: tuple[Span, Span]):
        super().__init__()
        self.window = tuple(slice(axis.before[0] - span[0], axis.before[1] - span[0])
                            for axis, span in zip((rows, columns), before))
        middle = tuple(_inner((2 * axis.before[0], 2 * axis.before[1]), axis.padded[0])
                       for axis in (rows, columns))
        self.conv1 = _Convolution(layer.conv1, (rows.padded[0], columns.padded[0]), middle)
        self.conv2 = _Convolution(layer.conv2, (rows.padded[1], columns.padded[1]),
                                  (rows.after, columns.after))
        modulations = [layer.up.modulation, layer.conv1.conv.modulation,
                       layer.conv2.conv.modulation]
        self.widths = [len(m.weight) for m in modulations]
        weight, bias = _linear(modulations)
        # The wavelet halves.
        weight[:self.widths[0]] *= 0.5
        bias[:self.widths[0]] *= 0.5
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        up, one, two = F.linear(style, self.weight, self.bias).split(self.widths, 1)
        up = up * torch.cat([one, one.repeat_interleave(3, 1)], 1)
        x = _unfolded(x[:, :, self.window[0], self.window[1]] * up[..., None, None])
        return self.conv2(self.conv1(x) * two[..., None, None])


def _unfolded(x: torch.Tensor) -> torch.Tensor:
    """Twice the inverse Haar wavelet of `mobilestylegan.unfolded`, channels last."""
    n, c, h, w = x.shape[0], x.shape[1] // 4, *x.shape[2:]
    x = x.permute(0, 2, 3, 1)
    mean, (down, across, both) = x[..., :c], x[..., c:].reshape(n, h, w, c, 3).unbind(-1)
    above, below, left, right = mean + down, mean - down, across + both, across - both
    corners = torch.stack([torch.stack([above + left, above - left], 3),
                           torch.stack([below + right, below - right], 3)], 2)
    return corners.view(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


class Drawing(nn.Module):
    """Styles (N, K, 512) to a window of their images (N, 3, h, w), about -1 to 1, not clipped.

    It is to be made without gradients.

    Args:
        rows, columns: the part of the image that must be in the window; `seen` tells the rows and
            columns that are.
    """

    def __init__(self, synthesis: Synthesis, head: LinearHead, layers: int, rows: Span,
                 columns: Span):
        super().__init__()
        axes = [plan((low // 2, (high + 1) // 2), layers) for low, high in (rows, columns)]
        before = axes[0][0].before, axes[1][0].before
        self.first, found = _First(synthesis, *before), []
        for layer, row, column in zip(synthesis.layers, *axes):
            found.append(_Layer(layer, row, column, before))
            before = row.after, column.after
        self.layers, self.head = nn.ModuleList(found), copy.deepcopy(head)
        self.seen = tuple((2 * low, 2 * high) for low, high in before)

    def forward(self, styles: torch.Tensor) -> torch.Tensor:
        x = self.first(styles[:, 0])
        for i, layer in enumerate(self.layers, 1):
            x = layer(x, styles[:, i])
        return self.head(x)
