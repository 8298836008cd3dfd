"""Parity of CodeFormer with the official network."""

from __future__ import annotations

import re

import numpy as np
import torch.nn as nn

from fsrbench.methods.common.official_codeformer import official
from fsrbench.proof.parity import (
    Recipe,
    bilinear,
    channel_error,
    check,
    error,
    filled,
    input_error,
    layout,
)


@layout("codeformer")
def _layout(config: dict) -> nn.Module:
    return official()


@check("codeformer", 2e-4)
def _parity(fixture: dict) -> float:
    recipe = Recipe(fixture)
    draws = {shape[-1]: recipe.uniform(shape) for shape in recipe.shapes}
    fine = draws.pop(512)
    low, = draws.values()
    x = bilinear(low, 512) + recipe.number(r"([\d.]+)\*x") * fine
    network, seen = filled(official()), {}
    network.idx_pred_layer.register_forward_hook(lambda m, i, out: seen.update(logits=out[:, 0]))
    network.encoder.blocks[-1].register_forward_hook(lambda m, i, out: seen.update(z=out))

    def codes(module, inputs):
        # Without AdaIN, as in training, the generator gets the codes as they are.
        return (None if seen["adain"]
                else network.quantize.embedding(seen["logits"]
                                                .argmax(-1)).T.unflatten(1, (16, 16))[None])
    network.generator.blocks[0].register_forward_pre_hook(codes)
    worst = input_error(x, fixture)
    for name in (key.removesuffix("_mean") for key in fixture if key.endswith("_out_mean")):
        w, adapted = re.fullmatch(r"w([\d.]+)_adain([01])_out", name).groups()
        seen["adain"] = adapted == "1"
        out, stride = network(x, w=float(w)), int(fixture[f"{name}_stride"][0])
        worst = max(worst, channel_error(out, fixture, name),
                    error(out[..., ::stride, ::stride], fixture[f"{name}_sample"]))
    same = np.array_equal(seen["logits"].argmax(-1), fixture["idx"])
    return max(worst, 0.0 if same else float("inf"), error(seen["z"], fixture["lq_feat"]),
               error(seen["logits"][:len(fixture["logits_first8"])], fixture["logits_first8"]))
