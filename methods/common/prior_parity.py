"""Parity of the diffusion priors with the official U-Nets."""

from __future__ import annotations

import torch

from fsrbench.methods.common.unet import UNet, UNetConfig
from fsrbench.proof.parity import check, error, filled, layout


def adm_config(official: dict) -> UNetConfig:
    """openai's constructor arguments (also DR2's and DPI's): attention is named by rates of
    downsampling."""
    return iddpm_config(official, tuple(official["image_size"] // rate
                                        for rate in official["attention_resolutions"]))


def iddpm_config(official: dict, attention_sizes: tuple[int, ...] | None = None) -> UNetConfig:
    """DifFace's and PGDiff's constructor arguments: attention is named by sides of feature maps."""
    blocks = official["num_res_blocks"]
    return UNetConfig(
        official["image_size"], official.get("in_channels", 3), official["out_channels"],
        official["model_channels"],
        tuple(official["channel_mult"]), tuple(blocks) if isinstance(blocks, list) else blocks,
        attention_sizes or tuple(official["attention_resolutions"]), official.get("num_heads", 1),
        official["num_head_channels"], official["resblock_updown"])


def _parity(name: str, read) -> None:
    layout(name)(lambda official: UNet(read(official)))

    @check(name, 1e-4)
    def run(fixture: dict) -> float:
        network = filled(UNet(read(fixture["config"])))
        return error(network(torch.from_numpy(fixture["in_x"]), torch.from_numpy(fixture["in_t"])),
                     fixture["out_y"])


for _name in ("gd-unet-ffhq256", "dr2-unet-ffhq256"):
    _parity(_name, adm_config)
for _name in ("iddpm-ffhq512", "iddpm-ffhq256-difface"):
    _parity(_name, iddpm_config)
