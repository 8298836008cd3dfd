"""IDFSR's network: DiffAE's autoencoder with a six-channel input and cross-attention on z_id (paper
3.3, E.2, Table 4).

One class for the `paper` and the `mini` configuration, and, with three input channels and
self-attention, for DiffAE itself, whose FFHQ checkpoint initialises it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from fsrbench.errors import FsrError
from fsrbench.methods.common.diffusion import ddim_timesteps, trailing_timesteps
from fsrbench.methods.common.unet import StyleEncoder, UNet, UNetConfig


@dataclass(frozen=True)
class IdfsrConfig:
    """Everything that tells one IDFSR from another.

    Args:
        unet: shape of the noise predictor; its `style_channels` and `id_channels` switch the two
            conditions.
        encoder_mult: width of each level of the style encoder, as multiples of the U-Net's base
            width.
        parameterisation: what the network predicts: "eps" (paper) or "v".
        condition: how I_L enters: "masked" (I_M concatenated, the paper's default and case 2), "lr"
            (I_L concatenated, case 1) or "none" (case 3).
        z_id_scale: factor on the unit-length z_id before the network sees it.
        region: what is masked and warped: "landmarks", their hull, outside which I_W is the
            reference's first pixel (paper, Listing 1), or "forehead", also points above the brows,
            outside which I_W is 0.
        T: diffusion steps in training.
        steps: DDIM steps in inference; spacing: where they lie, "leading" (from 0 upwards, as
            DiffAE) or "trailing" (from T - 1 downwards).
    """

    unet: UNetConfig
    encoder_mult: tuple[int, ...] = ()
    parameterisation: str = "eps"
    condition: str = "masked"
    z_id_scale: float = 1.0
    region: str = "landmarks"
    T: int = 1000
    steps: int = 20
    spacing: str = "leading"

    @property
    def timesteps(self) -> np.ndarray:
        """The timesteps of inference, rising."""
        spaced = {"leading": ddim_timesteps, "trailing": trailing_timesteps}[self.spacing]
        return spaced(self.T, self.steps)

    @property
    def encoder(self) -> UNetConfig:
        """Shape of the style encoder: self-attention, three channels in, z_s out."""
        return replace(self.unet, in_channels=3, out_channels=self.unet.style_channels,
                       channel_mult=self.encoder_mult,
                       id_channels=0, style_channels=0, id_project=False)


class IdfsrNet(UNet):
    """U-Net and style encoder in one state dict, with DiffAE's keys."""

    def __init__(self, config: IdfsrConfig):
        super().__init__(config.unet)
        if config.unet.style_channels:
            self.encoder = StyleEncoder(config.encoder)


def diffae_state(state: dict, network: IdfsrNet) -> dict:
    """State of an IDFSR network made from DiffAE's checkpoint (paper E.2).

    The exponential average is taken. Only `input_blocks.0.0.weight` differs in shape: its first
    three channels, which see x_t, are DiffAE's; those that see I_M are zero.

    Args:
        state: what `read_state` gave of `last.ckpt`, or a bare DiffAE state dict.
        network: the network to be initialised.

    Raises:
        FsrError: the file holds no DiffAE autoencoder.
    """
    state = state.get("state_dict", state)
    if any(key.startswith("ema_model.") for key in state):
        state = {k.removeprefix("ema_model."): v for k, v in state.items()
                 if k.startswith("ema_model.")}
    state = {k: v for k, v in state.items() if not k.startswith("latent_net.")}
    first = "input_blocks.0.0.weight"
    if first not in state:
        raise FsrError("weights diffae-ffhq256", f"no {first} in the file",
                       "give DiffAE's ffhq256_autoenc last.ckpt")
    wanted = network.state_dict()[first]
    grown = torch.zeros_like(wanted)
    grown[:, :state[first].shape[1]] = state[first]
    return {**state, first: grown}
