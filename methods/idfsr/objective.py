"""IDFSR's objective (eq. 1), shared by pre-training and by the fitting of z_id."""

from __future__ import annotations

import numpy as np
import torch

from fsrbench.imaging import imresize
from fsrbench.methods.common.diffusion import Schedule, q_sample, v_target
from fsrbench.methods.idfsr.network import IdfsrConfig

# Scale factors that a fit sees.
SCALES = (4, 8, 16, 32)


def diffusion_loss(network: torch.nn.Module, config: IdfsrConfig, schedule: Schedule,
                   x0: torch.Tensor, index: torch.Tensor,
                   noise: torch.Tensor, I_M: torch.Tensor | None, z_s: torch.Tensor | None,
                   z_id: torch.Tensor | None) -> torch.Tensor:
    """Eq. 1 on a batch: mean squared error of eps, or of v.

    On v the noisy steps weigh at least as much as the clean ones. That is where z_s and z_id decide
    the face: with eps, or with min-SNR weights on v, a short training learns to sharpen what x_t
    shows and hardly reads them.

    Args:
        x0: (N, 3, S, S) in [-1, 1]; index: (N,) timesteps; noise: like x0.
    """
    x_t = q_sample(schedule, x0, index, noise)
    output = network(x_t if I_M is None else torch.cat([x_t, I_M], 1), index.to(x0.device), z_s,
                     z_id)
    if config.parameterisation == "eps":
        return (output.float() - noise).square().mean()
    return (output.float() - v_target(schedule, x0, index, noise)).square().mean()


def bicubic_there_and_back(image: np.ndarray, scale: int) -> np.ndarray:
    """I_L at HQ size of an image (3, S, S) in [0, 1]: bicubic down by `scale`, 8 bit, bicubic up;
    float32."""
    size = image.shape[-1]
    small = np.floor(np.clip(imresize(image, size // scale, size // scale), 0, 1) * 255 + 0.5) / 255
    return np.clip(imresize(small, size, size), 0, 1).astype(np.float32)
