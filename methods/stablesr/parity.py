"""Parity of StableSR's networks with the official ones."""

from __future__ import annotations

import torch

from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.autoencoder import Decoder
from fsrbench.methods.stablesr.network import DualResBlock, LatentConfig, StableSrUNet
from fsrbench.methods.stablesr.parts import (
    CfwDecoder,
    Fusion,
    TimeAwareEncoder,
    VaeEncoder,
    wavelet_fix,
)
from fsrbench.proof.parity import Recipe, check, error, filled, layout


@layout("stablesr-parts")
def _layout(official: dict) -> dict[str, torch.nn.Module]:
    """Every network but the text tower, whose keys are OpenCLIP's."""
    return {"model.diffusion_model": StableSrUNet(), "structcond_stage_model": TimeAwareEncoder(),
            "first_stage_model.encoder": VaeEncoder().encoder,
            "first_stage_model.decoder": Decoder(), "cfw.decoder": CfwDecoder().decoder}


@check("stablesr-parts", 1e-4)
def _parity(fixture: dict) -> float:
    recipe = Recipe(fixture)
    z, x, emb, tap, h = map(recipe.normal, recipe.shapes)
    structures = filled(TimeAwareEncoder())(z, torch.tensor([int(recipe.number(r"t=(\d+)"))]))
    found = {f"te_{side}": value for side, value in structures.items()}
    found["dual"] = filled(DualResBlock(320, 640, LatentConfig()))(x, emb, structures)
    found["fuse"] = filled(Fusion(256))(tap, h, recipe.number(r"w=([\d.]+)"))
    worst = 0.0
    for name, value in found.items():
        kept = fixture[name]
        step, stride = value.shape[1] // kept.shape[1], value.shape[2] // kept.shape[2]
        means = value.double().mean((0, 2, 3))
        worst = max(worst, error(value[:, ::step, ::stride, ::stride], kept),
                    error(means, fixture[f"{name}_mean"]))
    content, style = (torch.from_numpy(fixture[f"cf_{name}"]) for name in ("content", "style"))
    fixed = {"adain": adain(content, style), "wavelet": wavelet_fix(content, style)}
    return max(worst, *(error(value, fixture[f"cf_{name}"]) for name, value in fixed.items()))
