"""MobileStyleGAN (Belousov 2021): StyleGAN2 on FFHQ, distilled to cheap convolutions and wavelets.

z (N, 512) to a style w by the mapping network, w to an image of 1024 px in FFHQ's frame. A style
may be given layer by layer, so that faces are mixed. Source: the OpenVINO IR of random-face, whose
demodulation and noise are constants: one w is one image. It stands here, as data sets and methods
draw from it; `harness` knows no network of a paper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.weights.catalogue import WeightFile, Wheel, register, require
from fsrbench.weights.networks import device, load_strict
from fsrbench.weights.openvino import read_constants

LICENCE = ("Apache-2.0 by its file, UNKNOWN by its metadata (random-face); distilled from "
           "StyleGAN2 on FFHQ, non-commercial")
_DIGESTS = {
    "MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
    "MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
    "SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
    "SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645"}
for _file, _digest in _DIGESTS.items():
    _own = f"mobilestylegan-{_file.lower().replace('network', '')}"
    register(WeightFile(
        _own.replace(".", "-"), _own, _digest, LICENCE, "--data synthetic:N, pulse.official-prior",
        (Wheel("random-face==2021.7.21.1", f"random_face/data/{_file}"),)))
PARTS = ("mapping", "synthesis")
WEIGHTS = tuple(f"mobilestylegan-{part}-{kind}" for part in PARTS for kind in ("xml", "bin"))

STYLE = 512
# Channels behind the layers, of sides 8, 16, ... 512; before them, at side 4, as behind the first.
WIDTHS = (512, 512, 512, 512, 256, 128, 64)
_SLOPE = 0.2


class Mapping(nn.Module):
    """z (N, 512), standard normal, to w (N, 512)."""

    def __init__(self, depth: int = 8, width: int = STYLE):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            z = F.leaky_relu(layer(z), _SLOPE) * 2**0.5
        return z


class Modulation(nn.Module):
    """Features (N, C, h, w) times what a style (N, 512) says of each channel."""

    def __init__(self, channels: int, scaled: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, STYLE))
        self.bias = nn.Parameter(torch.zeros(1, channels))
        if scaled:
            self.register_buffer("scale", torch.ones(1, 1, 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        factor = F.linear(style, self.weight, self.bias[0])[..., None, None]
        return x * (factor * self.scale if hasattr(self, "scale") else factor)


class Kernel(nn.Module):
    """A modulated convolution: of 3x3, or depthwise of 3x3 and then pointwise."""

    def __init__(self, c_in: int, c_out: int, side: int = 1, depthwise: bool = True):
        super().__init__()
        self.modulation = Modulation(c_in)
        if depthwise:
            self.weight_dw = nn.Parameter(torch.zeros(c_in, 1, 3, 3))
        self.weight = nn.Parameter(torch.zeros(c_out, c_in, side, side))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        x = self.modulation(x, style)
        if hasattr(self, "weight_dw"):
            x = F.conv2d(x, self.weight_dw, padding=1, groups=x.shape[1])
        return F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)


class Convolution(nn.Module):
    """A modulated convolution with its constant noise, its bias and a leaky ReLU."""

    def __init__(self, side: int, *kernel):
        super().__init__()
        self.conv = Kernel(*kernel)
        self.noise = nn.Parameter(torch.zeros(1, 1, side, side))
        self.bias = nn.Parameter(torch.zeros(1, self.conv.weight.shape[0], 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.conv(x, style) + self.noise + self.bias, _SLOPE)


def unfolded(x: torch.Tensor) -> torch.Tensor:
    """Inverse Haar wavelet (N, C, 2h, 2w) of (N, 4 C, h, w): C means, then C threes of differences
    down, across and both ways."""
    n, c, h, w = x.shape[0], x.shape[1] // 4, *x.shape[2:]
    mean, (down, across, both) = x[:, :c], x[:, c:].view(n, c, 3, h, w).unbind(2)
    above, below, left, right = mean + down, mean - down, across + both, across - both
    corners = torch.stack([above + left, above - left, below + right, below - right], 2)
    return F.pixel_shuffle(corners.flatten(1, 2) * 0.5, 2)


class Up(nn.Module):
    """Features (N, C, h, w) to (N, C / 4, 2h, 2w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.modulation = Modulation(channels, scaled=False)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return unfolded(self.modulation(x, style))


class Head(nn.Module):
    """An image (N, 3, 2h, 2w) out of features (N, C, h, w), in the wavelet's coefficients."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Kernel(channels, 12, depthwise=False)
        self.bias = nn.Parameter(torch.zeros(1, 12, 1, 1))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return unfolded(self.conv(x, style) + self.bias)


class Layer(nn.Module):
    """Twice the side, and two convolutions; the last layer has the head."""

    def __init__(self, side: int, c_in: int, c_out: int, last: bool):
        super().__init__()
        self.up, self.conv1 = Up(c_in), Convolution(side, c_in // 4, c_out)
        self.conv2 = Convolution(side, c_out, c_out)
        if last:
            self.to_img = Head(c_out)

    def forward(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(self.up(x, styles[0]), styles[1]), styles[2])


class Synthesis(nn.Module):
    """A style to an image of 1024 px.

    A style is (N, 512) for all layers, or (N, 8, 512): of the first convolution and of each layer.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.input = nn.ParameterDict({"input": nn.Parameter(torch.zeros(1, widths[0], 4, 4))})
        self.conv1 = Convolution(4, widths[0], widths[0], 3, False)
        self.layers = nn.ModuleList(
            Layer(8 << i, c_in, c_out, i == len(widths) - 1)
            for i, (c_in, c_out) in enumerate(zip((widths[0], *widths), widths)))

    def forward(self, style: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, 1024, 1024), about -1 to 1, not clipped."""
        style = whole(style)
        return self.layers[-1].to_img(self.features(style), style[:, -1])

    def features(self, style: torch.Tensor, layers: int | None = None) -> torch.Tensor:
        """Features (N, C, h, h) behind so many layers; h is 4 behind none and doubles with each."""
        style = whole(style)
        x = self.conv1(self.input["input"].expand(len(style), -1, -1, -1), style[:, 0])
        for i, layer in enumerate(self.layers[:layers], 1):
            x = layer(x, style[:, i].expand(3, -1, -1))
        return x


def whole(style: torch.Tensor) -> torch.Tensor:
    """A style (N, 512) or (N, 8, 512) as (N, 8, 512)."""
    return style if style.ndim == 3 else style[:, None].expand(-1, len(WIDTHS) + 1, -1)


def _mapping_state(constants: list[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Weights and biases are those of two dimensions and of one with 512 values, in turn."""
    values = [value for _, value in constants if value.shape in ((STYLE, STYLE), (STYLE,))]
    return {f"layers.{i // 2}.{('weight', 'bias')[i % 2]}": value for i, value in enumerate(values)}


def _synthesis_state(constants: list[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What has no name in the file stands between two that have: a modulation's scale is behind its
    bias, a folded kernel and the noise are before the bias that is added to them."""
    state, before, unnamed = {}, "", []
    for name, value in constants:
        if name.startswith("m."):
            name, (stem, _, last) = name[2:], name[2:].rpartition(".")
            if last == "bias" and not stem.endswith("modulation"):
                state |= zip((f"{stem}.conv.weight", f"{stem}.noise"), unnamed)
            state[name] = value[:, :, 0] if last == "weight_dw" else value
            before, unnamed = stem, []
        elif value.shape == (1, 1, 1, 1) and before.endswith("modulation"):
            state[f"{before}.scale"] = value
        elif value.ndim == 4:
            unnamed.append(value)
    return state


def _loaded(network: nn.Module, part: str, state_of: Callable) -> nn.Module:
    paths = (require(f"mobilestylegan-{part}-{kind}") for kind in ("xml", "bin"))
    return load_strict(network, state_of(read_constants(*paths)), f"mobilestylegan-{part}")


@lru_cache(maxsize=2)
def _read(place: str) -> tuple[Mapping, Synthesis]:
    # The first caller may be in inference mode; such weights could not be differentiated through.
    with torch.inference_mode(False):
        return (_loaded(Mapping(), "mapping", _mapping_state).to(place),
                _loaded(Synthesis(), "synthesis", _synthesis_state).to(place))


def load_generator(place: str | None = None) -> tuple[Mapping, Synthesis]:
    """The mapping and the synthesis network on a device, by default where networks run.

    Raises:
        FsrError: their files cannot be had.
    """
    return _read(place or device())
