"""DPI's corrector CRT: a U-Net that mends the known pixels of a sparse grid. Source: JerryYann/DPI
(no licence)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fsrbench.methods.common.unet import UNet, UNetConfig

OFFICIAL_CORRECTOR = UNetConfig(256, model_channels=32, num_res_blocks=1, attention_sizes=(8,),
                                num_head_channels=16)
MINI_CORRECTOR = UNetConfig(64, model_channels=32, channel_mult=(1, 2, 2), num_res_blocks=1,
                            attention_sizes=(8,),
                            num_head_channels=32, resblock_updown=False, patch=2, group_channels=4)

# The grid holds every second pixel (hard-coded in the official mask), and nothing means this value.
STEP, NOTHING = 2, 1e-6


class Corrector(UNet):
    """guided-diffusion's U-Net with a skip from the grid to the output, and a faint one to the
    first features."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor
                | None = None) -> torch.Tensor:
        """Corrected grid (N, 3, S, S).

        Args:
            x: the grid at some noise level, zero off it; t: (N,) original timesteps.
            y: the grid as given, zero off it; None for the plain U-Net.
        """
        h = self.input_blocks[0](F.pixel_unshuffle(x, self.config.patch))
        if y is None:
            return self.body(h, t)
        return self.body(h + 0.1 * F.pixel_unshuffle(y, self.config.patch).mean(1, keepdim=True),
                         t) + y


def grid_of(size: int) -> torch.Tensor:
    """1 on the grid's pixels, 0 elsewhere: (1, 1, size, size)."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., ::STEP, ::STEP] = 1
    return mask


def spread_on_grid(small: list[np.ndarray], size: int) -> torch.Tensor:
    """C_0: LR images, upsampled to the grid by PIL's bicubic and laid on it.

    Args:
        small: N uint8 (h, w, 3), of any size up to size / 2 (larger ones downsample).

    Returns:
        (N, 3, size, size) in [-1, 1], `NOTHING` off the grid.
    """
    side = size // STEP
    grids = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
             for image in small]
    spread = torch.full((len(small), 3, size, size), NOTHING)
    spread[..., ::STEP, ::STEP] = torch.from_numpy(np.stack(grids)).permute(0, 3, 1,
                                                                            2).float() / 127.5 - 1
    return spread
