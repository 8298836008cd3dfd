"""DMDNet's network (Li et al., TPAMI 2022): features of eyes, nose and mouth from generic and
specific memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.reference_blocks import Residual, conv, leaky, pair

# Parts by their official names, and their rows in a tensor of boxes (the nose is located but not
# used).
PARTS = {"LE": 0, "RE": 1, "MO": 3}
# The official names of the features at 1/2, 1/4 and 1/8 of the side.
SCALES = {"256": 2, "128": 4, "64": 8}


@dataclass(frozen=True)
class DmdConfig:
    """Shape of the network.

    Args:
        width: channels at half the side; twice and four times as many below.
        slots: of the generic dictionary.
        parts: sides in pixels at which left eye, right eye and mouth are read.
        size: side of the image.
        spectral: whether convolutions are spectrally normed.
        learned: whether the generic dictionary is trained by gradient; the official one is kept in
            buffers.
    """

    width: int = 64
    slots: int = 128
    parts: tuple[int, int, int] = (80, 80, 110)
    size: int = 512
    spectral: bool = True
    learned: bool = False

    def shape(self, part: str, scale: str) -> tuple[int, int]:
        """Channels and side of a part's features."""
        factor = SCALES[scale]
        return self.width * factor // 2, self.parts[list(PARTS).index(part)] // factor


MINI_DMD = DmdConfig(16, slots=96, parts=(16, 16, 20), size=64, spectral=False, learned=True)
# (part, scale) -> tensors.
Keyed = dict[tuple[str, str], torch.Tensor]
# A person's keys and values, each (R, ...) over the references.
Dictionary = tuple[Keyed, Keyed]


def _pairs() -> list[tuple[str, str]]:
    return [(part, scale) for scale in SCALES for part in PARTS]


class Named(nn.Module):
    """A sequence under a name of its own."""

    def __init__(self, name: str, inner: nn.Module):
        super().__init__()
        self.name = name
        setattr(self, name, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.name)(x)


class KeyValue(nn.Module):
    """Key and value of a part's features, for a personal dictionary."""

    def __init__(self, c: int, spectral: bool):
        super().__init__()
        self.Key, self.Value = pair(c, c // 4, spectral=spectral), pair(c, c, spectral=spectral)


class MaskAttention(nn.Module):
    """How far the personal memory is to be trusted at each position, from the part and both
    memories."""

    def __init__(self, c: int, spectral: bool):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (pair(c, c // 3, spectral=spectral) for _ in range(3))
        self.convCat = pair(3 * (c // 3), c, spectral=spectral)

    def forward(self, part: torch.Tensor, specific: torch.Tensor,
                generic: torch.Tensor) -> torch.Tensor:
        return self.convCat(torch.cat([self.conv1(part), self.conv2(specific), self.conv3(generic)],
                                      1))


class Features(nn.Module):
    """Features at three sides, and the queries made of their parts."""

    def __init__(self, config: DmdConfig):
        super().__init__()
        s, c_in = config.spectral, 3
        for level, dilations in enumerate(((5, 3), (3, 1), (1, 1))):
            c = config.width << level
            first, second = 2 * level + 1, 2 * level + 2
            setattr(self, f"conv{first}", nn.Sequential(conv(c_in, c, stride=2, spectral=s),
                                                        leaky(), conv(c, c, spectral=s)))
            setattr(self, f"conv{second}", pair(c, c, spectral=s))
            for i in (first, second):
                setattr(self, f"res{i}", Residual("Res", pair(c, c, dilations, s)))
            c_in = c
        for part, scale in _pairs():
            c, _ = config.shape(part, scale)
            setattr(self, f"{part}_{scale}_Q", Named("Query", pair(c, c // 4, spectral=s)))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Official name of the side -> features."""
        found = {}
        for level, scale in enumerate(SCALES):
            for i in (2 * level + 1, 2 * level + 2):
                x = getattr(self, f"res{i}")(getattr(self, f"conv{i}")(x))
            found[scale] = x
        return found


class MultiScale(nn.Module):
    """Four dilations side by side, merged, in a residual."""

    def __init__(self, c: int, spectral: bool):
        super().__init__()
        for i, d in enumerate((4, 3, 2, 1), 1):
            setattr(self, f"conv{i}", pair(c, c, (d, d), spectral))
        self.convi = conv(4 * c, c, spectral=spectral)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.convi(torch.cat([getattr(self, f"conv{i}")(x) for i in range(1, 5)], 1))


class StyledUp(nn.Module):
    """Features scaled and shifted by those with the restored parts, then upsampled."""

    def __init__(self, c_in: int, c_out: int, spectral: bool):
        super().__init__()
        self.conv1, self.ScaleModel1, self.ShiftModel1 = (pair(c_in, c_out, spectral=spectral)
                                                          for _ in range(3))
        self.convup = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear",
                                                align_corners=False),
                                    conv(c_out, c_out, spectral=spectral), leaky(),
                                    conv(c_out, c_out, spectral=spectral))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        h = F.leaky_relu(self.conv1(x), 0.2)
        return self.convup(h * self.ScaleModel1(style) + self.ShiftModel1(style))


def _axis(start: torch.Tensor, extent: torch.Tensor, n: int, side: int) -> torch.Tensor:
    """Positions (N, n) in source nodes of n target nodes over a stretch, as bilinear resizing
    (corners not aligned) takes them; in units of `grid_sample` with aligned corners for a source of
    that side."""
    centre = (torch.arange(n, device=start.device) + 0.5) * (extent / n)[:, None] - 0.5
    source = start[:, None] + torch.minimum(centre.clamp(min=0), extent[:, None] - 1)
    return source / max(side - 1, 1) * 2 - 1


def _sampled(source: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Source (N, C, h, w) at columns x (N, n) and rows y (N, m), (N, C, m, n).

    At least in float32, as half precision cannot tell positions between nodes.
    """
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    kind = torch.promote_types(source.dtype, grid.dtype)
    return F.grid_sample(source.to(kind), grid.to(kind), padding_mode="border",
                         align_corners=True).to(source.dtype)


def cropped(features: torch.Tensor, boxes: torch.Tensor, factor: int, side: int) -> torch.Tensor:
    """One part of each image's features (N, C, side, side): the box cut out and resized, for the
    whole batch at once.

    Args:
        boxes: (N, 4) in the image's pixels; factor: of the image's side to the features'.
    """
    left, top, right, bottom = (boxes // factor).to(features.device).unbind(1)
    x, y = (_axis(a, b - a, side, features.shape[-1]) for a, b in ((left, right), (top, bottom)))
    return _sampled(features, x, y)


def pasted(features: torch.Tensor, parts: torch.Tensor, boxes: torch.Tensor,
           factor: int) -> torch.Tensor:
    """The features with one part of each image resized to its box and put there."""
    left, top, right, bottom = (boxes // factor).to(features.device)[:, :, None].unbind(1)
    n, side = torch.arange(features.shape[-1], device=features.device), parts.shape[-1]

    def axis(low, high):
        node = ((n - low + 0.5) * side / (high - low) - 0.5).clamp(0, side - 1)
        return node / max(side - 1, 1) * 2 - 1
    inside = ((n >= left) & (n < right))[:, None, None, :] & ((n >= top) & (n < bottom))[:, None, :,
                                                                                         None]
    return torch.where(inside, _sampled(parts, axis(left, right), axis(top, bottom)), features)


def read(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values (N, C, h, w) of a dictionary, weighted by the softmax of query times key over the root
    of their number."""
    return torch.einsum("nk,kchw->nchw", scores(query, keys), values)


def scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """(N, slots), adding up to one; in float64, as products of whole parts are large and then stand
    in an exponent."""
    products = query.double().flatten(1) @ keys.double().flatten(1).T
    return torch.softmax(products / len(keys)**0.5, 1).to(query.dtype)


class DmdNet(nn.Module):
    """The network."""

    def __init__(self, config: DmdConfig = DmdConfig()):
        super().__init__()
        self.config, s, w = config, config.spectral, config.width
        for part, scale in _pairs():
            c, side = config.shape(part, scale)
            for kind, channels in (("key", c // 4), ("value", c)):
                memory = torch.randn(config.slots, channels, side, side) * 0.1
                name = f"{part.lower()}_{scale}_mem_{kind}"
                if config.learned:
                    self.register_parameter(name, nn.Parameter(memory))
                else:
                    self.register_buffer(name, memory)
            setattr(self, f"{part}_{scale}_KV", KeyValue(c, s))
            setattr(self, f"{part}_{scale}_Attention", pair(c, c, spectral=s))
            setattr(self, f"{part}_{scale}_Mask", MaskAttention(c, s))
        self.E_lq, self.E_hq = Features(config), Features(config)
        self.MSDilate = MultiScale(4 * w, s)
        self.up1, self.up2, self.up3 = StyledUp(4 * w, 2 * w, s), StyledUp(2 * w, w,
                                                                           s), StyledUp(w, w, s)
        self.up4 = nn.Sequential(conv(w, w, spectral=s), leaky(),
                                 *(Residual("Model", pair(w, w, spectral=s)) for _ in "12"),
                                 conv(w, 3, spectral=s), nn.Tanh())

    def parts(self, features: dict[str, torch.Tensor], boxes: torch.Tensor) -> Keyed:
        """All parts of all images."""
        return {(part, scale): cropped(features[scale], boxes[:, PARTS[part]], SCALES[scale],
                                       self.config.shape(part, scale)[1])
                for part, scale in _pairs()}

    def memorise(self, references: torch.Tensor, boxes: torch.Tensor, counts: Sequence[int]
                 | None = None) -> list[Dictionary]:
        """Personal dictionaries of references (M, 3, S, S) in [-1, 1].

        Args:
            boxes: (M, 4, 4), see `part_boxes`.
            counts: how many of them belong to each person in turn; all to one by default.
        """
        parts, counts = self.parts(self.E_hq(references), boxes), list(counts or [len(references)])
        keys = {at: getattr(self, "{}_{}_KV".format(*at)).Key(value).split(counts)
                for at, value in parts.items()}
        values = {at: getattr(self, "{}_{}_KV".format(*at)).Value(value).split(counts)
                  for at, value in parts.items()}
        return [({at: k[i] for at, k in keys.items()}, {at: v[i] for at, v in values.items()})
                for i in range(len(counts))]

    def remember(self, references: torch.Tensor, boxes: torch.Tensor) -> Keyed:
        """The values of one reference (N, 3, S, S) for each image: all that is read from a personal
        dictionary of one, as the softmax over one slot is 1."""
        return {at: getattr(self, "{}_{}_KV".format(*at)).Value(value)
                for at, value in self.parts(self.E_hq(references), boxes).items()}

    def memory(self, queries: Keyed, parts: Keyed, dictionaries: Sequence[Dictionary] | Keyed
               | None) -> Keyed:
        """What the dictionaries hold for each part, with the part's statistics."""
        found = {}
        for (part, scale), query in queries.items():
            at, name = (part, scale), f"{part.lower()}_{scale}_mem"
            found[at] = generic = read(query, getattr(self, f"{name}_key"),
                                       getattr(self, f"{name}_value"))
            if dictionaries is not None:
                own = dictionaries[at] if isinstance(dictionaries, dict) else torch.cat(
                    [read(q[None], keys[at], values[at])
                     for q, (keys, values) in zip(query, dictionaries)])
                share = getattr(self, f"{part}_{scale}_Mask")(parts[at], own, generic)
                found[at] = share * own + (1 - share) * generic
        return {at: adain(value, parts[at]) for at, value in found.items()}

    def queries(self, parts: Keyed) -> Keyed:
        """What is asked for."""
        return {at: getattr(self.E_lq, "{}_{}_Q".format(*at))(value) for at, value in parts.items()}

    def forward(self, lq: torch.Tensor, boxes: torch.Tensor,
                dictionaries: Sequence[Dictionary] | Keyed | None = None) -> torch.Tensor:
        """Restore.

        Args:
            lq: (N, 3, S, S) in [-1, 1]; boxes: (N, 4, 4), see `part_boxes`.
            dictionaries: one of each image's person, or what `remember` gave; None to go by the
                generic one alone.

        Returns:
            (N, 3, S, S) in (-1, 1).
        """
        features = self.E_lq(lq)
        parts = self.parts(features, boxes)
        memory = self.memory(self.queries(parts), parts, dictionaries)
        restored = dict(features)
        for (part, scale), value in memory.items():
            attention = getattr(self, f"{part}_{scale}_Attention")
            final = attention(value - parts[part, scale]) * value + parts[part, scale]
            # The boxes of the parts may meet: the later one lies on top.
            restored[scale] = pasted(restored[scale], final.to(restored[scale].dtype),
                                     boxes[:, PARTS[part]], SCALES[scale])
        h = self.up1(self.MSDilate(features["64"]), restored["64"])
        return self.up4(self.up3(self.up2(h, restored["128"]), restored["256"]))
