"""DMDNet (Li et al., TPAMI 2022): eyes and mouth are restored by what a generic and a personal dictionary hold of such parts.

Source: csxmli2016/DMDNet (CC BY-NC-SA 4.0), for 512 pixels, trained on CelebRef-HQ. The official code restores one picture at
a time; here a batch is restored, each picture with its own boxes and its own person's dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.core import Part, Picture
from fsrbench.methods.adain import adain
from fsrbench.methods.prior import LFW_LICENCE
from fsrbench.methods.reference_blocks import Residual, conv, filled_spectral, leaky, pair
from fsrbench.methods.references import ReferenceMethod, register_mini, register_tags
from fsrbench.parity import Recipe, bilinear, channel_error, check, error, input_error, layout
from fsrbench.weights import Url, WeightFile, register

LICENCE = "CC BY-NC-SA 4.0 (csxmli2016/DMDNet); trained on CelebRef-HQ, perhaps on the paper's test people"
register(WeightFile("dmdnet", "DMDNet.pth", "", LICENCE, "dmdnet.official",
                    (Url("https://github.com/csxmli2016/DMDNet/releases/download/v1/DMDNet.pth"),)))

# Parts by their official names, and their rows in a tensor of boxes (the nose is located but not used).
PARTS = {"LE": 0, "RE": 1, "MO": 3}
# The official names of the features at 1/2, 1/4 and 1/8 of the side.
SCALES = {"256": 2, "128": 4, "64": 8}
_EYES = ((np.r_[36:42], np.r_[17:22, 36:42]), (np.r_[42:48], np.r_[22:27, 42:48]))


@dataclass(frozen=True)
class DmdConfig:
    """Shape of the network.

    Args:
        width: channels at half the side; twice and four times as many below.
        slots: of the generic dictionary.
        parts: sides in pixels at which left eye, right eye and mouth are read.
        size: side of the picture.
        spectral: whether convolutions are spectrally normed.
        learned: whether the generic dictionary is trained by gradient; the official one is kept in buffers.
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


def part_boxes(points: np.ndarray, size: int) -> np.ndarray:
    """Boxes of left eye, right eye, nose and mouth, int64 (4, 4) rows of (left, top, right, bottom) in pixels.

    The official arithmetic at 512 pixels, and the same share of the face at other sizes.

    Args:
        points: (68, 2) landmarks in the picture's pixels.

    Raises:
        ValueError: an eye or the mouth is not in the picture (the official script gives the picture up there).
    """
    k = size / 512
    p = np.clip(np.asarray(points, np.float64), 8 * k, 504 * k)
    boxes = []
    for eye, around in _EYES:
        c = p[eye].mean(0)
        above = 1.3 * (c[1] - p[around, 1].min())
        below = above / 1.9
        half = (above + below) / 2
        boxes.append([*(c - [half, above] + k), *(c + [half, below])])
    c = p[29:36].mean(0)
    half, below = 1.25 * max(c[0] - p[31, 0], p[35, 0] - c[0]), 1.1 * (p[33, 1] - c[1])
    boxes.append([*(c - [half, 2 * half - below] + k), *(c + [half, below])])
    mouth = p[48:68]
    c, reach = mouth.mean(0), 1.1 * max(np.ptp(mouth, axis=0).max() / 2, 16 * k)
    boxes.append([*(c - reach + k), *np.minimum(c + reach, 510 * k)])
    found = np.trunc(np.array(boxes)).astype(np.int64)
    used = found[list(PARTS.values())]
    coarsest = used // max(SCALES.values())
    if (used[:, :2] < 0).any() or (used[:, 2:] > size).any() or (coarsest[:, 2:] <= coarsest[:, :2]).any():
        raise ValueError("by its landmarks an eye or the mouth is not in the picture")
    return found


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
    """How far the personal memory is to be trusted at each position, from the part and both memories."""

    def __init__(self, c: int, spectral: bool):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (pair(c, c // 3, spectral=spectral) for _ in range(3))
        self.convCat = pair(3 * (c // 3), c, spectral=spectral)

    def forward(self, part: torch.Tensor, specific: torch.Tensor, generic: torch.Tensor) -> torch.Tensor:
        return self.convCat(torch.cat([self.conv1(part), self.conv2(specific), self.conv3(generic)], 1))


class Features(nn.Module):
    """Features at three sides, and the queries made of their parts."""

    def __init__(self, config: DmdConfig):
        super().__init__()
        s, c_in = config.spectral, 3
        for level, dilations in enumerate(((5, 3), (3, 1), (1, 1))):
            c = config.width << level
            first, second = 2 * level + 1, 2 * level + 2
            setattr(self, f"conv{first}", nn.Sequential(conv(c_in, c, stride=2, spectral=s), leaky(), conv(c, c, spectral=s)))
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
    """Features scaled and shifted by those with the restored parts, then enlarged."""

    def __init__(self, c_in: int, c_out: int, spectral: bool):
        super().__init__()
        self.conv1, self.ScaleModel1, self.ShiftModel1 = (pair(c_in, c_out, spectral=spectral) for _ in range(3))
        self.convup = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                                    conv(c_out, c_out, spectral=spectral), leaky(), conv(c_out, c_out, spectral=spectral))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        h = F.leaky_relu(self.conv1(x), 0.2)
        return self.convup(h * self.ScaleModel1(style) + self.ShiftModel1(style))


def _axis(start: torch.Tensor, extent: torch.Tensor, n: int, side: int) -> torch.Tensor:
    """Positions (N, n) in source nodes of n target nodes over a stretch, as bilinear resizing (corners not aligned) takes
    them; in units of `grid_sample` with aligned corners for a source of that side."""
    centre = (torch.arange(n, device=start.device) + 0.5) * (extent / n)[:, None] - 0.5
    source = start[:, None] + torch.minimum(centre.clamp(min=0), extent[:, None] - 1)
    return source / max(side - 1, 1) * 2 - 1


def _sampled(source: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Source (N, C, h, w) at columns x (N, n) and rows y (N, m), (N, C, m, n).

    At least in float32, as half precision cannot tell positions between nodes.
    """
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    kind = torch.promote_types(source.dtype, grid.dtype)
    return F.grid_sample(source.to(kind), grid.to(kind), padding_mode="border", align_corners=True).to(source.dtype)


def cropped(features: torch.Tensor, boxes: torch.Tensor, factor: int, side: int) -> torch.Tensor:
    """One part of each picture's features (N, C, side, side): the box cut out and resized, for the whole batch at once.

    Args:
        boxes: (N, 4) in the picture's pixels; factor: of the picture's side to the features'.
    """
    left, top, right, bottom = (boxes // factor).to(features.device).unbind(1)
    x, y = (_axis(a, b - a, side, features.shape[-1]) for a, b in ((left, right), (top, bottom)))
    return _sampled(features, x, y)


def pasted(features: torch.Tensor, parts: torch.Tensor, boxes: torch.Tensor, factor: int) -> torch.Tensor:
    """The features with one part of each picture resized to its box and put there."""
    left, top, right, bottom = (boxes // factor).to(features.device)[:, :, None].unbind(1)
    n, side = torch.arange(features.shape[-1], device=features.device), parts.shape[-1]

    def axis(low, high):
        node = ((n - low + 0.5) * side / (high - low) - 0.5).clamp(0, side - 1)
        return node / max(side - 1, 1) * 2 - 1
    inside = ((n >= left) & (n < right))[:, None, None, :] & ((n >= top) & (n < bottom))[:, None, :, None]
    return torch.where(inside, _sampled(parts, axis(left, right), axis(top, bottom)), features)


def read(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values (N, C, h, w) of a dictionary, weighted by the softmax of query times key over the root of their number."""
    return torch.einsum("nk,kchw->nchw", scores(query, keys), values)


def scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """(N, slots), adding up to one; in float64, as products of whole parts are large and then stand in an exponent."""
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
                self.register_parameter(name, nn.Parameter(memory)) if config.learned else self.register_buffer(name, memory)
            setattr(self, f"{part}_{scale}_KV", KeyValue(c, s))
            setattr(self, f"{part}_{scale}_Attention", pair(c, c, spectral=s))
            setattr(self, f"{part}_{scale}_Mask", MaskAttention(c, s))
        self.E_lq, self.E_hq = Features(config), Features(config)
        self.MSDilate = MultiScale(4 * w, s)
        self.up1, self.up2, self.up3 = StyledUp(4 * w, 2 * w, s), StyledUp(2 * w, w, s), StyledUp(w, w, s)
        self.up4 = nn.Sequential(conv(w, w, spectral=s), leaky(), *(Residual("Model", pair(w, w, spectral=s)) for _ in "12"),
                                 conv(w, 3, spectral=s), nn.Tanh())

    def parts(self, features: dict[str, torch.Tensor], boxes: torch.Tensor) -> Keyed:
        """All parts of all pictures."""
        return {(part, scale): cropped(features[scale], boxes[:, PARTS[part]], SCALES[scale], self.config.shape(part, scale)[1])
                for part, scale in _pairs()}

    def memorise(self, references: torch.Tensor, boxes: torch.Tensor, counts: Sequence[int] | None = None) -> list[Dictionary]:
        """Personal dictionaries of references (M, 3, S, S) in [-1, 1].

        Args:
            boxes: (M, 4, 4), see `part_boxes`.
            counts: how many of them belong to each person in turn; all to one by default.
        """
        parts, counts = self.parts(self.E_hq(references), boxes), list(counts or [len(references)])
        keys = {at: getattr(self, "{}_{}_KV".format(*at)).Key(value).split(counts) for at, value in parts.items()}
        values = {at: getattr(self, "{}_{}_KV".format(*at)).Value(value).split(counts) for at, value in parts.items()}
        return [({at: k[i] for at, k in keys.items()}, {at: v[i] for at, v in values.items()}) for i in range(len(counts))]

    def remember(self, references: torch.Tensor, boxes: torch.Tensor) -> Keyed:
        """The values of one reference (N, 3, S, S) for each image: all that is read from a personal dictionary of one, as
        the softmax over one slot is 1."""
        return {at: getattr(self, "{}_{}_KV".format(*at)).Value(value)
                for at, value in self.parts(self.E_hq(references), boxes).items()}

    def memory(self, queries: Keyed, parts: Keyed, dictionaries: Sequence[Dictionary] | Keyed | None) -> Keyed:
        """What the dictionaries hold for each part, with the part's statistics."""
        found = {}
        for (part, scale), query in queries.items():
            at, name = (part, scale), f"{part.lower()}_{scale}_mem"
            found[at] = generic = read(query, getattr(self, f"{name}_key"), getattr(self, f"{name}_value"))
            if dictionaries is not None:
                own = dictionaries[at] if isinstance(dictionaries, dict) else torch.cat(
                    [read(q[None], keys[at], values[at]) for q, (keys, values) in zip(query, dictionaries)])
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
            dictionaries: one of each picture's person, or what `remember` gave; None to go by the generic one alone.

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
            restored[scale] = pasted(restored[scale], final.to(restored[scale].dtype), boxes[:, PARTS[part]], SCALES[scale])
        h = self.up1(self.MSDilate(features["64"]), restored["64"])
        return self.up4(self.up3(self.up2(h, restored["128"]), restored["256"]))


class DmdNetMethod(ReferenceMethod):
    """DMDNet with the person's own dictionary beside the generic one."""

    title, paper, origin = "DMDNet", "dmdnet", "DMDNet (TPAMI 2022), csxmli2016/DMDNet"
    config: DmdConfig

    def prepare(self, points: np.ndarray, pictures: tuple[Picture, ...]) -> tuple:
        """Boxes of I_L's parts, references, and boxes of theirs; references whose parts leave the picture are not used."""
        boxes, (images, landmarks) = part_boxes(points, self.native), self.pictures(pictures)
        kept = {}
        for i, reference in enumerate(landmarks):
            try:
                kept[i] = part_boxes(reference, self.native)
            except ValueError:
                continue
        if not kept:
            raise ValueError("no reference shows eyes and mouth")
        return boxes, images[list(kept)], np.stack(list(kept.values()))

    def infer(self, lq: torch.Tensor, prepared: list) -> torch.Tensor:
        """The network on all samples at once, each with its own dictionary."""
        network, (boxes, images, reference_boxes) = self.part("network"), zip(*prepared)
        dictionaries = network.memorise(torch.cat(images).to(lq.device), torch.from_numpy(np.concatenate(reference_boxes)),
                                        [len(i) for i in images])
        return network(lq, torch.from_numpy(np.stack(boxes)), dictionaries)


def _inputs(size: int):
    box = torch.tensor([0, 0, size // 4, size // 4], device="cpu")
    return lambda: (torch.zeros(1, 3, size, size), box.expand(1, 4, 4))


register_mini("dmdnet")
register_tags(DmdNetMethod, "official", DmdConfig(), 512, LICENCE, Part("dmdnet", DmdNet, _inputs(512)))
register_tags(DmdNetMethod, "mini", MINI_DMD, 64, LFW_LICENCE, Part("dmdnet-mini", partial(DmdNet, MINI_DMD), _inputs(64)))


@layout("dmdnet")
def _layout(official: dict) -> nn.Module:
    return DmdNet(DmdConfig(official["ngf"], official["banks_num"]))


def _statistics_error(value: torch.Tensor, fixture: dict, name: str) -> float:
    """Relative error of the first channels' means and, unlike elsewhere, unbiased deviations."""
    channels = value.double().transpose(0, 1).flatten(1)[:len(fixture[f"{name}_mean"])]
    return max(error(channels.mean(1), fixture[f"{name}_mean"], True), error(channels.std(1), fixture[f"{name}_std"], True))


def _dictionary_error(dictionary: Dictionary, fixture: dict) -> float:
    """Of the personal dictionary."""
    worst = 0.0
    for kind, tensors in zip(("Key", "Value"), dictionary):
        for (part, scale), value in tensors.items():
            name = f"dict_{part}{scale}{kind}"
            same = list(value.shape) == fixture[f"{name}_shape"].tolist()
            worst = max(worst, _statistics_error(value, fixture, name) if same else float("inf"))
    return worst


def _memory_error(network: DmdNet, queries: Keyed, parts: Keyed, dictionaries: list[Dictionary], fixture: dict) -> float:
    """Of what is read from the dictionaries. Exponentials of products near 300 lose a digit in the recording, so that twice
    the tolerance is allowed."""
    found = []
    for (part, scale), query in queries.items():
        low = f"{part.lower()}_{scale}"
        found.append(error(scores(query, getattr(network, f"{low}_mem_key"))[0], fixture[f"score_{low}"]))
    for kind, known in (("gen", None), ("spe", dictionaries)):
        for (part, scale), value in network.memory(queries, parts, known).items():
            name = f"{kind}_{part}{scale}Norm"
            means = value.double().mean((0, 2, 3))[:len(fixture[f"{name}_mean"])]
            found += [error(means, fixture[f"{name}_mean"]), error(value[0, :4, :4, :4], fixture[f"{name}_corner"], True)]
    return max(found) / 2


@check("dmdnet", 2e-5)
def _parity(fixture: dict) -> float:
    recipe = Recipe(fixture)
    images = [bilinear(recipe.uniform(recipe.shapes[0]), 512) for _ in range(1 + len(fixture["ref_landmarks"]))]
    boxes = part_boxes(fixture["lq_landmarks"], 512)
    reference_boxes = np.stack([part_boxes(points, 512) for points in fixture["ref_landmarks"]])
    worst = max(input_error(images[0], fixture), error(boxes[None], fixture["lq_loc"]),
                error(reference_boxes, fixture["ref_loc"]))
    boxes, network = torch.from_numpy(boxes)[None], filled_spectral(DmdNet(), ("_mem_",))
    dictionaries = network.memorise(torch.cat(images[1:]), torch.from_numpy(reference_boxes))
    worst = max(worst, _dictionary_error(dictionaries[0], fixture))
    features = network.E_lq(images[0])
    parts = network.parts(features, boxes)
    queries = network.queries(parts)
    worst = max(worst, *(_statistics_error(value, fixture, f"fs_f{scale}") for scale, value in features.items()),
                _memory_error(network, queries, parts, dictionaries, fixture))
    outputs = {"generic": network(images[0], boxes), "specific": network(images[0], boxes, dictionaries)}
    for name, out in outputs.items():
        stride = int(fixture[f"{name}_stride"][0])
        worst = max(worst, channel_error(out, fixture, name), error(out[..., ::stride, ::stride], fixture[f"{name}_sample"]))
    top, left = fixture["mouth_crop_origin_yx"]
    return max(worst, error(outputs["specific"][..., top:top + 48, left:left + 48], fixture["specific_mouth_crop"]))
