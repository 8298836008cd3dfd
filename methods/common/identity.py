"""E_id: the identity encoder that gives z_id (paper 3.1), frozen, never the network that judges
identity."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.faces.align import ARCFACE_5
from fsrbench.methods.common.arcface import IRBackbone, IResNet
from fsrbench.methods.common.sface import SIDE, SFace
from fsrbench.training.faces import sampled
from fsrbench.weights.catalogue import WeightFile, locate, register, require
from fsrbench.weights.networks import load_strict, read_state, unwrap
from fsrbench.weights.shared import SFACE

_ZOO = "insightface model zoo, non-commercial research only"
for _name, _file, _licence in (
        ("arcface-r50", "arcface_r50.pth", _ZOO), ("arcface-r100", "arcface_r100.pth", _ZOO),
        ("arcface-irse50", "model_ir_se50.pth", "MIT (TreB1eN/InsightFace_Pytorch)"),
        ("arcface-ir50", "model_ir50.pth", "MIT (TreB1eN/InsightFace_Pytorch)")):
    # Published by hand-operated shares only (rename insightface's backbone.pth): no address, no
    # published digest.
    register(WeightFile(_name, _file, "", _licence,
                        "z_id of IDFSR in the paper profile (any one of the four)"))
# Which encoder a profile conditions on: the first whose weights are here.
PREFERENCE = {"mini": (SFACE.name,), "paper": ("arcface-r50", "arcface-r100", "arcface-irse50",
                                            "arcface-ir50")}

NETWORKS = {
    SFACE.name: (SFace, SIDE),
    "arcface-r50": (lambda: IResNet((3, 4, 14, 3)), 112),
    "arcface-r100": (lambda: IResNet((3, 13, 30, 3)), 112),
    "arcface-irse50": (lambda: IRBackbone(se=True), 112),
    "arcface-ir50": (lambda: IRBackbone(se=False), 112),
}


def five_points(points: torch.Tensor) -> torch.Tensor:
    """Eyes, nose tip and mouth corners (N, 5, 2) of landmarks (N, 68, 2)."""
    eyes = [points[:, 36:42].mean(1), points[:, 42:48].mean(1)]
    return torch.stack([*eyes, points[:, 30], points[:, 48], points[:, 54]], 1)


@lru_cache(maxsize=4)
def _target(size: int, device: str) -> torch.Tensor:
    """ArcFace's five points (5, 2) in an input of that side."""
    return ((torch.from_numpy(ARCFACE_5) + 0.5) * size / 112 - 0.5).float().to(device)


def frames(points: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`faces.align.arcface_frame` of a batch: the maps from pixels of the encoder's input to pixels
    of the image, linear (N, 2, 2) and offset (N, 2)."""
    source, target = _target(size, str(points.device)), five_points(points)
    mean, middle = source.mean(0), target.mean(1)
    s, t = source - mean, target - middle[:, None]
    a, b = (s * t).sum((1, 2)), (s[:, 0] * t[..., 1] - s[:, 1] * t[..., 0]).sum(1)
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1) / s.square().sum()
    return linear, middle - linear @ mean


class IdentityEncoder:
    """A frozen recogniser with its alignment.

    Args:
        network: of (N, 3, size, size) in [-1, 1].
        size: side of its input.
    """

    def __init__(self, network: torch.nn.Module, size: int):
        self.network, self.size = network.eval().requires_grad_(False), size

    def features_of(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """The network's output (N, F) for images (N, 3, H, W) in [0, 1] with landmarks (N, 68, 2),
        both on its device; differentiable."""
        with torch.autocast(images.device.type, enabled=False):
            # Depthwise convolutions in bfloat16 are slow on a processor, and their gradients more
            # so.
            return self.network(sampled(images.float(), *frames(points.float(), self.size),
                                        self.size) * 2 - 1)

    def features(self, images: torch.Tensor, points: list[np.ndarray] | np.ndarray) -> torch.Tensor:
        """The same for landmarks N x (68, 2) as arrays, wherever the network is; on the device of
        the images."""
        place = next(self.network.parameters(), images).device
        marks = torch.from_numpy(np.asarray(np.stack(list(points)), np.float32)).to(place)
        return self.features_of(images.to(place), marks).to(images.device)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, points: list[np.ndarray] | np.ndarray) -> torch.Tensor:
        """Unit-length z_id (N, F): `features`, normalised."""
        return F.normalize(self.features(images, points))


def chosen(profile: str) -> str:
    """Catalogue name of the encoder that the profile uses here: the first whose weights are
    present, else the first."""
    names = PREFERENCE[profile]
    return next((name for name in names if locate(name)), names[0])


def load_identity(profile: str, device: torch.device | str = "cpu") -> IdentityEncoder:
    """The identity encoder of a profile.

    Raises:
        FsrError: no encoder of the profile has its weights here.
    """
    name = chosen(profile)
    build, size = NETWORKS[name]
    return IdentityEncoder(load_strict(build(), unwrap(read_state(require(name))), name).to(device),
                           size)
