"""One U-Net for every relative of guided diffusion: ADM, iDDPM, DiffAE's autoencoder, IDFSR.

Module names and shapes are those of the official state dicts, so their files load with
`strict=True`. Source: openai/guided-diffusion `UNetModel`, phizaz/diffae `BeatGANsAutoencModel`
(structure and key names).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.methods.common.norm import Norm


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    Args:
        image_size: side of the square input in pixels.
        in_channels, out_channels: of the image-like input and output.
        model_channels: base width M.
        channel_mult: width of each level as a multiple of M.
        num_res_blocks: residual blocks of each level (the decoder has one more).
        attention_sizes: feature sides at which attention follows each block; the middle always has
            it.
        num_heads: heads of attention, unless num_head_channels is given.
        num_head_channels: channels of a head; -1 to go by num_heads.
        resblock_updown: resample by residual blocks (else by strided convolution and nearest +
            convolution).
        dropout: rate, in training only.
        patch: side of the pixel blocks that are folded into channels at the input and unfolded at
            the output.
        style_channels: length of z_s; 0 for a network without the style path. With it the state
            dict is DiffAE's.
        id_channels: length of z_id; 0 for self-attention, else every attention is cross-attention
            on z_id.
        id_tokens: number of key/value tokens made of z_id.
        id_project: make the tokens by a learned linear map (else by cutting z_id into equal
            pieces).
        plus_one: AdaGN scales by (1 + t_s) and (1 + z_f), as DiffAE's weights assume; eq. 2 of the
            paper omits it.
        group_channels: of each group of GroupNorm; 0 for min(32, C) groups, as the official
            networks have. Where a group is a single channel, the norm wipes out how strong it is,
            and a narrow network learns to tell it by spikes.
        id_in_time: z_id also joins the time embedding, by a linear map that starts at zero.
    """

    image_size: int
    in_channels: int = 3
    out_channels: int = 3
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int | tuple[int, ...] = 2
    attention_sizes: tuple[int, ...] = (16,)
    num_heads: int = 1
    num_head_channels: int = -1
    resblock_updown: bool = True
    dropout: float = 0.0
    patch: int = 1
    style_channels: int = 0
    id_channels: int = 0
    id_tokens: int = 1
    id_project: bool = False
    plus_one: bool = True
    group_channels: int = 0
    id_in_time: bool = False

    @property
    def embed_channels(self) -> int:
        """Width of the time embedding: DiffAE ties it to z_s, ADM uses 4 M."""
        return self.style_channels or 4 * self.model_channels

    def blocks(self) -> tuple[int, ...]:
        """num_res_blocks, one entry a level."""
        n = self.num_res_blocks
        return tuple(n) if isinstance(n, (tuple, list)) else (n,) * len(self.channel_mult)


def timestep_embedding(t: torch.Tensor, width: int) -> torch.Tensor:
    """Sinusoids psi(t) of eq. 4: (N,) to (N, width), cosines first."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32,
                                                            device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width % 2))


def group_norm(channels: int, config: UNetConfig | None = None) -> nn.GroupNorm:
    """GroupNorm, in groups as the configuration has them; without one, min(32, C) groups."""
    groups = (channels // config.group_channels if config and config.group_channels
              else min(32, channels))
    return Norm(max(1, groups), channels)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all parameters zero, so that its block starts as the identity."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


class ResBlock(nn.Module):
    """Residual block with AdaGN.

    Time enters as scale and shift after the second GroupNorm; z_s as a scale on top of both (eq.
    2-4). `resample` is None, "up" or "down". With `short` it is the style encoder's block: no
    conditioning, one convolution.
    """

    def __init__(self, c_in: int, c_out: int, config: UNetConfig, resample: str | None = None,
                 short: bool = False):
        super().__init__()
        self.resample, self.plus_one = resample, float(config.plus_one)
        self.pool = nn.AvgPool2d(2)
        self.in_layers = nn.Sequential(group_norm(c_in, config), nn.SiLU(),
                                       nn.Conv2d(c_in, c_out, 3, padding=1))
        if not short:
            self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(config.embed_channels, 2 * c_out))
            if config.style_channels:
                self.cond_emb_layers = nn.Sequential(nn.SiLU(),
                                                     nn.Linear(config.style_channels, c_out))
            self.out_layers = nn.Sequential(group_norm(c_out, config), nn.SiLU(),
                                            nn.Dropout(config.dropout),
                                            zeroed(nn.Conv2d(c_out, c_out, 3, padding=1)))
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def _resample(self, x: torch.Tensor) -> torch.Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return self.pool(x) if self.resample == "down" else x

    def forward(self, x: torch.Tensor, emb: torch.Tensor | None, z_s: torch.Tensor
                | None) -> torch.Tensor:
        h = self._resample(self.in_layers[1](self.in_layers[0](x)))
        h = self.in_layers[2](h)
        if emb is not None:
            t_s, t_b = self.emb_layers(emb)[:, :, None, None].chunk(2, dim=1)
            factors = [self.plus_one + t_s]
            if z_s is not None:
                factors.append(self.plus_one + self.cond_emb_layers(z_s)[:, :, None, None])
            h = self.out_layers[1:](self.out_layers[0](h, *factors, shift=t_b))
        return self.skip_connection(self._resample(x)) + h


class Pointwise(nn.Conv1d):
    """A convolution of side 1, whose weights it has, of (N, L, C): channels behind positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight[..., 0], self.bias)


class Attention(nn.Module):
    """Self-attention, or cross-attention of every position on the tokens of z_id.

    Cross-attention keeps DiffAE's keys: rows 0..C-1 of `qkv` make q from the features, the others k
    and v from tokens of width C (specs: this is what keeps the parameter count). With one token the
    softmax is 1 everywhere, so the block adds the same vector at every position.
    """

    def __init__(self, channels: int, heads: int, config: UNetConfig | None = None):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels, config)
        self.qkv = Pointwise(channels, 3 * channels, 1)
        self.proj_out = zeroed(Pointwise(channels, channels, 1))

    def forward(self, x: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        n, c = x.shape[:2]
        heads = self.heads, c // self.heads
        # Positions before channels, as channels-last images lie in memory: attention in one pass
        # wants the channels of a head side by side.
        h = self.norm(x).flatten(2).transpose(1, 2)
        if tokens is None:
            # ADM's "legacy" order: heads first, then q, k, v inside each head.
            q, k, v = self.qkv(h).view(n, -1, heads[0], 3, heads[1]).unbind(3)
        else:
            weight, bias = self.qkv.weight[..., 0], self.qkv.bias
            q = F.linear(h, weight[:c], bias[:c]).view(n, -1, *heads)
            k, v = F.linear(tokens, weight[c:], bias[c:]).view(n, -1, 2, *heads).unbind(2)
        out = F.scaled_dot_product_attention(*(s.transpose(1, 2) for s in (q, k, v)))
        out = self.proj_out(out.transpose(1, 2).reshape(n, -1, c))
        return x + out.transpose(1, 2).reshape(x.shape)


class Resample(nn.Module):
    """Plain resampling: strided 3x3 convolution down (`op`), nearest and 3x3 convolution up
    (`conv`)."""

    def __init__(self, channels: int, up: bool):
        super().__init__()
        self.up = up
        convolution = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)
        setattr(self, "conv" if up else "op", convolution)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2,
                                       mode="nearest")) if self.up else self.op(x)


class Stage(nn.Sequential):
    """Layers in a row, each given what it takes."""

    def forward(self, x, emb=None, z_s=None, tokens=None):
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb, z_s)
            elif isinstance(layer, Attention):
                x = layer(x, tokens)
            else:
                x = layer(x)
        return x


@dataclass
class _Encoder:
    """The contracting half while it is built."""

    stages: list[Stage]
    skips: list[int] = field(default_factory=list)
    channels: int = 0
    size: int = 0


def _attention(config: UNetConfig, channels: int) -> Attention:
    heads = (config.num_heads if config.num_head_channels == -1 else channels
             // config.num_head_channels)
    return Attention(channels, heads, config)


def _resampler(config: UNetConfig, channels: int, direction: str, short: bool = False) -> nn.Module:
    if config.resblock_updown:
        return ResBlock(channels, channels, config, direction, short)
    return Resample(channels, up=direction == "up")


def _contract(config: UNetConfig, short: bool) -> _Encoder:
    """Input blocks shared by the U-Net and the style encoder."""
    widths = [m * config.model_channels for m in config.channel_mult]
    first = nn.Conv2d(config.in_channels * config.patch**2, widths[0], 3, padding=1)
    built = _Encoder([Stage(first)], [widths[0]], widths[0], config.image_size // config.patch)
    for level, (width, blocks) in enumerate(zip(widths, config.blocks())):
        for _ in range(blocks):
            layers: list[nn.Module] = [ResBlock(built.channels, width, config, short=short)]
            if built.size in config.attention_sizes:
                layers.append(_attention(config, width))
            built.channels = width
            built.stages.append(Stage(*layers))
            built.skips.append(width)
        if level < len(widths) - 1:
            built.stages.append(Stage(_resampler(config, width, "down", short)))
            built.skips.append(width)
            built.size //= 2
    return built


def _middle(config: UNetConfig, channels: int, short: bool = False) -> Stage:
    return Stage(ResBlock(channels, channels, config, short=short), _attention(config, channels),
                 ResBlock(channels, channels, config, short=short))


class StyleEncoder(nn.Module):
    """E_s: the contracting half of the U-Net without conditioning, pooled to one vector z_s (paper
    3.3).

    Args of `forward`: (N, 3, H, W) in [-1, 1], the warped reference I_W.
    Returns: (N, out_channels).
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.patch = config.patch
        built = _contract(config, short=True)
        self.input_blocks = nn.ModuleList(built.stages)
        self.middle_block = _middle(config, built.channels, short=True)
        self.out = nn.Sequential(group_norm(built.channels, config), nn.SiLU(),
                                 nn.AdaptiveAvgPool2d(1),
                                 nn.Conv2d(built.channels, config.out_channels, 1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pixel_unshuffle(x, self.patch)
        for stage in self.input_blocks:
            x = stage(x)
        return self.out(self.middle_block(x))


class TimeStyle(nn.Module):
    """DiffAE's nesting of the time MLP (key `time_embed.time_embed`)."""

    def __init__(self, mlp: nn.Sequential):
        super().__init__()
        self.time_embed = mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.time_embed(x)


class UNet(nn.Module):
    """The noise predictor eps_theta([x_t, I_M], t, z_s, z_id) of eq. 1, and its unconditional
    relatives."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        mlp = nn.Sequential(nn.Linear(config.model_channels, config.embed_channels), nn.SiLU(),
                            nn.Linear(config.embed_channels, config.embed_channels))
        self.time_embed = TimeStyle(mlp) if config.style_channels else mlp
        if config.id_channels:
            width = config.channel_mult[-1] * config.model_channels
            sizes = [config.image_size // config.patch >> level
                     for level in range(len(config.channel_mult))]
            if any(size in config.attention_sizes and mult != config.channel_mult[-1]
                   for size, mult in zip(sizes, config.channel_mult)):
                raise ValueError("cross-attention needs the middle's width at every level where it "
                                 "stands")
            if config.id_project:
                self.id_proj = nn.Linear(config.id_channels, config.id_tokens * width)
            elif config.id_channels != config.id_tokens * width:
                raise ValueError(f"z_id of {config.id_channels} cannot be cut into "
                                 f"{config.id_tokens} tokens of {width}")
            if config.id_in_time:
                self.id_embed = zeroed(nn.Linear(config.id_channels, config.embed_channels))
        built = _contract(config, short=False)
        self.input_blocks = nn.ModuleList(built.stages)
        self.middle_block = _middle(config, built.channels)
        self.output_blocks = nn.ModuleList(self._expand(config, built))
        self.out = nn.Sequential(group_norm(config.channel_mult[0] * config.model_channels, config),
                                 nn.SiLU(),
                                 zeroed(nn.Conv2d(config.channel_mult[0] * config.model_channels,
                                                  config.out_channels * config.patch**2, 3,
                                                  padding=1)))

    @staticmethod
    def _expand(config: UNetConfig, built: _Encoder) -> list[Stage]:
        channels, size, skips, stages = built.channels, built.size, list(built.skips), []
        for level in reversed(range(len(config.channel_mult))):
            width, blocks = (config.channel_mult[level] * config.model_channels,
                             config.blocks()[level])
            for block in range(blocks + 1):
                layers: list[nn.Module] = [ResBlock(channels + skips.pop(), width, config)]
                if size in config.attention_sizes:
                    layers.append(_attention(config, width))
                if level and block == blocks:
                    layers.append(_resampler(config, width, "up"))
                    size *= 2
                channels = width
                stages.append(Stage(*layers))
        return stages

    def id_tokens(self, z_id: torch.Tensor) -> torch.Tensor:
        """(N, id_channels) to the tokens (N, id_tokens, C) that cross-attention reads."""
        tokens = self.id_proj(z_id) if self.config.id_project else z_id
        return tokens.reshape(len(z_id), self.config.id_tokens, -1)

    def forward(self, x: torch.Tensor, t: torch.Tensor, z_s: torch.Tensor | None = None,
                z_id: torch.Tensor | None = None) -> torch.Tensor:
        """Predict eps (or v).

        Args:
            x: (N, in_channels, H, W).
            t: (N,) original timesteps.
            z_s: (N, style_channels) or None (the style factor is then left out).
            z_id: (N, id_channels); needed if the network has an identity path.
        """
        tokens = self.id_tokens(z_id) if self.config.id_channels else None
        h = self.input_blocks[0](F.pixel_unshuffle(x, self.config.patch))
        return self.body(h, t, z_s, tokens, self.id_embed(z_id) if self.config.id_in_time else None)

    def body(self, h: torch.Tensor, t: torch.Tensor, z_s: torch.Tensor | None = None,
             tokens: torch.Tensor | None = None, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Everything behind the first convolution, whose output is `h`; `shift` is added to the
        time embedding."""
        emb, skips = self.time_embed(timestep_embedding(t, self.config.model_channels)), [h]
        if shift is not None:
            emb = emb + shift
        for stage in self.input_blocks[1:]:
            h = stage(h, emb, z_s, tokens)
            skips.append(h)
        h = self.middle_block(h, emb, z_s, tokens)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, z_s, tokens)
        return F.pixel_shuffle(self.out(h), self.config.patch)
