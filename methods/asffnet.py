"""ASFFNet512: of a person's pictures the one whose landmarks fit best is warped onto I_L's and fused with it where it helps.

Source: csxmli2016/ASFFNet512 (CC BY-NC-SA 4.0), the author's own network for 512 pixels, trained on CelebRef-HQ; the code of
the CVPR 2020 paper was never published.
"""

from __future__ import annotations

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
from fsrbench.weights import WeightFile, register

LICENCE = "CC BY-NC-SA 4.0 (csxmli2016/ASFFNet512); trained on CelebRef-HQ, perhaps on the paper's test people"
register(WeightFile("asffnet512", "ASFFNet512.pth", "", LICENCE, "asffnet.official (its authors share it by a cloud drive)"))

# Brows and eyes; mouth; everything but the jaw.
EYES, MOUTH, INNER = np.r_[17:27, 36:48], np.r_[48:68], np.r_[17:68]
EYES_WEIGHT, MOUTH_WEIGHT = 1.01, 1.49


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
        """Side of the picture by side of the features."""
        return self.fold * int(np.prod(self.strides))


MINI_ASFF = AsffConfig(24, fold=2, strides=(1, 2, 1), spectral=False)


class Features(nn.Module):
    """Feature extractor of a picture: (N, 3, S, S) to (N, 2 width, S / reduction, S / reduction)."""

    def __init__(self, config: AsffConfig):
        super().__init__()
        self.fold, w, s = config.fold, config.width, config.spectral
        levels, c_in = (w, 2 * w, 4 * w), 3 * config.fold**2
        for i, (c, stride, dilations) in enumerate(zip(levels, config.strides, ((7, 5), (5, 3), (3, 1))), 1):
            setattr(self, f"conv{i}", nn.Sequential(conv(c_in, c, stride=stride, spectral=s), leaky()))
            for block in (1, 2):
                setattr(self, f"stem{i}_{block}", Residual("stem", pair(c, c, dilations, s)))
            c_in = c
        self.conv4 = nn.Sequential(conv(c_in, 2 * w, spectral=s), leaky())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pixel_unshuffle(x, self.fold)
        for i in (1, 2, 3):
            x = getattr(self, f"stem{i}_2")(getattr(self, f"stem{i}_1")(getattr(self, f"conv{i}")(x)))
        return self.conv4(x)


class MaskFeatures(nn.Module):
    """What the landmark mask (N, 1, S, S) says at each position of the features, in (0, 1)."""

    def __init__(self, config: AsffConfig):
        super().__init__()
        w, self.fold, strides = config.width, config.fold, (config.strides[1], 1, config.strides[2])
        layers: list[nn.Module] = []
        shapes = ((config.fold**2, w // 4, 9, strides[0]), (w // 4, w // 2, 7, 1), (w // 2, w, 5, strides[2]),
                  (w, 2 * w, 3, 1), (2 * w, 2 * w, 3, 1))
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
        self.model = nn.Sequential(point(), leaky(), block(), point(), leaky(), block(), point(), leaky())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class FusionLayer(nn.Module):
    """D + (R - D) M: what I_L and the reference say, mixed by a mask (without a sigmoid) that both and the landmarks decide."""

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
            setattr(self, f"conv{i}", nn.Sequential(conv(c, c, 5, spectral=spectral), leaky(), conv(c, c, spectral=spectral),
                                                    leaky()))

    def forward(self, x: torch.Tensor, component: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.conv0(self.sff0(x, component, mask))
        return x + self.conv1(self.sff1(h, component, mask))


class MultiScale(nn.Module):
    """Four dilations side by side, merged, in a residual."""

    def __init__(self, c: int, spectral: bool):
        super().__init__()
        for i, dilation in enumerate((4, 3, 2, 1), 1):
            setattr(self, f"conv{i}", nn.Sequential(conv(c, c // 2, dilation=dilation, spectral=spectral), leaky()))
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
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=True) if factor > 1 else nn.Identity()


class AsffNet(nn.Module):
    """The network, with everything that is computed from landmarks given."""

    def __init__(self, config: AsffConfig = AsffConfig()):
        super().__init__()
        self.config, c, s = config, 2 * config.width, config.spectral
        self.sff_branch = nn.ModuleList([*(FusionBlock(c, s) for _ in range(4)), FusionLayer(c, True, s)])
        self.MSDilate = MultiScale(c, s)
        self.UpModel = nn.Sequential(
            _upsample(config.strides[1]), conv(c, c, spectral=s), leaky(), UpBlock(c, (1, 2), s), conv(c, c // 2, spectral=s),
            leaky(), UpBlock(c // 2, (1, 2), s), _upsample(config.strides[2]), UpBlock(c // 2, (1, 1), s),
            conv(c // 2, 3 * config.fold**2, spectral=s), nn.Tanh())
        self.LQ_Model, self.Ref_Model = Features(config), Features(config)
        self.Mask_CModel, self.Component_CModel = MaskFeatures(config), ComponentFeatures(c, s)

    def forward(self, lq: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
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


def affine_residual(source: np.ndarray, target: np.ndarray) -> float:
    """Frobenius norm of what the best affine map of source (n, 2) onto target (n, 2) leaves."""
    design = np.c_[source, np.ones(len(source))]
    return float(np.linalg.norm(design @ np.linalg.lstsq(design, target, rcond=None)[0] - target))


def distances(points: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Weighted least squares of reference selection: how far each candidate's landmarks (R, 68, 2) are, eyes and mouth
    each mapped affinely, from the landmarks (68, 2) of I_L. The smallest is chosen."""
    return np.array([EYES_WEIGHT * affine_residual(c[EYES], points[EYES])
                     + MOUTH_WEIGHT * affine_residual(c[MOUTH], points[MOUTH]) for c in candidates])


def landmark_mask(points: np.ndarray, size: int) -> np.ndarray:
    """float32 (1, size, size): ones around each inner landmark, by three pixels at 512 and by as much of the face at
    other sizes."""
    mask, reach = np.zeros((1, size, size), np.float32), max(1, round(3 * size / 512))
    for x, y in points[INNER]:
        if 1 < x < size - 2 and 1 < y < size - 2:
            rows, columns = (slice(max(0, int(np.floor(v)) - reach), int(np.ceil(v)) + reach) for v in (y, x))
            mask[0, rows, columns] = 1
    return mask


def mls_grid(reference: np.ndarray, points: np.ndarray, side: int) -> np.ndarray:
    """Where each node of I_L's features looks in the reference's: moving least squares, affine (Schaefer et al. 2006).

    Two official quirks are kept: the weights are those of the distances to the reference's points, and the grid is
    normalised by (g - side / 2) / (side / 2), half a node off either convention of `grid_sample`.

    Args:
        reference, points: (68, 2) landmarks in nodes, of reference and I_L.

    Returns:
        (side, side, 2) float32 in [-1, 1], x first; nodes that would look outside look at row or column 0 instead.
    """
    p, q = reference[INNER][:, ::-1], points[INNER][:, ::-1]
    v = np.stack(np.mgrid[0:side, 0:side], -1).reshape(-1, 1, 2).astype(np.float64)
    w = 1 / ((p - v)**2 + 1e-8).sum(-1, keepdims=True)
    total = w.sum(1, keepdims=True)
    p_mean, q_mean = (w * p).sum(1, keepdims=True) / total, (w * q).sum(1, keepdims=True) / total
    p_hat, q_hat = p - p_mean, q - q_mean
    mixed, own = (np.einsum("vn,vni,vnj->vij", w[..., 0], p_hat, other) for other in (q_hat, p_hat))
    found = ((v - q_mean) @ np.linalg.solve(mixed, own) + p_mean)[:, 0]
    found[(found < 0) | (found > side - 1)] = 0
    return ((found - side / 2) / (side / 2)).reshape(side, side, 2)[..., ::-1].astype(np.float32)


def conditions(reference: np.ndarray, points: np.ndarray, config: AsffConfig, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mask and grid of one picture, from landmarks in its pixels. Official coordinates are divided, not moved by half a
    pixel."""
    reduction = config.reduction
    return landmark_mask(points, size), mls_grid(reference / reduction, points / reduction, size // reduction)


class AsffNetMethod(ReferenceMethod):
    """ASFFNet."""

    title, paper, origin = "ASFFNet", "asffnet", "ASFFNet (CVPR 2020), csxmli2016/ASFFNet512"
    config: AsffConfig

    def prepare(self, points: np.ndarray, pictures: tuple[Picture, ...]) -> tuple[torch.Tensor, ...]:
        """Reference, mask and grid; the reference is the one whose landmarks fit best."""
        images, landmarks = self.pictures(pictures)
        best = int(distances(points, np.stack(landmarks)).argmin())
        try:
            mask, grid = conditions(landmarks[best], points, self.config, self.native)
        except np.linalg.LinAlgError:
            raise ValueError("the landmarks do not span a face") from None
        return images[best], torch.from_numpy(mask), torch.from_numpy(grid)

    def infer(self, lq: torch.Tensor, prepared: list) -> torch.Tensor:
        """The network on all samples at once."""
        return self.part("network")(lq, *(torch.stack(column).to(lq.device) for column in zip(*prepared)))


def _inputs(config: AsffConfig, size: int):
    side = size // config.reduction
    return lambda: (torch.zeros(1, 3, size, size), torch.zeros(1, 3, size, size), torch.zeros(1, 1, size, size),
                    torch.zeros(1, side, side, 2))


register_mini("asffnet")
register_tags(AsffNetMethod, "official", AsffConfig(), 512, LICENCE, Part("asffnet512", AsffNet, _inputs(AsffConfig(), 512)))
register_tags(AsffNetMethod, "mini", MINI_ASFF, 64, LFW_LICENCE,
              Part("asffnet-mini", partial(AsffNet, MINI_ASFF), _inputs(MINI_ASFF, 64)))


@layout("asffnet512")
def _layout(official: dict) -> nn.Module:
    return AsffNet()


@check("asffnet512", 2e-4)
def _parity(fixture: dict) -> float:
    recipe = Recipe(fixture)
    lq, reference = (bilinear(recipe.uniform(recipe.shapes[0]), 512) for _ in range(2))
    points, candidates = fixture["lq_landmarks"], fixture["ref_landmarks"]
    similarity = distances(points, candidates)
    mask, grid = conditions(candidates[fixture["best"]], points, AsffConfig(), 512)
    network, seen = filled_spectral(AsffNet()), {}
    named = ("LQ_Model", "Ref_Model", "Mask_CModel", "Component_CModel", "MSDilate")
    for name in named:
        getattr(network, name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    network.sff_branch[-1].register_forward_hook(lambda m, i, out: seen.update(sff=out))
    seen["out"] = network(lq, reference, *(torch.from_numpy(a)[None] for a in (mask, grid)))
    packed = np.packbits(mask[0].astype(bool))
    same = similarity.argmin() == fixture["best"] and np.array_equal(packed, fixture["mask_packed"])
    stride = len(grid) // len(fixture["grid"])
    return max(0.0 if same else float("inf"), input_error(lq, fixture), error(similarity, fixture["similarity"], relative=True),
               error(grid[::stride, ::stride], fixture["grid"]),
               *(max(channel_error(value, fixture, name), error(_sample(value, fixture, name), fixture[f"{name}_sample"]))
                 for name, value in seen.items()))


def _sample(value: torch.Tensor, fixture: dict, name: str) -> torch.Tensor:
    stride, shape = int(fixture[f"{name}_stride"][0]), fixture[f"{name}_sample"].shape
    return value[:, :shape[1], ::stride, ::stride]
