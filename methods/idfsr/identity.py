"""E_id: the identity encoder that gives z_id (paper 3.1), frozen, never the network that judges identity."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.bank import sample_similarity
from fsrbench.faces.align import arcface_frame
from fsrbench.methods.arcface import IRBackbone, IResNet
from fsrbench.weights import Bundled, WeightFile, load_strict, locate, read_state, register, require, unwrap

MINI_SIZE = 64


def mini_arcface() -> IResNet:
    """The encoder of the `mini` profile: an IResNet of half width for 64-pixel faces."""
    return IResNet((2, 2, 2, 2), (32, 64, 128, 192), size=MINI_SIZE)


_ZOO = "insightface model zoo, non-commercial research only"
for _name, _file, _licence in (
        ("arcface-r50", "arcface_r50.pth", _ZOO), ("arcface-r100", "arcface_r100.pth", _ZOO),
        ("arcface-irse50", "model_ir_se50.pth", "MIT (TreB1eN/InsightFace_Pytorch)"),
        ("arcface-ir50", "model_ir50.pth", "MIT (TreB1eN/InsightFace_Pytorch)")):
    # Published by hand-operated shares only (rename insightface's backbone.pth): no address, no published digest.
    register(WeightFile(_name, _file, "", _licence, "z_id of IDFSR in the paper profile (any one of the four)"))
register(WeightFile("arcface-mini", "arcface-mini.safetensors", "", "this project's; trained on LFW (research use)",
                    "z_id of IDFSR in the mini profile", (Bundled(),)))

# Which encoder a profile conditions on: the first whose weights are here.
PREFERENCE = {"mini": ("arcface-mini",), "paper": ("arcface-r50", "arcface-r100", "arcface-irse50", "arcface-ir50")}

NETWORKS = {
    "arcface-mini": (mini_arcface, MINI_SIZE),
    "arcface-r50": (lambda: IResNet((3, 4, 14, 3)), 112),
    "arcface-r100": (lambda: IResNet((3, 13, 30, 3)), 112),
    "arcface-irse50": (lambda: IRBackbone(se=True), 112),
    "arcface-ir50": (lambda: IRBackbone(se=False), 112),
}


class IdentityEncoder:
    """A frozen ArcFace network with its alignment.

    Args:
        network: of (N, 3, size, size) in [-1, 1].
        size: side of its input.
    """

    def __init__(self, network: torch.nn.Module, size: int):
        self.network, self.size = network.eval().requires_grad_(False), size

    def features(self, images: torch.Tensor, points: list[np.ndarray] | np.ndarray) -> torch.Tensor:
        """The network's output (N, 512) for images (N, 3, H, W) in [0, 1] with landmarks N x (68, 2), differentiable."""
        frames = np.stack([arcface_frame(p, self.size) for p in points])
        crops = sample_similarity(images, frames, self.size) * 2 - 1
        place = next(self.network.parameters(), crops).device
        return self.network(crops.to(place)).float().to(images.device)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, points: list[np.ndarray] | np.ndarray) -> torch.Tensor:
        """Unit-length z_id (N, 512): `features`, normalised."""
        return F.normalize(self.features(images, points))


def chosen(profile: str) -> str:
    """Catalogue name of the encoder that the profile uses here: the first whose weights are present, else the first."""
    names = PREFERENCE[profile]
    return next((name for name in names if locate(name)), names[0])


def load_identity(profile: str) -> IdentityEncoder:
    """The identity encoder of a profile.

    Raises:
        FsrError: no encoder of the profile has its weights here.
    """
    name = chosen(profile)
    build, size = NETWORKS[name]
    return IdentityEncoder(load_strict(build(), unwrap(read_state(require(name))), name), size)
