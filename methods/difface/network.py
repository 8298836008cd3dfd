"""DifFace's restorer: SwinIR in its own shape."""

from __future__ import annotations

import warnings

import torch
import torch.nn as nn

SWINIR = {"img_size": 64, "embed_dim": 180, "depths": [6] * 8, "num_heads": [6] * 8,
          "window_size": 8, "mlp_ratio": 2, "sf": 8, "img_range": 1.0, "unshuffle_scale": 8}


def swinir(config: dict) -> nn.Module:
    """The diffused estimator: spandrel's SwinIR with DifFace's options and its one deviating key
    (`conv_first.1`).

    Takes and returns (N, 3, H, W) in [0, 1], sides multiples of 64.
    """
    from spandrel.architectures.SwinIR import SwinIR

    with torch.device("cpu"), warnings.catch_warnings():  # its constructor reads values of tensors
        warnings.filterwarnings("ignore", "torch.meshgrid")
        network = SwinIR(
            img_size=config["img_size"], patch_size=1, in_chans=3, embed_dim=config["embed_dim"],
            depths=config["depths"], num_heads=config["num_heads"],
            window_size=config["window_size"],
            mlp_ratio=config["mlp_ratio"], upscale=config["sf"], img_range=config["img_range"],
            upsampler="nearest+conv", resi_connection="1conv",
            start_unshuffle=config["unshuffle_scale"])
    network.conv_first = nn.Sequential(nn.Identity(), network.conv_first)
    return network
