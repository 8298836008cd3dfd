"""The fill of parity fixtures for networks of spectrally normed convolutions."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fsrbench.proof.parity import fill_value


def filled_spectral(module: nn.Module, plain: tuple[str, ...] = ()) -> nn.Module:
    """The deterministic fill of `fsrbench.proof.parity`, with every spectral norm 1; keys that
    contain a word of `plain` get standard normals."""
    state = module.state_dict()
    filled = {key: fill_value(key, tuple(value.shape)) for key, value in state.items()}
    for key in filled:
        shape = tuple(state[key].shape)
        if any(word in key for word in plain):
            filled[key] = fill_value(key, shape) * np.sqrt(np.prod(shape[1:]))
        if key.endswith("weight_orig"):
            stem = key.removesuffix("orig")
            matrix = filled[key].astype(np.float64).reshape(shape[0], -1)
            u = filled[f"{stem}u"].astype(np.float64)
            u /= np.linalg.norm(u)
            v = matrix.T @ u
            filled[f"{stem}u"], filled[f"{stem}v"] = u, v / (v @ v)
    module.load_state_dict({key: torch.from_numpy(np.asarray(value, np.float32))
                            for key, value in filled.items()})
    return module.eval().requires_grad_(False)
