"""Parity of ASFFNet with the official network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn as nn

from fsrbench.methods.asffnet.alignment import conditions, distances
from fsrbench.methods.asffnet.network import AsffConfig, AsffNet
from fsrbench.methods.common.spectral_fill import filled_spectral
from fsrbench.proof.parity import Recipe, bilinear, channel_error, check, error, input_error, layout


@layout("asffnet512")
def _layout(official: dict) -> nn.Module:
    return AsffNet()


@check("asffnet512", 2e-4)
def _parity(fixture: dict) -> float:
    recipe = Recipe(fixture)
    lq, reference = (bilinear(recipe.uniform(recipe.shapes[0]), 512) for _ in range(2))
    points, candidates = fixture["lq_landmarks"], fixture["ref_landmarks"]
    similarity = distances(points, candidates)
    mask, grid = conditions(candidates[fixture["best"]], points, AsffConfig(), 512)
    network, seen = filled_spectral(AsffNet()), {}
    named = ("LQ_Model", "Ref_Model", "Mask_CModel", "Component_CModel", "MSDilate")
    for name in named:
        getattr(network,
                name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    network.sff_branch[-1].register_forward_hook(lambda m, i, out: seen.update(sff=out))
    seen["out"] = network(lq, reference, *(torch.from_numpy(a)[None] for a in (mask, grid)))
    packed = np.packbits(mask[0].astype(bool))
    same = similarity.argmin() == fixture["best"] and np.array_equal(packed, fixture["mask_packed"])
    stride = len(grid) // len(fixture["grid"])
    return max(0.0 if same else float("inf"), input_error(lq, fixture),
               error(similarity, fixture["similarity"], relative=True),
               error(grid[::stride, ::stride], fixture["grid"]),
               *(max(channel_error(value, fixture, name),
                     error(_sample(value, fixture, name), fixture[f"{name}_sample"]))
                 for name, value in seen.items()))


def _sample(value: torch.Tensor, fixture: dict, name: str) -> torch.Tensor:
    stride, shape = int(fixture[f"{name}_stride"][0]), fixture[f"{name}_sample"].shape
    return value[:, :shape[1], ::stride, ::stride]
