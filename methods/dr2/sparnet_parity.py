"""Parity of DR2's SPARNet with the official network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.methods.dr2.network import SparNetConfig, SparNetHD2D
from fsrbench.proof.parity import check, error, fill_value, layout


def _config(official: dict) -> SparNetConfig:
    return SparNetConfig(*(official[name] for name in ("size", "min_ch", "max_ch", "min_feat_size",
                                                       "res_depth")))


@layout("sparnethd2d-dr2")
def _layout(official: dict) -> torch.nn.Module:
    return SparNetHD2D(_config(official))


def _filled(network: torch.nn.Module, iterations: int) -> torch.nn.Module:
    """The deterministic fill, then power iterations that settle u and v, as the fixture's config
    tells."""
    state = {k: torch.from_numpy(fill_value(k, tuple(v.shape))) for k, v in network.state_dict()
             .items()}
    for key in [k for k in state if k.endswith("weight_orig")]:
        stem, weight = key.removesuffix("orig"), state[key].flatten(1)
        u, v = (F.normalize(state[stem + name], dim=0, eps=1e-12) for name in "uv")
        for _ in range(iterations):
            v = F.normalize(weight.T @ u, dim=0, eps=1e-12)
            u = F.normalize(weight @ v, dim=0, eps=1e-12)
        state[stem + "u"], state[stem + "v"] = u, v
    network.load_state_dict(state)
    return network.eval()


@check("sparnethd2d-dr2", 3e-4)
def _parity(fixture: dict) -> float:
    config = fixture["config"]
    network = _filled(SparNetHD2D(_config(config)), config["sn_power_iterations"])
    return error(network(torch.from_numpy(fixture["in_x"])), np.asarray(fixture["out_y"]))
