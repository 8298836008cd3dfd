"""Parity of PGDiff's restorer and sampler with the official code."""

from __future__ import annotations

import torch
import torch.nn as nn

from fsrbench.methods.common.diffusion import Schedule, ddim_timesteps, spread_timesteps
from fsrbench.methods.common.prior import respaced
from fsrbench.methods.common.prior_parity import iddpm_config
from fsrbench.methods.common.unet import UNet
from fsrbench.methods.pgdiff.method import pgdiff_sample
from fsrbench.methods.pgdiff.network import Restorer, RestorerConfig
from fsrbench.proof.parity import check, error, filled, layout, recorded


def _restorer_config(official: dict) -> RestorerConfig:
    return RestorerConfig(*(official[name] for name in ("in_channels", "out_channels",
                                                        "mid_channels", "num_blocks",
                                                        "growth_channels")))


@layout("pgdiff-restorer")
def _layout(official: dict) -> nn.Module:
    return Restorer(_restorer_config(official))


@check("pgdiff-restorer", 1e-4)
def _restorer_parity(fixture: dict) -> float:
    inputs = (torch.from_numpy(fixture[name]) for name in ("in_x_t", "in_y", "in_t"))
    return error(filled(Restorer(_restorer_config(fixture["config"])))(*inputs), fixture["out_out"])


def _schedule(respacing: str) -> Schedule:
    """"ddpm100" keeps 100 of 1000 steps at one stride, "100" spreads them from the first to the
    last; an empty text keeps all."""
    if not respacing:
        return respaced(range(1000))
    kept = spread_timesteps if respacing.isdecimal() else ddim_timesteps
    return respaced(kept(1000, int(respacing.removeprefix("ddpm"))))


@check("pgdiff-algo", 1e-4)
def _parity(fixture: dict) -> float:
    config, noise = fixture["config"], recorded(fixture)
    network, official = (filled(UNet(iddpm_config(config["unet"]))),
                         filled(Restorer(_restorer_config(config["restorer"]))))
    schedule = _schedule(config["respacing"])
    y, count = torch.from_numpy(fixture["in_y"]), config["nsteps"]

    def run(x, indices):
        return pgdiff_sample(network, official, schedule, y, x, lambda: next(noise),
                             config["scale"], indices=indices,
                             repeats=config["N"], bounds=(config["s_end"], config["s_start"]))
    top = len(schedule) - 1
    middle = run(torch.from_numpy(fixture["in_x"]), range(top, top - count, -1))
    return max(error(schedule.timesteps, fixture["out_timestep_map"]),
               error(middle, fixture["out_mid"]),
               error(run(middle, range(count - 1, -1, -1)), fixture["out_out"]))
