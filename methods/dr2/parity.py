"""Parity of DR2's sampler with the official code."""

from __future__ import annotations

import numpy as np
import torch

from fsrbench.imaging import resize_matrix
from fsrbench.methods.common.diffusion import spread_timesteps
from fsrbench.methods.common.prior import respaced
from fsrbench.methods.common.prior_parity import adm_config
from fsrbench.methods.common.unet import UNet
from fsrbench.methods.dr2.method import dr2_sample, lowpass
from fsrbench.proof.parity import check, error, filled, recorded


@check("dr2-algo", 1e-4)
def _parity(fixture: dict) -> float:
    config, y = fixture["config"], torch.from_numpy(fixture["in_ref"])
    schedule, N = respaced(spread_timesteps(1000, config["section"][0])), config["N"]
    unet = {"in_channels": 3, "resblock_updown": True, **config["unet"]}
    noise = recorded(fixture)
    side = y.shape[-1] // N
    rows, columns = (torch.from_numpy(resize_matrix(n, side).astype(np.float32))
                     for n in y.shape[-2:])
    return max(error(schedule.timesteps, fixture["out_timestep_map"]),
               error(rows @ y @ columns.T, fixture["out_down_ref"]),
               error(lowpass(y, N), fixture["out_lowpass_ref"]),
               error(dr2_sample(filled(UNet(adm_config(unet))), schedule, y, N, config["tau"],
                                config["omega"], lambda: next(noise)), fixture["out_x0"]))
