"""Parity of IDFSR's network with DiffAE, and of E_id with the official ArcFace networks."""

from __future__ import annotations

from dataclasses import replace

import torch

from fsrbench.methods.common.arcface import IRBackbone, IResNet
from fsrbench.methods.common.diffusion import (
    ddim_reverse,
    ddim_sample,
    ddim_timesteps,
    linear_schedule,
    respace,
)
from fsrbench.methods.common.unet import StyleEncoder, UNetConfig
from fsrbench.methods.idfsr.network import IdfsrConfig, IdfsrNet
from fsrbench.proof.parity import Recipe, channel_error, check, error, filled, layout


def diffae_config(official: dict) -> IdfsrConfig:
    """DiffAE's constructor arguments as a configuration of our class: three channels in,
    self-attention."""
    unet = UNetConfig(
        official["image_size"], official["in_channels"], official["out_channels"],
        official["model_channels"],
        tuple(official["channel_mult"]), official["num_res_blocks"],
        tuple(official["attention_resolutions"]),
        official["num_heads"], official["num_head_channels"], official["resblock_updown"],
        official["dropout"], style_channels=official["embed_channels"])
    return IdfsrConfig(unet, tuple(official["enc_channel_mult"] or official["channel_mult"]))


def diffae_network(official: dict) -> IdfsrNet:
    """The network of DiffAE's constructor arguments; its encoder may have another number of blocks
    than its U-Net, and attention elsewhere."""
    network = IdfsrNet(diffae_config(official))
    encoder = diffae_config(official).encoder
    network.encoder = StyleEncoder(replace(
        encoder, num_res_blocks=official["enc_num_res_block"],
        attention_sizes=tuple(official["enc_attn_resolutions"] or encoder.attention_sizes)))
    return network


@layout("diffae-ffhq256-autoenc")
def _diffae_layout(official: dict) -> torch.nn.Module:
    return diffae_network(official)


@check("diffae-ffhq256-autoenc", 1e-4)
def _diffae(fixture: dict) -> float:
    network = filled(diffae_network(fixture["config"]))
    x_t, t = torch.from_numpy(fixture["in_x_t"]), torch.from_numpy(fixture["in_t"])
    z_s = network.encoder(torch.from_numpy(fixture["in_x_start"]))
    other = torch.from_numpy(fixture["in_cond2"])
    return max(error(z_s, fixture["out_cond"]), error(network(x_t, t, z_s), fixture["out_pred"]),
               error(network(x_t, t, other), fixture["out_pred_with_cond2"]))


@check("diffae-algo", 3e-4)
def _diffae_algorithm(fixture: dict) -> float:
    network = filled(diffae_network(fixture["config"]["model"]))
    schedule = linear_schedule()
    schedule = respace(schedule, ddim_timesteps(len(schedule), fixture["config"]["T"]))
    x_start = torch.from_numpy(fixture["in_x_start"])
    z_s = network.encoder(x_start)

    def denoise(x, t):
        return network(x, t, z_s)
    sampled = ddim_sample(denoise, torch.from_numpy(fixture["in_x_T"]), schedule)
    return max(error(schedule.timesteps, fixture["out_timestep_map"]),
               error(z_s, fixture["out_cond"]), error(sampled, fixture["out_sample"]),
               error(ddim_reverse(denoise, x_start, schedule), fixture["out_reverse"]))


def _arcface(network: torch.nn.Module, fixture: dict, relative: bool) -> float:
    network, seen = filled(network), {}
    for key in (k[4:-5] for k in fixture if k.startswith("mid_") and k.endswith("_mean")):
        network.get_submodule(key).register_forward_hook(lambda _m, _i, out,
                                                         key=key: seen.update({key: out}))
    recipe = Recipe(fixture)
    errors = [error(network(recipe.uniform(recipe.shapes[0])), fixture["out"], relative)]
    # Inside the network values reach the hundreds under the fill, so there the error is always
    # relative.
    return max(errors + [channel_error(out, fixture, f"mid_{key}", relative=True)
                         for key, out in seen.items()])


def _iresnet(layers: list[int]) -> IResNet:
    return IResNet(tuple(layers))


def _backbone(mode: str) -> IRBackbone:
    return IRBackbone(se=mode == "ir_se")


for _name, _layers in {"arcface-r50": (3, 4, 14, 3), "arcface-r100": (3, 13, 30, 3)}.items():
    layout(_name)(lambda official: _iresnet(official["layers"]))
    check(_name, 1e-4)(lambda fixture, layers=_layers: _arcface(_iresnet(layers), fixture,
                                                                relative=True))
for _name, _mode in {"arcface-irse50": "ir_se", "arcface-ir50-treb1en": "ir"}.items():
    layout(_name)(lambda official: _backbone(official["mode"]))
    check(_name, 1e-4)(lambda fixture, mode=_mode: _arcface(_backbone(mode), fixture,
                                                            relative=False))


def paper_parameters() -> int:
    """Parameters of the paper configuration, counted on the meta device (168,495,747 = 160.69 x
    2^20)."""
    from fsrbench.methods.idfsr.configs import PAPER

    with torch.device("meta"):
        return sum(p.numel() for p in IdfsrNet(PAPER).parameters())
