"""CodeFormer's network in the shape that is trained here."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.autoencoder import AutoencoderConfig, Decoder, Encoder, ResBlock
from fsrbench.methods.common.official_codeformer import FIDELITY


@dataclass(frozen=True)
class CodeFormerConfig:
    """Shape of a network trained here.

    Args:
        autoencoder: of encoder and generator; its latent has one code a position.
        size: of the image; codes: in the codebook.
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
    """Controllable feature transformation: h + w (h scale + shift), both made of the encoder's
    features and h."""

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
        self.linear1, self.linear2 = nn.Linear(config.width, config.mlp), nn.Linear(config.mlp,
                                                                                    config.width)

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
        self.generator = Decoder(shape, {level: Fusion(shape.widths[level], shape.groups)
                                         for level in config.fused})
        self.feat_emb = nn.Linear(shape.z_channels, config.width)
        self.position_emb = nn.Parameter(torch.randn(config.side**2, config.width) * 0.02)
        self.ft_layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(config.width),
                                            nn.Linear(config.width, config.codes, bias=False))

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
        """Restore (N, 3, S, S) in [-1, 1], upsampled I_L; not clipped. w: see FIDELITY."""
        z, taps = self.encoder(x)
        codes = adain(self.looked_up(self.logits(z).argmax(-1)), z)
        return self.generator(codes, taps if w > 0 else None, w)
