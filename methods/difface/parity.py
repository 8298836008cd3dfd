"""Parity of DifFace's restorer and sampler with the official code."""

from __future__ import annotations

import torch

from fsrbench.methods.common.diffusion import ddim_timesteps, q_sample, steps_of
from fsrbench.methods.common.prior import respaced
from fsrbench.methods.common.prior_parity import iddpm_config
from fsrbench.methods.common.unet import UNet
from fsrbench.methods.difface.method import difface_sample
from fsrbench.methods.difface.network import swinir
from fsrbench.proof.parity import check, error, fill_value, filled, layout, recorded

layout("swinir-difface")(swinir)


@check("swinir-difface", 1e-4)
def _swinir_parity(fixture: dict) -> float:
    network = swinir(fixture["config"])
    # Masks and position indices are as constructed, like in the fixture.
    state = {k: v if "attn_mask" in k or not v.is_floating_point()
             else torch.from_numpy(fill_value(k, tuple(v.shape)))
             for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    return error(network.eval()(torch.from_numpy(fixture["in_x"])), fixture["out_y"])


@check("difface-algo", 1e-4)
def _parity(fixture: dict) -> float:
    config, noise = fixture["config"], recorded(fixture)
    schedule = respaced(ddim_timesteps(1000, int(config["respacing"].removeprefix("ddim"))))
    estimated, started = torch.from_numpy(fixture["in_restored01"]) * 2 - 1, []

    def draw():
        started.append(next(noise))
        return started[-1]
    x0 = difface_sample(filled(UNet(iddpm_config(config["unet"]))), schedule, estimated,
                        config["start"], config["eta"], draw)
    y_t = q_sample(schedule, estimated, steps_of(schedule, estimated, config["start"])[0],
                   started[0])
    head = fixture["out_timestep_map_head"]
    return max(error(schedule.timesteps[:len(head)], head), error(y_t, fixture["out_yt"]),
               error(((x0 + 1) / 2).clamp(0, 1), fixture["out_out01"]))
