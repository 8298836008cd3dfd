"""Parity of DPI's corrector and sampler with the official code."""

from __future__ import annotations

import torch

from fsrbench.methods.common.diffusion import ddim_timesteps
from fsrbench.methods.common.prior import respaced
from fsrbench.methods.common.prior_parity import adm_config
from fsrbench.methods.common.unet import UNet
from fsrbench.methods.dpi.corrector import NOTHING, STEP, Corrector, grid_of
from fsrbench.methods.dpi.method import dpi_sample
from fsrbench.proof.parity import check, error, filled, layout, recorded


@layout("dpi-crt")
def _layout(official: dict) -> torch.nn.Module:
    return Corrector(adm_config(official))


@check("dpi-crt", 1e-4)
def _corrector_parity(fixture: dict) -> float:
    network = filled(Corrector(adm_config(fixture["config"])))
    x, t, y = (torch.from_numpy(fixture[name]) for name in ("in_x", "in_t", "in_cond"))
    return max(error(network(x, t, y), fixture["out_y"]),
               error(network(x, t), fixture["out_y_nocond"]))


@check("dpi-algo", 3e-4)
def _parity(fixture: dict) -> float:
    config, states = fixture["config"], {}
    prior, corrector = (filled(UNet(adm_config(config["unet"]))),
                        filled(Corrector(adm_config(config["crt"]))))
    schedule = respaced(ddim_timesteps(1000, int(config["respacing"].removeprefix("ddim"))))
    noise, chance, L = recorded(fixture), recorded(fixture,
                                                   "unif"), torch.from_numpy(fixture["in_sr"])
    on_grid = grid_of(L.shape[-1] * config["k"]).bool()
    C_0 = torch.where(on_grid, L.repeat_interleave(STEP, -1).repeat_interleave(STEP, -2), NOTHING)
    x0 = dpi_sample(prior, corrector, schedule, C_0, next(noise), lambda: next(noise),
                    lambda: next(chance), config["eta"],
                    seen=lambda i, x,
                    C: states.update({f"out_step{i:02d}": x, f"out_mask{i:02d}": C}))
    return max(error(schedule.timesteps, fixture["out_timestep_map"]),
               error(x0, fixture["out_out"]),
               *(error(states[name], fixture[name]) for name in fixture
                 if name.startswith(("out_step", "out_mask"))))
