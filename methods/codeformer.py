"""CodeFormer (Zhou et al., NeurIPS 2022): a transformer guesses the codes of a face, a decoder draws them, fusion of the
encoder's features adds fidelity.

Source: sczhou/CodeFormer (NTU S-Lab License 1.0, non-commercial). The official network is that of spandrel-extra-arches,
which differs in no bit; here are the authors' pre- and post-processing, and a smaller network of the same kind that is
trained by this project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.core import Batch, Method, Part
from fsrbench.imaging import enlarged_by_opencv
from fsrbench.methods.adain import adain
from fsrbench.methods.autoencoder import AutoencoderConfig, Decoder, Encoder, ResBlock
from fsrbench.methods.prior import LFW_LICENCE, resized
from fsrbench.parity import Recipe, bilinear, channel_error, check, error, filled, input_error, layout
from fsrbench.registry import method
from fsrbench.weights import Bundled, Url, WeightFile, device, register

LICENCE = "S-Lab 1.0, non-commercial (sczhou/CodeFormer)"
# The authors' default for aligned faces: 0 goes by the codes alone, 1 by the input.
FIDELITY = 0.5

register(WeightFile(
    "codeformer", "codeformer.pth", "", LICENCE, "codeformer.official, and the reference picture of stablesr.official-face",
    (Url("https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/codeformer.pth"),)))
register(WeightFile("codeformer-mini", "codeformer-mini.safetensors", "", LFW_LICENCE,
                    "codeformer.mini (`invoke train --what codeformer-vq`, -codes, -fusion)", (Bundled(),)))


@dataclass(frozen=True)
class CodeFormerConfig:
    """Shape of a network trained here.

    Args:
        autoencoder: of encoder and generator; its latent has one code a position.
        size: of the picture; codes: in the codebook.
        width, heads, layers, mlp: of the transformer.
        fused: levels whose features are fused.
    """

    autoencoder: AutoencoderConfig = field(default_factory=lambda: AutoencoderConfig(
        32, (1, 2, 4), blocks=1, z_channels=64, double_z=False, patch=2, groups=8))
    size: int = 64
    codes: int = 512
    width: int = 160
    heads: int = 4
    layers: int = 3
    mlp: int = 320
    fused: tuple[int, ...] = (0, 1)

    @property
    def side(self) -> int:
        """Of the grid of codes."""
        return self.size // self.autoencoder.reduction


MINI_CODEFORMER = CodeFormerConfig()


class Fusion(nn.Module):
    """Controllable feature transformation: h + w (h scale + shift), both made of the encoder's features and h."""

    def __init__(self, c: int, groups: int):
        super().__init__()
        self.encode_enc = ResBlock(2 * c, c, groups)
        self.scale, self.shift = (nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.LeakyReLU(0.2),
                                                nn.Conv2d(c, c, 3, padding=1)) for _ in range(2))

    def forward(self, tap: torch.Tensor, h: torch.Tensor, w: float | torch.Tensor) -> torch.Tensor:
        seen = self.encode_enc(torch.cat([tap, h], 1))
        return h + w * (h * self.scale(seen) + self.shift(seen))


class Layer(nn.Module):
    """Pre-norm transformer layer; the position is added to queries and keys in every layer."""

    def __init__(self, config: CodeFormerConfig):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.norm1, self.norm2 = (nn.LayerNorm(config.width) for _ in range(2))
        self.linear1, self.linear2 = nn.Linear(config.width, config.mlp), nn.Linear(config.mlp, config.width)

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        h = self.norm1(x)
        x = x + self.self_attn(h + position, h + position, h, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class CodeFormerNet(nn.Module):
    """The smaller network, of the three stages that the authors train one after the other."""

    def __init__(self, config: CodeFormerConfig = MINI_CODEFORMER):
        super().__init__()
        self.config, shape = config, config.autoencoder
        self.encoder = Encoder(shape)
        self.codebook = nn.Embedding(config.codes, shape.z_channels)
        self.generator = Decoder(shape, {level: Fusion(shape.widths[level], shape.groups) for level in config.fused})
        self.feat_emb = nn.Linear(shape.z_channels, config.width)
        self.position_emb = nn.Parameter(torch.randn(config.side**2, config.width) * 0.02)
        self.ft_layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.codes, bias=False))

    def nearest(self, z: torch.Tensor) -> torch.Tensor:
        """Indices (N, positions) of the codes next to a latent (N, C, side, side)."""
        flat, codes = z.float().flatten(2).transpose(1, 2), self.codebook.weight
        return (codes.square().sum(1) - 2 * flat @ codes.T).argmin(-1)

    def looked_up(self, index: torch.Tensor) -> torch.Tensor:
        """Latent (N, C, side, side) of indices (N, positions)."""
        return self.codebook(index).transpose(1, 2).unflatten(2, (self.config.side, -1))

    def logits(self, z: torch.Tensor) -> torch.Tensor:
        """(N, positions, codes), what the transformer makes of the latent of I_L."""
        x = self.feat_emb(z.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        return self.idx_pred_layer(x)

    def forward(self, x: torch.Tensor, w: float = FIDELITY) -> torch.Tensor:
        """Restore (N, 3, S, S) in [-1, 1], enlarged I_L; not clipped. w: see FIDELITY."""
        z, taps = self.encoder(x)
        codes = adain(self.looked_up(self.logits(z).argmax(-1)), z)
        return self.generator(codes, taps if w > 0 else None, w)


def official() -> nn.Module:
    """The official network: (N, 3, 512, 512) in [-1, 1] to (N, 3, 512, 512), not clipped."""
    from spandrel_extra_arches.architectures.CodeFormer import CodeFormer

    class Network(CodeFormer):
        def forward(self, x: torch.Tensor, w: float = FIDELITY) -> torch.Tensor:
            # Its argument is `weight`; `w` would be ignored without a word.
            return super().forward(x, weight=w)[0]
    return Network()


class CodeFormerMethod(Method):
    """What both tags share."""

    title, paper, nfe = "CodeFormer", "codeformer", 1
    origin = "CodeFormer (NeurIPS 2022), sczhou/CodeFormer"
    native: int

    def settings(self) -> str:
        """The fidelity weight."""
        return f"w={FIDELITY}"

    def enlarged(self, batch: Batch) -> torch.Tensor:
        """I_L (N, 3, native, native) in [0, 1]."""
        raise TypeError(f"{self.name} enlarges nothing")

    @torch.no_grad()
    def restore(self, batch: Batch) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1]."""
        x0 = self.part("network")((self.enlarged(batch) * 2 - 1).to(device()))
        return resized(((x0.float() + 1) / 2).clamp(0, 1), batch.size).clamp(0, 1).cpu()


@method
class CodeFormerOfficial(CodeFormerMethod):
    """The authors' network on I_L as their script enlarges it. Their matching of grey pictures' tones is left out, as it
    would treat grey and colour pictures of a benchmark differently."""

    name, weights, licence, native = "codeformer.official", "official", LICENCE, 512
    parts = {"network": Part("codeformer", official, lambda: (torch.zeros(1, 3, 512, 512),))}

    def enlarged(self, batch: Batch) -> torch.Tensor:
        """Bilinear, by OpenCV."""
        return torch.from_numpy(enlarged_by_opencv(batch.lr, self.native, "linear"))


@method
class CodeFormerMini(CodeFormerMethod):
    """The network trained here."""

    name, weights, profiles, native = "codeformer.mini", "mini", ("mini",), 64
    licence = "trained on LFW (research use)"
    parts = {"network": Part("codeformer-mini", CodeFormerNet, lambda: (torch.zeros(1, 3, 64, 64),))}

    def enlarged(self, batch: Batch) -> torch.Tensor:
        """Bicubic, as in its training."""
        return torch.from_numpy(batch.upsampled)


@layout("codeformer")
def _layout(config: dict) -> nn.Module:
    return official()


@check("codeformer", 2e-4)
def _parity(fixture: dict) -> float:
    recipe = Recipe(fixture)
    draws = {shape[-1]: recipe.uniform(shape) for shape in recipe.shapes}
    fine = draws.pop(512)
    low, = draws.values()
    x = bilinear(low, 512) + recipe.number(r"([\d.]+)\*x") * fine
    network, seen = filled(official()), {}
    network.idx_pred_layer.register_forward_hook(lambda m, i, out: seen.update(logits=out[:, 0]))
    network.encoder.blocks[-1].register_forward_hook(lambda m, i, out: seen.update(z=out))

    def codes(module, inputs):
        # Without AdaIN, as in training, the generator gets the codes as they are.
        return None if seen["adain"] else network.quantize.embedding(seen["logits"].argmax(-1)).T.unflatten(1, (16, 16))[None]
    network.generator.blocks[0].register_forward_pre_hook(codes)
    worst = input_error(x, fixture)
    for name in (key.removesuffix("_mean") for key in fixture if key.endswith("_out_mean")):
        w, adapted = re.fullmatch(r"w([\d.]+)_adain([01])_out", name).groups()
        seen["adain"] = adapted == "1"
        out, stride = network(x, w=float(w)), int(fixture[f"{name}_stride"][0])
        worst = max(worst, channel_error(out, fixture, name), error(out[..., ::stride, ::stride], fixture[f"{name}_sample"]))
    same = np.array_equal(seen["logits"].argmax(-1), fixture["idx"])
    return max(worst, 0.0 if same else float("inf"), error(seen["z"], fixture["lq_feat"]),
               error(seen["logits"][:len(fixture["logits_first8"])], fixture["logits_first8"]))
