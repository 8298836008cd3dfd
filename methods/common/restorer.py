"""The regression restorer of the `mini` baselines: one network for DifFace, PGDiff and DR2.

f([x_t, y], t) is the mean of x0 given a degraded image y and, where there is one, a noisy state
x_t: with x_t it is PGDiff's time-aware restorer, without it DifFace's diffused estimator and DR2's
enhancer.
"""

from __future__ import annotations

from functools import partial

import torch

from fsrbench.core import Part
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.unet import UNet, UNetConfig
from fsrbench.weights.catalogue import Bundled, WeightFile, register

MINI_RESTORER = UNetConfig(64, in_channels=6, model_channels=16, channel_mult=(1, 2, 4, 6),
                           num_res_blocks=1,
                           attention_sizes=(8,), num_head_channels=16, resblock_updown=False,
                           group_channels=4)
# "There is no x_t" is told by zeros at the last timestep, where a true x_t is pure noise.
BLIND = 999

register(WeightFile("restorer-mini", "restorer-mini.safetensors", "", LFW_LICENCE,
                    "dr2.mini, difface.mini, pgdiff.mini (`invoke train --what restorer`)",
                    (Bundled(),)))


RESTORER = Part("restorer-mini", partial(UNet, MINI_RESTORER),
                lambda: (torch.zeros(1, 6, 64, 64), torch.zeros(1, dtype=torch.long)))


def blindly(network: torch.nn.Module, y: torch.Tensor) -> torch.Tensor:
    """x0 (N, 3, 64, 64), not clipped, that the network makes of I_L at full size in [-1, 1]
    alone."""
    return network(torch.cat([torch.zeros_like(y), y], 1),
                   torch.full((len(y),), BLIND, device=y.device))
